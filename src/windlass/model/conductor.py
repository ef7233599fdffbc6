"""The seam between transformers' forward and the runner: stand-ins call it back whenever work is due.

T tokens of the row; H hidden size; R rows whose logits are wanted; V vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn


class Conductor(Protocol):
    """Whoever executes a pass. The engine's runner is one; the rehearsal and the shape probe are others."""

    def embed(self, embedding: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        """ids (1, T) -> hidden row (1, T, H)."""
        ...

    def layer(
        self, index: int, layer: nn.Module, row: torch.Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Runs layer `index` over the whole row; returns what the layer would, with the row as hidden states."""
        ...

    def head(self, head: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (1, R, H) -> logits (1, R, V)."""
        ...

    def announce_experts(self, layer: int, experts: tuple[int, ...]) -> None:
        """The experts a micro-batch of `layer` is about to ask for, in the order it will ask."""
        ...

    def expert(self, layer: int, expert: int) -> Mapping[str, torch.Tensor]:
        """The weights of one expert, by parameter name inside the experts module; valid until the next call."""
        ...


class Seat:
    """Where the conductor sits: stand-ins are made before it, and a rehearsal may take its place for a while."""

    def __init__(self) -> None:
        self.conductor: Conductor
