"""Rotary tables on demand: made for one micro-batch at a time, never for the whole row.

At 65,536 tokens the tables of a whole row would outweigh it. A stand-in in the place of the rotary module returns a
`DeferredTables`, which the layer stand-in resolves for the rows it is about to compute.

Where the tables depend on the sequence's length (longrope, dynamic) a sequence gets the tables it would get alone:
transformers takes the largest position of a call for the length, so the rows are grouped by length and each call
carries that length's last position besides. T rows; D rotary dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from windlass.model.tree import map_tree

KEPT_ROWS = 256
"""Tables of the first rows of a pass are kept for the other layers: with one row, to make them costs a product."""


@dataclass(frozen=True, slots=True)
class SequenceLengths:
    """Which rows belong to which length: `rows[i]` rows of a sequence that will be `lengths[i]` tokens long.

    The length is the one the sequence would have in a forward of its own: the whole prompt while its prompt is
    being read, however many pieces that takes; the tokens so far while it decodes.
    """

    rows: tuple[tuple[int, int], ...]
    lengths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DeferredTables:
    """A call of a rotary module that has not happened yet. `pick` selects an item of its result, if any."""

    rotary: nn.Module
    like: torch.Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    length_dependent: bool
    pick: int | None = None
    kept: dict[tuple[int, int], Any] = field(default_factory=dict, repr=False, compare=False)

    def __iter__(self) -> Any:
        """`cos, sin = self.rotary_emb(...)` gives two deferred halves."""
        for index in (0, 1):
            yield DeferredTables(self.rotary, self.like, self.args, self.kwargs, self.length_dependent, index)

    def __getitem__(self, rows: tuple[slice, ...]) -> "DeferredTables":
        """All rows of tables that are not made yet (gemma4 takes the rows whose logits are wanted, here all)."""
        assert all(part == slice(None) or part == slice(0, None) for part in rows), f"tables cut to {rows}"
        return self

    def resolve_rows(self, positions: torch.Tensor, start: int, stop: int, lengths: SequenceLengths) -> Any:
        """As `resolve`, for rows start:stop of the pass whose positions are (1, T); the first are made only once."""
        if stop > KEPT_ROWS:
            return self.resolve(positions[:, start:stop], lengths)
        if (start, stop) not in self.kept:
            self.kept[start, stop] = self.resolve(positions[:, start:stop], lengths)
        return self.kept[start, stop]

    def resolve(self, positions: torch.Tensor, lengths: SequenceLengths) -> Any:
        """positions (1, t) of the micro-batch -> what the module returns for them, usually (cos, sin) (1, t, D)."""
        if not self.length_dependent:
            tables = self.rotary(self.like, positions, *self.args, **self.kwargs)
        else:
            tables = self._by_length(positions, lengths)
        return tables if self.pick is None else tables[self.pick]

    def _by_length(self, positions: torch.Tensor, lengths: SequenceLengths) -> Any:
        parts = []
        for (start, stop), length in zip(lengths.rows, lengths.lengths, strict=True):
            self.rotary(self.like, positions.new_zeros(1, 1), *self.args, **self.kwargs)  # forget any longer block-mate
            marked = torch.cat([positions[:, start:stop], positions.new_full((1, 1), length - 1)], dim=1)
            tables = self.rotary(self.like, marked, *self.args, **self.kwargs)
            parts.append(map_tree(lambda table: table[..., :-1, :], tables))
        return _concatenate(parts)


def _concatenate(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], torch.Tensor):
        return torch.cat(list(parts), dim=-2)
    return tuple(_concatenate(items) for items in zip(*parts, strict=True))


class RotaryStandIn(nn.Module):
    """In place of a rotary module of the decoder."""

    def __init__(self, real: nn.Module) -> None:
        super().__init__()
        self.__dict__["real"] = real
        self.length_dependent: bool
        self.__dict__["length_dependent"] = _length_dependent(real)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["real"], name)

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor, *args: Any, **kwargs: Any) -> DeferredTables:
        """x gives dtype and device only; position_ids are those of the row and are ignored until a layer asks."""
        return DeferredTables(self.real, x[..., :1, :1], args, kwargs, self.length_dependent)


def _length_dependent(rotary: nn.Module) -> bool:
    kinds = rotary.__dict__.get("rope_type", "default")
    names = kinds.values() if isinstance(kinds, dict) else [kinds]
    return any("dynamic" in str(name) or str(name) == "longrope" for name in names)
