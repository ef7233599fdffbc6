"""Walks the tuples, lists and dicts that transformers passes between its modules."""

from collections.abc import Callable
from typing import Any


def map_tree(function: Callable[[Any], Any], tree: Any) -> Any:
    """The same tree with `function` applied to every leaf that is not a plain tuple, list or dict."""
    if type(tree) in (tuple, list):
        return type(tree)(map_tree(function, item) for item in tree)
    if type(tree) is dict:
        return {key: map_tree(function, item) for key, item in tree.items()}
    return function(tree)
