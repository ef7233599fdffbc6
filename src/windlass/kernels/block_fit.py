"""How weights become Windlass's own blocks, in plain torch: the definition of correct for the packer in C.

A group is 64 columns of a row. Its numbers are to lie near scale * level + offset, with levels of one of four
codebooks (int4; upright or mirrored by a negative scale) or whole numbers (int8, see byte_fit). Choosing the nearest
levels and fitting scale and offset to them by least squares are done in turn (Lloyd's method): each lowers the squared
error.
Where that ends depends on where it begins, so several first scales are tried, which spread the levels over less and
less of the group's range: then the ends are cut off, for a finer grid in the middle. Scale and offset are rounded to
what the block can hold before levels are chosen the last time, and among codebooks and signs the smallest error wins.

With importances h of the columns (the mean square of what each is multiplied with) every sum is weighted by them, and
what is minimised is the error of the product instead of the weights'.

Sums are added up one column after another and nothing is fused, so that the packer in C, which has rows in the lanes
of a vector, gives the same bytes.

Legend: g groups side by side, 64 columns below each other: w, h, y (64, g). Scales s and offsets z (g).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce

import torch
from torch.nn import functional

from windlass.facts.own_checkpoint import COLUMNS, ROWS
from windlass.facts.packing import Packing
from windlass.kernels.byte_fit import fitted_bytes, nearest_byte
from windlass.kernels.encodings.blocks import block_shape, codebooks, join
from windlass.kernels.weight_groups import Fit, WeightGroups, better_fit, column_sum, inverse, weight_groups

STARTS = (1.0, 0.85, 0.7)
"""Shares of a group's range that the first scales cover."""

ROUNDS = 6
"""How often the best start is improved after its first fit."""

_GROUPS, _GROUPS_PASSING = 1 << 15, 1 << 12  # side by side: more leave the cache, fewer wait for Python

Nearest = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""x (64, g) in units of the scale -> the codes and the levels nearest to it."""


@dataclass(frozen=True, slots=True)
class _Line:
    """scale * level + offset, in units of y, and the error it leaves."""

    scale: torch.Tensor
    offset: torch.Tensor
    error: torch.Tensor


def fitted_blocks(
    weights: torch.Tensor, packing: Packing, importance: torch.Tensor, passing: torch.Tensor | None = None
) -> torch.Tensor:
    """weights (N, K), finite, and importance float32 (Bk * 64), zero beyond K -> uint8 (Bn, Bk, block bytes).

    With `passing` (Bk, 64, 64) the errors of columns are passed on to those after them in their group.
    """
    rows, columns = weights.shape
    down, across, _ = block_shape(packing, rows, columns)
    padded = _padded(weights.float(), down * ROWS, across * COLUMNS)
    groups = padded.view(-1, across, COLUMNS)  # (N, Bk, 64)
    which = torch.arange(across).repeat(len(padded))  # of the Bk groups
    at_once = _GROUPS if passing is None else _GROUPS_PASSING
    parts = []
    for w, number in zip(groups.reshape(-1, COLUMNS).split(at_once), which.split(at_once), strict=True):
        w, h = w.t().contiguous(), importance.view(across, COLUMNS)[number].t().contiguous()
        fit = _fitted(w, h, packing)
        parts.append(fit if passing is None else _passed_on(w, fit, packing, passing[number].permute(1, 2, 0)))
    codes = torch.cat([part.codes for part in parts], dim=1).t().reshape(down, ROWS, across, COLUMNS)
    scale, offset = (
        torch.cat(ends).view(down, ROWS, across).transpose(1, 2)
        for ends in ([part.scale for part in parts], [part.offset for part in parts])
    )
    return join(packing, codes.transpose(1, 2), scale, offset)


def _padded(weights: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Rows of zeros, columns that repeat the first number of their group: they must not widen its range."""
    beyond = columns - weights.shape[1]
    if beyond:
        first = weights[:, columns - COLUMNS : columns - COLUMNS + 1]
        weights = torch.cat([weights, first.expand(-1, beyond)], dim=1)
    return functional.pad(weights, (0, 0, 0, rows - weights.shape[0]))


def _fitted(w: torch.Tensor, h: torch.Tensor, packing: Packing) -> Fit:
    groups = weight_groups(w, h)
    return fitted_bytes(groups) if packing.name == "int8" else reduce(better_fit, _with_levels(groups))


