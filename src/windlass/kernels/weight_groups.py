"""Groups of 64 weights side by side, and the sums that fitting scales and offsets to them needs.

Sums are added up one column after another and nothing is fused, so that the packer in C, which has rows in the lanes
of a vector, gives the same bytes.

Legend: g groups side by side, 64 columns below each other: w, h, y (64, g).
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class WeightGroups:
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
class Fit:
    """What a block says, and the error it leaves: codes (64, g), scale and offset that bfloat16 holds."""

    codes: torch.Tensor
    scale: torch.Tensor
    offset: torch.Tensor
    error: torch.Tensor


def weight_groups(w: torch.Tensor, h: torch.Tensor) -> WeightGroups:
    """w, h float32 (64, g): the numbers and what each counts."""
    highest, lowest = w.amax(0), w.amin(0)
    middle = highest * 0.5 + lowest * 0.5
    half = torch.maximum(highest * 0.5 - lowest * 0.5, middle.abs() * 0.0078125).clamp_min(1e-30)
    y = (w - middle) * (1.0 / half)
    weighted = h * y
    total, sum_y = column_sum(h), column_sum(weighted)
    mean_y = sum_y / total
    return WeightGroups(w, h, y, middle, half, total, sum_y, mean_y, column_sum(weighted * y) - mean_y * sum_y)


def better_fit(best: Fit, fit: Fit) -> Fit:
    """In each group the one that leaves the smaller error, `best` where both leave the same; one whose sums ran over
    to NaN never stays."""
    better = (fit.error < best.error) | best.error.isnan()
    return Fit(
        torch.where(better, fit.codes, best.codes),
        torch.where(better, fit.scale, best.scale),
        torch.where(better, fit.offset, best.offset),
        torch.where(better, fit.error, best.error),
    )


def inverse(scale: torch.Tensor) -> torch.Tensor:
    """1 / scale, and 0 for 0."""
    return torch.where(scale == 0, 0.0, 1.0 / scale)


def column_sum(numbers: torch.Tensor) -> torch.Tensor:
    """(64, g) -> (g), one column after another."""
    total = numbers[0].clone()
    for row in numbers[1:]:
        total += row
    return total
