"""Scales and offsets for whole numbers of a byte, in plain torch: the definition of correct for the packer in C.

256 even levels over the range of a group leave nothing to place better, but much to choose: the squared error of 64
numbers that are rounded depends on where the grid happens to lie, and differs by a ninth of itself from one grid to
another that moves numbers by half a step. So of many scales, from the least that holds the range to about a tenth more,
each as bfloat16 holds it, and of all offsets that leave the ends within reach, the luckiest grid is taken.

For a scale, the error over the offset is a wave with the period of a step: rounding the numbers as they are and a
quarter of a step further gives four points of it (half a step further, r*r becomes r*r - |r| + 1/4), hence about where
it is lowest, and how low. The scales that promise most are judged by what they leave, with offsets a little to both
sides of that place. An offset is far coarser than a step where a group lies to one side; then it may move by a few
whole steps to where bfloat16 holds it well.

Legend: g groups side by side, 64 columns below each other. Scales and offsets (g).
"""

from dataclasses import dataclass

import torch

from windlass.kernels.weight_groups import Fit, WeightGroups, better_fit, column_sum, inverse

SCALES = 16
"""How many are looked at: neighbours in bfloat16."""
NUDGES = (-0.06, 0.0, 0.06)
"""What is added to an offset that was guessed, in scales."""

_KEPT = 4  # scales that are judged; as in the C source, like the next
_SHIFTS = 8


@dataclass(frozen=True, slots=True)
class _Place:
    """A scale and how much of it the offset lies above the middle; the error that is guessed, in units of half."""

    guess: torch.Tensor
    scale: torch.Tensor
    phase: torch.Tensor


def fitted_bytes(groups: WeightGroups) -> Fit:
    """The luckiest of the grids looked at, which is never worse than the range alone."""
    best = _judged(groups, *_range(groups))
    for place in _promising(groups):
        for nudge in torch.tensor(NUDGES):
            fit = _judged(groups, place.scale, _held_offset(groups, place.scale, place.phase + nudge))
            best = better_fit(best, fit)
    return best


def nearest_byte(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x in units of the scale -> the codes int32 and the levels nearest to it."""
    levels = x.clamp(-128.0, 127.0).round()
    return levels.to(torch.int32), levels


def _promising(groups: WeightGroups) -> list[_Place]:
    """The scales whose errors are guessed the smallest, the best first."""
    never, zero = torch.full_like(groups.half, torch.inf), torch.zeros_like(groups.half)
    kept = [_Place(never, groups.half, zero)] * _KEPT
    least = (groups.half * 0.0078125).view(torch.int32) + 0xFFFF & ~0xFFFF
    for step in range(SCALES):
        place = _guessed(groups, (least + (step << 16)).view(torch.float32))
        for number, worse in enumerate(kept):
            better = place.guess < worse.guess
            kept[number], place = _chosen(better, place, worse), _chosen(better, worse, place)
    return kept


def _guessed(groups: WeightGroups, scale: torch.Tensor) -> _Place:
    over = groups.half / scale
    x, quarter = groups.y * over, groups.total * 0.25
    squares, opposite = _two_points(x, groups.h, quarter)
    squares_between, opposite_between = _two_points(x - 0.25, groups.h, quarter)
    u, v = (opposite - squares) * 0.5, (opposite_between - squares_between) * 0.5
    mean = ((squares + squares_between) + (opposite + opposite_between)) * 0.25
    more, less = torch.maximum(u.abs(), v.abs()), torch.minimum(u.abs(), v.abs())
    phase = _turn(less * inverse(more), u, v)
    beyond = ((phase - 0.5).abs() + over - 128.0).clamp_min(0.0)  # of an end that is cut off
    unit = scale * (1.0 / groups.half)
    left = mean - (more * 0.96 + less * 0.398) + beyond * (groups.total * 0.03125)
    return _Place(unit * unit * left, scale, phase)


def _two_points(x: torch.Tensor, h: torch.Tensor, quarter: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What rounding x leaves, and rounding it half a step further."""
    miss = x - x.round()
    squares = column_sum(h * (miss * miss))
    return squares, squares - column_sum(h * miss.abs()) + quarter


def _turn(ratio: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The angle of (u, v) in turns, from 0 to 1, to a hundredth of one; `ratio` of the shorter to the longer."""
    turn = ratio * (0.16842 - ratio * 0.0434)
    turn = torch.where(v.abs() > u.abs(), 0.25 - turn, turn)
    turn = torch.where(u < 0, 0.5 - turn, turn)
    return torch.where(v < 0, 1.0 - turn, turn)


def _held_offset(groups: WeightGroups, scale: torch.Tensor, phase: torch.Tensor) -> torch.Tensor:
    """The offset that bfloat16 holds nearest to `phase` scales above the middle, or to as many more or less that no
    number falls off the end."""
    exact = groups.middle + phase * scale
    offset = exact.bfloat16().float()
    miss, room = (offset - exact).abs(), scale * 128.0 - groups.half
    for shift in range(-_SHIFTS, _SHIFTS + 1):
        moved = phase + float(shift)
        there = groups.middle + moved * scale
        held = there.bfloat16().float()
        off = (held - there).abs()
        better = (off < miss) & ((moved - 0.5).abs() * scale <= room)
        offset, miss = torch.where(better, held, offset), torch.where(better, off, miss)
    return offset


def _range(groups: WeightGroups) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and offset without a search: whatever bfloat16 makes of the offset, nothing is cut off."""
    offset = groups.middle.bfloat16().float()
    reach = torch.maximum(groups.w.amax(0) - offset, offset - groups.w.amin(0)).clamp_min(1e-30) * (1.0 / 127.0)
    return (reach.view(torch.int32) + 0xFFFF & ~0xFFFF).view(torch.float32), offset


def _judged(groups: WeightGroups, scale: torch.Tensor, offset: torch.Tensor) -> Fit:
    codes, level = nearest_byte((groups.w - offset) * inverse(scale))
    miss = (level * scale + offset - groups.w) * (1.0 / groups.half)
    return Fit(codes, scale, offset, column_sum(groups.h * (miss * miss)))


def _chosen(where: torch.Tensor, one: _Place, other: _Place) -> _Place:
    return _Place(
        torch.where(where, one.guess, other.guess),
        torch.where(where, one.scale, other.scale),
        torch.where(where, one.phase, other.phase),
    )
