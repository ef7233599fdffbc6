"""Decoders that carry several hidden states a token (AltUp, gemma3n), stacked in front of batch and tokens.

Everything here cuts a row by its tokens, in dimension 1. So outside the layers the streams lie behind the tokens, and
each layer finds them in front again.

S streams; T tokens of the row, t of a micro-batch; H hidden size.
"""

from typing import Any

import torch
from torch import nn

from windlass.model.tree import map_tree


def in_front(hidden: torch.Tensor) -> bool:
    """Whether hidden states are (S, 1, T, H) and not (1, T, H)."""
    return hidden.ndim == 4 and hidden.shape[1] == 1 and hidden.shape[0] > 1


def put_behind(tree: Any) -> Any:
    """(S, 1, T, H) -> (1, T, S, H), a view, in whatever a layer returns."""
    return map_tree(lambda leaf: leaf.movedim(0, 2) if _is_stack(leaf) else leaf, tree)


def put_in_front(tree: Any) -> Any:
    """(1, T, S, H) -> (S, 1, T, H), a view, in whatever a layer is given."""
    return map_tree(lambda leaf: leaf.movedim(2, 0) if _is_stack(leaf) else leaf, tree)


def connect_streams(layer: nn.Module) -> None:
    """From now on the layer is called with its hidden states as (1, t, S, H), and returns them so."""
    layer.register_forward_pre_hook(lambda layer, args: (put_in_front(args[0]), *args[1:]))
    layer.register_forward_hook(lambda layer, args, result: put_behind(result))


def _is_stack(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.ndim == 4
