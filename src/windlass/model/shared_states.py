"""Which layers share keys and values, learnt from what transformers passes from layer to layer for that purpose.

A decoder whose later layers attend to the keys and values of earlier ones gives every layer one dict: an earlier layer
puts its keys and values in, a later one takes them out. Here a layer runs a micro-batch at a time, so what was put in
would be of another micro-batch; the store has them all. The dict given in its place notes who shares with whom, and
hands out keys and values of no tokens, of the right heads and sizes.
"""

from collections.abc import Hashable
from typing import Any

import torch
from torch import nn

SHARED_STATES = "shared_kv_states"
"""The keyword by which transformers' layers know the dict."""
_SHARED = "windlass_shared_states"

KeysAndValues = tuple[torch.Tensor, torch.Tensor]


class SharedStates:
    """In place of the dict: one for all layers of a model and all its passes.

    `layer` is the index of the one whose turn it is; `stored_by` gives, for a layer that shares, whose store it reads.
    """

    def __init__(self) -> None:
        self.layer = 0
        self.stored_by: dict[int, int] = {}
        self._stored: dict[Hashable, tuple[int, KeysAndValues]] = {}

    def connect(self, layer: nn.Module) -> None:
        """Lets the attention of a layer find out, by `store_index`, whose store to read."""
        for module in layer.modules():
            module.__dict__[_SHARED] = self

    def __setitem__(self, name: Hashable, states: KeysAndValues) -> None:
        """The layer shares key (1, Hk, T, Dk) and value (1, Hv, T, Dv) under `name`; only their shapes are kept."""
        key, value = states
        self._stored[name] = (self.layer, (_of_no_tokens(key), _of_no_tokens(value)))

    def __getitem__(self, name: Hashable) -> KeysAndValues:
        """Key (1, Hk, 0, Dk) and value (1, Hv, 0, Dv); the layer's attention will read the store they came from."""
        self.stored_by[self.layer], states = self._stored[name]
        return states


def store_index(module: Any) -> int:
    """The layer whose store an attention module reads: its own, or that of the layer it shares with."""
    shared: SharedStates = module.__dict__[_SHARED]
    own = int(module.layer_idx)
    return shared.stored_by.get(own, own)


def _of_no_tokens(states: torch.Tensor) -> torch.Tensor:
    return states.new_empty(*states.shape[:-2], 0, states.shape[-1])
