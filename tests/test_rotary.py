"""Rotary tables on demand: the first rows of a pass have theirs made once, all others whenever a layer asks."""

import torch
from torch import nn

from windlass.model.rotary import KEPT_ROWS, DeferredTables, RotaryStandIn, SequenceLengths

POSITIONS = torch.arange(KEPT_ROWS + 10)[None] * 3


class Counted(nn.Module):
    """Tables that say their positions; `calls` counts how often they were made."""

    calls = 0

    def forward(self, like: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        return positions[..., None].float(), -positions[..., None].float()


def resolved(deferred: DeferredTables, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = SequenceLengths(((0, stop - start),), (stop,))
    cos, sin = deferred.resolve_rows(POSITIONS, start, stop, lengths)
    return cos, sin


def test_every_layer_gets_the_tables_of_its_rows_and_they_are_made_once() -> None:
    rotary = Counted()
    deferred = RotaryStandIn(rotary)(torch.zeros(1, 8, 4), POSITIONS)
    for _ in range(3):
        for start, stop in ((0, 1), (1, 5), (0, KEPT_ROWS)):
            cos, sin = resolved(deferred, start, stop)
            assert torch.equal(cos[0, :, 0], POSITIONS[0, start:stop].float()) and torch.equal(sin, -cos)
    assert rotary.calls == 3


def test_a_later_pass_has_its_own() -> None:
    rotary = Counted()
    stand_in = RotaryStandIn(rotary)
    for _ in range(2):
        resolved(stand_in(torch.zeros(1, 8, 4), POSITIONS), 0, 1)
    assert rotary.calls == 2


def test_those_of_a_long_row_are_not_kept() -> None:
    rotary = Counted()
    deferred = RotaryStandIn(rotary)(torch.zeros(1, 8, 4), POSITIONS)
    for _ in range(2):
        cos, _ = resolved(deferred, KEPT_ROWS - 1, KEPT_ROWS + 1)
        assert torch.equal(cos[0, :, 0], POSITIONS[0, KEPT_ROWS - 1 : KEPT_ROWS + 1].float())
    assert rotary.calls == 2 and deferred.kept == {}
