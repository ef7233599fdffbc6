"""The error tree: one root, an exit code each, and a docstring that draws the tree as it is."""

import inspect
import re

import pytest

from windlass import errors
from windlass.errors import RequestError, UsageError, WindlassError

CLASSES = [value for value in vars(errors).values() if inspect.isclass(value)]


def drawn_parents() -> dict[str, str]:
    """Class -> parent as the module docstring draws them, by the depth of each branch."""
    path: list[str] = []
    parents = {}
    for indent, name in re.findall(r"^([│ ├└─]*)([A-Z][A-Za-z]+)(?=\s{2,}|$)", inspect.getdoc(errors) or "", re.M):
        depth = len(indent) // 4
        path[depth:] = [name]
        parents[name] = path[depth - 1] if depth else "Exception"
    return parents


def test_the_docstring_draws_the_tree_as_it_is() -> None:
    assert drawn_parents() == {error.__name__: error.__base__.__name__ for error in CLASSES}


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_can_be_caught_by_the_root_and_says_what_it_means(error: type[WindlassError]) -> None:
    assert issubclass(error, WindlassError)
    assert (error.__doc__ or "").endswith(".")


@pytest.mark.parametrize("error", CLASSES)
def test_misuse_exits_with_2_and_any_other_failure_with_1(error: type[WindlassError]) -> None:
    assert error.exit_code == (2 if issubclass(error, UsageError) else 1)


def test_a_bad_request_is_a_misuse_and_keeps_its_message() -> None:
    with pytest.raises(UsageError, match=r"^row 7 has no prompt$"):
        raise RequestError("row 7 has no prompt")
