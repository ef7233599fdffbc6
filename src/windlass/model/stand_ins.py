"""What stands in the model in place of layers, embedding, head and decoder; each calls the conductor back.

transformers' own forward drives them and never notices. T tokens of the row, H hidden size, R wanted rows.
"""

import copy
from typing import Any

import torch
from torch import nn

from windlass.model.conductor import Seat
from windlass.model.shared_states import SHARED_STATES, SharedStates
from windlass.model.streams import connect_streams, in_front, put_behind, put_in_front


class Conducted(nn.Module):
    """Holds the real module unregistered, so that nobody finds its parameters by walking the model.

    Attributes that transformers asks of the real one (`attention_type`, `weight`) are passed through.
    """

    def __init__(self, real: nn.Module, seat: Seat) -> None:
        super().__init__()
        self.__dict__["real"] = real
        self.__dict__["seat"] = seat

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["real"], name)


class EmbeddingStandIn(Conducted):
    """In place of the token embedding."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """ids (1, T) -> (1, T, H)."""
        return self.seat.conductor.embed(self.real, ids)


class LayerStandIn(Conducted):
    """In place of one decoder layer: runs its slice of the schedule, all micro-batches, and returns the row."""

    def __init__(self, real: nn.Module, seat: Seat, index: int, shared: SharedStates) -> None:
        super().__init__(real, seat)
        self.index = index
        self.__dict__["shared"] = shared
        self.__dict__["streams"] = False
        shared.connect(real)

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """hidden_states (1, T, H), or (1, R, H) out of the last layer; of S streams (S, 1, T, H) and (S, 1, R, H)."""
        if SHARED_STATES in kwargs:
            self.shared.layer = self.index
            kwargs = kwargs | {SHARED_STATES: self.shared}
        if not in_front(hidden_states):
            return self.seat.conductor.layer(self.index, self.real, hidden_states, args, kwargs)
        if not self.streams:
            connect_streams(self.real)
            self.__dict__["streams"] = True
        row = put_behind(hidden_states)
        return put_in_front(self.seat.conductor.layer(self.index, self.real, row, args, kwargs))


class HeadStandIn(Conducted):
    """In place of the language-model head."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """hidden_states (1, R, H) -> logits (1, R, V)."""
        return self.seat.conductor.head(self.real, hidden_states)


class DecoderStandIn(nn.Module):
    """In place of the decoder inside the model, so that the head can be run over a few rows at a time.

    The decoder itself runs once a pass; what it returned is then handed to the model's own head code (soft-capping
    and logit scales are transformers' business) in slices of rows.
    """

    def __init__(self, real: nn.Module) -> None:
        super().__init__()
        self.__dict__["real"] = real
        self.__dict__["rows"] = None
        self.__dict__["outputs"] = None

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["real"], name)

    def run(self, **kwargs: Any) -> torch.Tensor:
        """The decoder's forward; returns the normalised hidden rows (1, R, H)."""
        self.__dict__["outputs"] = self.real(**kwargs)
        return self.outputs[0]

    def show(self, rows: torch.Tensor | None) -> None:
        """Sets the rows (1, r, H) that the model's own forward will take for the decoder's output."""
        self.__dict__["rows"] = rows

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The decoder's last outputs, with the shown rows as hidden states."""
        if isinstance(self.outputs, tuple):
            return (self.rows, *self.outputs[1:])
        outputs = copy.copy(self.outputs)
        outputs["last_hidden_state"] = self.rows
        return outputs
