"""How weights become Windlass's own blocks, in plain torch: the definition of correct for the packer in C.

A group is 64 columns of a row. Its numbers are to lie near scale * level + offset, with levels of one of four
codebooks (int4; upright or mirrored by a negative scale) or whole numbers (int8). Choosing the nearest levels and
fitting scale and offset to them by least squares are done in turn (Lloyd's method): each lowers the squared error.
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

import torch
from torch.nn import functional

from windlass.facts.packing import Packing
from windlass.kernels.encodings.blocks import COLUMNS, ROWS, block_shape, codebooks, join

STARTS = {"int4": (1.0, 0.85, 0.7), "int8": (1.0, 0.97)}
"""Shares of a group's range that the first scales cover."""

ROUNDS = {"int4": 6, "int8": 2}
"""How often the best start is improved after its first fit."""

_GROUPS = 1 << 15  # side by side: more leave the cache, fewer wait for Python

Nearest = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""x (64, g) in units of the scale -> the codes and the levels nearest to it."""


@dataclass(frozen=True, slots=True)
class _Groups:
    """w as they are, y less the middle of the range and over half of it; sums of y weighted by h."""

    w: torch.Tensor
    h: torch.Tensor
    y: torch.Tensor
    middle: torch.Tensor
    half: torch.Tensor
    total: torch.Tensor
    sum_y: torch.Tensor
    mean_y: torch.Tensor
    spread_y: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Line:
    """scale * level + offset, in units of y, and the error it leaves."""

    scale: torch.Tensor
    offset: torch.Tensor
    error: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Fit:
    """What a block says, and the error it leaves: codes (64, g), scale and offset that bfloat16 holds."""

    codes: torch.Tensor
    scale: torch.Tensor
    offset: torch.Tensor
    error: torch.Tensor


def fitted_blocks(weights: torch.Tensor, packing: Packing, importance: torch.Tensor) -> torch.Tensor:
    """weights (N, K), finite, and importance float32 (Bk * 64), zero beyond K -> uint8 (Bn, Bk, block bytes)."""
    rows, columns = weights.shape
    down, across, _ = block_shape(packing, rows, columns)
    padded = _padded(weights.float(), down * ROWS, across * COLUMNS)
    groups = padded.view(-1, across, COLUMNS)  # (N, Bk, 64)
    h = importance.view(across, COLUMNS).expand(groups.shape).reshape(-1, COLUMNS)
    parts = [
        _fitted(w.t().contiguous(), part.t().contiguous(), packing)
        for w, part in zip(groups.reshape(-1, COLUMNS).split(_GROUPS), h.split(_GROUPS), strict=True)
    ]
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


def _fitted(w: torch.Tensor, h: torch.Tensor, packing: Packing) -> _Fit:
    groups = _measured(w, h)
    candidates = _with_levels(groups) if packing.name == "int4" else _with_bytes(groups)
    best = next(candidates)
    for fit in candidates:
        better = fit.error < best.error
        best = _Fit(*(
            torch.where(better, getattr(fit, name), getattr(best, name))
            for name in ("codes", "scale", "offset", "error")
        ))  # fmt: skip
    return best


def _with_levels(groups: _Groups) -> Iterator[_Fit]:
    for number, book in enumerate(codebooks()):
        nearest = _nearest_level(book)
        for sign in (1.0, -1.0):
            line = _improved_best(groups, nearest, (float(book[0]), float(book[-1])), sign, "int4")
            offset = _marked(line.offset * groups.half + groups.middle, number)
            scale = (line.scale * groups.half).bfloat16().float()
            scale = _refitted(groups, nearest, scale, offset).bfloat16().float()
            yield _judged(groups, nearest, scale, offset)


def _with_bytes(groups: _Groups) -> Iterator[_Fit]:
    """A rounded scale that is too small cuts off the ends, so the next larger one is tried too."""
    line = _improved_best(groups, _nearest_byte, (-128.0, 127.0), 1.0, "int8")
    offset = (line.offset * groups.half + groups.middle).bfloat16().float()
    scale = _refitted(groups, _nearest_byte, (line.scale * groups.half).bfloat16().float(), offset)
    below = scale.view(torch.int32) & ~0xFFFF
    yield _judged(groups, _nearest_byte, below.view(torch.float32), offset)
    yield _judged(groups, _nearest_byte, (below + 0x10000).view(torch.float32), offset)


def _measured(w: torch.Tensor, h: torch.Tensor) -> _Groups:
    highest, lowest = w.amax(0), w.amin(0)
    middle = highest * 0.5 + lowest * 0.5
    half = torch.maximum(highest * 0.5 - lowest * 0.5, middle.abs() * 0.0078125).clamp_min(1e-30)
    y = (w - middle) * (1.0 / half)
    weighted = h * y
    total, sum_y = _sum(h), _sum(weighted)
    mean_y = sum_y / total
    return _Groups(w, h, y, middle, half, total, sum_y, mean_y, _sum(weighted * y) - mean_y * sum_y)


def _improved_best(
    groups: _Groups, nearest: Nearest, ends: tuple[float, float], sign: float, name: str
) -> _Line:  # fmt: skip
    """The start that leaves the smallest error once it is fitted, improved."""
    lowest, highest = torch.tensor(ends)
    best = None
    for share in torch.tensor(STARTS[name]):
        scale = (sign * 2.0 * share / (highest - lowest)).expand_as(groups.middle)
        line = _improved(groups, nearest, scale, -scale * (highest + lowest) * 0.5)
        best = line if best is None else _lower(line, best)
    assert best is not None
    for _ in range(ROUNDS[name]):
        best = _improved(groups, nearest, best.scale, best.offset)
    return best


def _lower(line: _Line, best: _Line) -> _Line:
    better = line.error < best.error
    return _Line(
        torch.where(better, line.scale, best.scale),
        torch.where(better, line.offset, best.offset),
        torch.where(better, line.error, best.error),
    )


def _improved(groups: _Groups, nearest: Nearest, scale: torch.Tensor, offset: torch.Tensor) -> _Line:
    """Levels nearest to y on a line, then the line that fits them best by weighted least squares."""
    _, level = nearest((groups.y - offset) * _inverse(scale))
    weighted = groups.h * level
    total = _sum(weighted)
    mean = total / groups.total
    together = _sum(weighted * groups.y) - mean * groups.sum_y
    apart = _sum(weighted * level) - mean * total
    sound = (apart > 1e-6) & (together.abs() > 1e-12)
    scale = torch.where(sound, together / apart, scale)
    offset = torch.where(sound, groups.mean_y - scale * mean, offset)
    return _Line(scale, offset, groups.spread_y - scale * together)


def _refitted(groups: _Groups, nearest: Nearest, scale: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """The scale that fits best once the offset is what its bytes say."""
    away = groups.w - offset
    _, level = nearest(away * _inverse(scale))
    weighted = groups.h * level
    squares = _sum(weighted * level)
    return torch.where(squares > 0, _sum(weighted * away) / squares, scale)


def _judged(groups: _Groups, nearest: Nearest, scale: torch.Tensor, offset: torch.Tensor) -> _Fit:
    codes, level = nearest((groups.w - offset) * _inverse(scale))
    miss = (level * scale + offset - groups.w) * (1.0 / groups.half)
    return _Fit(codes, scale, offset, _sum(groups.h * miss * miss))


def _nearest_level(book: torch.Tensor) -> Nearest:
    middles = (book[1:] + book[:-1]) * 0.5

    def nearest(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes = torch.bucketize(x, middles, out_int32=True)
        return codes, book[codes]

    return nearest


def _nearest_byte(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    levels = x.clamp(-128.0, 127.0).round()
    return levels.to(torch.int32), levels


def _marked(offset: torch.Tensor, number: int) -> torch.Tensor:
    """The nearest that bfloat16 holds with the number of the codebook in its two lowest bits."""
    bits = offset.view(torch.int32)
    size = ((bits & 0x7FFFFFFF) + 0x20000 - (number << 16)).clamp_min(0) >> 18 << 18
    return (size + (number << 16) | bits & -0x80000000).view(torch.float32)


def _inverse(scale: torch.Tensor) -> torch.Tensor:
    return torch.where(scale == 0, 0.0, 1.0 / scale)


def _sum(numbers: torch.Tensor) -> torch.Tensor:
    """(64, g) -> (g), one column after another."""
    total = numbers[0].clone()
    for row in numbers[1:]:
        total += row
    return total