def _passed_on(w: torch.Tensor, fit: Fit, packing: Packing, passing: torch.Tensor) -> Fit:
    """Codes chosen anew, a column after another, each for what the errors of those before have made of it.

    passing (64, 64, g): row k has the shares of the later columns.
    """
    nearest: Nearest = nearest_byte
    if packing.name != "int8":
        nearest = _nearest_marked(fit.offset.view(torch.int32) >> 16 & 3)
    w, over = w.clone(), inverse(fit.scale)
    codes = torch.empty_like(fit.codes)
    for k in range(COLUMNS):
        codes[k], level = nearest((w[k] - fit.offset) * over)
        left = w[k] - (level * fit.scale + fit.offset)
        w[k + 1 :] -= left * passing[k, k + 1 :]
    return Fit(codes, fit.scale, fit.offset, fit.error)


def _nearest_marked(number: torch.Tensor) -> Nearest:
    """The level nearest in each group's own codebook, of that `number` (g)."""
    each = [_nearest_level(book) for book in codebooks()]

    def nearest(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes, level = each[0](x)
        for own, way in enumerate(each):
            other_codes, other_level = way(x)
            codes, level = (
                torch.where(number == own, other_codes, codes),
                torch.where(number == own, other_level, level),
            )
        return codes, level

    return nearest


def _with_levels(groups: WeightGroups) -> Iterator[Fit]:
    for number, book in enumerate(codebooks()):
        nearest = _nearest_level(book)
        for sign in (1.0, -1.0):
            line = _improved_best(groups, nearest, (float(book[0]), float(book[-1])), sign)
            offset = _marked(line.offset * groups.half + groups.middle, number)
            scale = (line.scale * groups.half).bfloat16().float()
            scale = _refitted(groups, nearest, scale, offset).bfloat16().float()
            yield _judged(groups, nearest, scale, offset)


def _improved_best(
    groups: WeightGroups, nearest: Nearest, ends: tuple[float, float], sign: float
) -> _Line:  # fmt: skip
    """The start that leaves the smallest error once it is fitted, improved."""
    lowest, highest = torch.tensor(ends)
    best = None
    for share in torch.tensor(STARTS):
        scale = (sign * 2.0 * share / (highest - lowest)).expand_as(groups.middle)
        line = _improved(groups, nearest, scale, -scale * (highest + lowest) * 0.5)
        best = line if best is None else _lower(line, best)
    assert best is not None
    for _ in range(ROUNDS):
        best = _improved(groups, nearest, best.scale, best.offset)
    return best


def _lower(line: _Line, best: _Line) -> _Line:
    better = line.error < best.error
    return _Line(
        torch.where(better, line.scale, best.scale),
        torch.where(better, line.offset, best.offset),
        torch.where(better, line.error, best.error),
    )


def _improved(groups: WeightGroups, nearest: Nearest, scale: torch.Tensor, offset: torch.Tensor) -> _Line:
    """Levels nearest to y on a line, then the line that fits them best by weighted least squares."""
    _, level = nearest((groups.y - offset) * inverse(scale))
    weighted = groups.h * level
    total = column_sum(weighted)
    mean = total / groups.total
    together = column_sum(weighted * groups.y) - mean * groups.sum_y
    apart = column_sum(weighted * level) - mean * total
    sound = (apart > 1e-6) & (together.abs() > 1e-12)
    scale = torch.where(sound, together / apart, scale)
    offset = torch.where(sound, groups.mean_y - scale * mean, offset)
    return _Line(scale, offset, groups.spread_y - scale * together)


def _refitted(groups: WeightGroups, nearest: Nearest, scale: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """The scale that fits best once the offset is what its bytes say."""
    away = groups.w - offset
    _, level = nearest(away * inverse(scale))
    weighted = groups.h * level
    squares = column_sum(weighted * level)
    return torch.where(squares > 0, column_sum(weighted * away) / squares, scale)


def _judged(groups: WeightGroups, nearest: Nearest, scale: torch.Tensor, offset: torch.Tensor) -> Fit:
    codes, level = nearest((groups.w - offset) * inverse(scale))
    miss = (level * scale + offset - groups.w) * (1.0 / groups.half)
    return Fit(codes, scale, offset, column_sum(groups.h * miss * miss))


def _nearest_level(book: torch.Tensor) -> Nearest:
    middles = (book[1:] + book[:-1]) * 0.5

    def nearest(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes = torch.bucketize(x, middles, out_int32=True)
        return codes, book[codes]

    return nearest


def _marked(offset: torch.Tensor, number: int) -> torch.Tensor:
    """The nearest that bfloat16 holds with the number of the codebook in its two lowest bits."""
    bits = offset.view(torch.int32)
    size = ((bits & 0x7FFFFFFF) + 0x20000 - (number << 16)).clamp_min(0) >> 18 << 18
    return (size + (number << 16) | bits & -0x80000000).view(torch.float32)
