"""Other programs' matrices as the native product takes them: where codes, scales and zeros lie, and in which strides.

The C source knows seven ways that codes lie ("awq", "gptq-4", ...), whatever the format is called: words of eight rows,
words of columns one below the other, or rows one after another. Those that share a scale come in runs of 32 or 64
columns; what does not is left to torch. Groups of GPTQ's columns may be in any order (act-order): then columns are
multiplied in the order of their groups.

Legend: N rows, K columns, G groups of g columns.
"""

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from windlass.kernels.encodings.mxfp4 import NUMBERS
from windlass.kernels.packed_matrix import PackedMatrix

WAYS = ("awq", "gptq-4", "gptq-8", "along-4", "along-8", "fp8", "fp4")
"""As the C source names them."""
LEAST_ROWS = 16
"""So many rows are unpacked together."""
RUN = 32
"""Columns that share a scale: a multiple of so many, or all."""
SCALES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.uint8: 3, torch.float8_e8m0fnu: 3}
NO_ZEROS, BYTE_ZEROS, WORD_ZEROS, AWQ_ZEROS = range(4)
SIGNS = 0x80808080


class ForeignJob(ctypes.Structure):
    """`struct foreign` of the C source."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("scales", "zeros", "order")),
        *((name, ctypes.c_int64) for name in (
            "width", "group", "row_block", "scale_kind", "scale_down", "scale_across", "zero_kind", "zero_down",
            "zero_across", "zero_shift", "flipped",
        )),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Grid:
    """Numbers of rows and groups: one lies `down` numbers further for each `block` of rows, `across` for each group."""

    numbers: torch.Tensor
    down: int
    across: int
    block: int = 1


@dataclass(frozen=True, slots=True)
class ForeignLayout:
    """How a matrix lies. `zero_kind` says what `zeros` are, `zero_shift` is added to them; `flipped` are the bits of a
    word of codes that are the other way round than a signed number has them; `order` int32 (K) are the columns as their
    groups follow each other, where they do not lie so."""

    way: str
    group: int
    scales: Grid
    zeros: Grid | None = None
    zero_kind: int = NO_ZEROS
    zero_shift: int = 0
    flipped: int = 0
    order: torch.Tensor | None = None

    def job(self, columns: int) -> ForeignJob:
        """As the C source takes it. This must outlive the calls."""
        wide = columns % (2 * RUN) == 0 and (self.group % (2 * RUN) == 0 or self.group >= columns)
        zeros = self.zeros
        return ForeignJob(
            self.scales.numbers.data_ptr(), None if zeros is None else zeros.numbers.data_ptr(),
            None if self.order is None else self.order.data_ptr(),
            2 * RUN if wide else RUN, self.group, self.scales.block, SCALES[self.scales.numbers.dtype],
            self.scales.down, self.scales.across, self.zero_kind, zeros.down if zeros else 0,
            zeros.across if zeros else 0, self.zero_shift, self.flipped,
        )  # fmt: skip


def foreign_layout(matrix: PackedMatrix) -> ForeignLayout | None:
    """How the native product reads the matrix, or None where torch must."""
    (rows, columns), packing = matrix.shape, matrix.packing
    if packing.name not in LAYOUTS or rows < LEAST_ROWS or columns % RUN:
        return None
    if packing.group < columns and (packing.group <= 0 or packing.group % RUN):
        return None
    if not all(part.is_contiguous() and part.device.type == "cpu" for part in matrix.parts.values()):
        return None
    if matrix.parts["scales"].dtype not in SCALES:
        return None
    return LAYOUTS[packing.name](matrix)


@cache
def book_of(way: str) -> torch.Tensor:
    """bfloat16: the number of each code; those of 4 bits twice, so that what lies above one does not matter."""
    if way == "fp8":
        return torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).bfloat16()
    numbers = torch.tensor(NUMBERS) if way == "fp4" else torch.arange(-8.0, 8.0)
    return numbers.bfloat16().repeat(2)


def _awq(matrix: PackedMatrix) -> ForeignLayout | None:
    rows, columns, groups = _sizes(matrix)
    parts = matrix.parts
    if rows % 8 or not _sized(parts, codes=columns * rows // 8, zeros=groups * rows // 8, scales=groups * rows):
        return None
    zeros = Grid(parts["zeros"], 1, rows // 8)
    return ForeignLayout("awq", matrix.packing.group, Grid(parts["scales"], 1, rows), zeros, AWQ_ZEROS)


def _gptq(matrix: PackedMatrix) -> ForeignLayout | None:
    (rows, columns, groups), bits, parts = _sizes(matrix), matrix.packing.bits, matrix.parts
    if bits not in (4, 8) or rows * bits % 32:
        return None
    if not _sized(parts, codes=columns * bits // 32 * rows, zeros=groups * rows * bits // 32, scales=groups * rows):
        return None
    named, order = parts.get("groups"), None
    if named is not None and not _follows(named, columns, matrix.packing.group):
        order = _order(named, columns, matrix.packing.group)
        if order is None:
            return None
    return ForeignLayout(
        f"gptq-{bits}", matrix.packing.group, Grid(parts["scales"], 1, rows),
        Grid(parts["zeros"], 1, rows * bits // 32), WORD_ZEROS, int(matrix.packing.option("zero_shift")),
        SIGNS if bits == 8 else 0, order,
    )  # fmt: skip


def _whole(matrix: PackedMatrix) -> ForeignLayout | None:
    """compressed-tensors' "packed-int" and "plain-int"."""
    (rows, columns, groups), bits, parts = _sizes(matrix), matrix.packing.bits, matrix.parts
    words, named = matrix.packing.name == "packed-int", parts.get("groups")
    # Negative groups were never set.
    if named is not None and not bool((named < 0).any()) and not _follows(named, columns, matrix.packing.group):
        return None
    scales = _grid(parts["scales"], rows, groups)
    if bits not in (4, 8) or not _sized(parts, codes=rows * columns * bits // (32 if words else 8)) or scales is None:
        return None
    flipped = SIGNS if words and bits == 8 else 0
    layout = ForeignLayout(f"along-{bits}", matrix.packing.group, scales, flipped=flipped)
    if "zeros" not in parts:
        return layout
    in_bytes = parts["zeros"].dtype == torch.int8
    zeros = _grid(parts["zeros"], rows if in_bytes else -(-rows * bits // 32), groups)
    if zeros is None:
        return None
    return replace(layout, zeros=zeros, zero_kind=BYTE_ZEROS if in_bytes else WORD_ZEROS)


def _fp8(matrix: PackedMatrix) -> ForeignLayout | None:
    (rows, columns, across), block = _sizes(matrix), int(matrix.packing.option("row_block"))
    if not _sized(matrix.parts, codes=rows * columns, scales=-(-rows // block) * across):
        return None
    return ForeignLayout("fp8", matrix.packing.group, Grid(matrix.parts["scales"], across, 1, block))


def _mxfp4(matrix: PackedMatrix) -> ForeignLayout | None:
    rows, columns, groups = _sizes(matrix)
    if not _sized(matrix.parts, codes=rows * columns // 2, scales=rows * groups):
        return None
    return ForeignLayout("fp4", matrix.packing.group, Grid(matrix.parts["scales"], groups, 1))


LAYOUTS: Mapping[str, Callable[[PackedMatrix], ForeignLayout | None]] = {
    "awq": _awq, "gptq": _gptq, "packed-int": _whole, "plain-int": _whole, "fp8": _fp8, "mxfp4": _mxfp4,
}  # fmt: skip


def _sizes(matrix: PackedMatrix) -> tuple[int, int, int]:
    """(N, K, G)."""
    rows, columns = matrix.shape
    return rows, columns, -(-columns // matrix.packing.group)


def _sized(parts: Mapping[str, torch.Tensor], **numbers: int) -> bool:
    """Whether the parts have so many numbers: the kernel reads where it is told."""
    return all(parts[role].numel() == count for role, count in numbers.items())


def _grid(numbers: torch.Tensor, down: int, groups: int) -> Grid | None:
    """Numbers (down, G), or one in all."""
    if numbers.numel() == groups == 1:
        return Grid(numbers, 0, 0)
    return Grid(numbers, groups, 1) if numbers.numel() == down * groups else None


def _order(groups: torch.Tensor, columns: int, size: int) -> torch.Tensor | None:
    """The columns as their groups follow each other, int32 (K), or None where groups are not of `size` columns each."""
    # Numbers of 16 bits are sorted by their digits, ten times as fast as others.
    order = groups.numpy().astype(np.int16).argsort(kind="stable")
    return torch.from_numpy(order.astype(np.int32)) if _follows(groups[order], columns, size) else None


def _follows(groups: torch.Tensor, columns: int, size: int) -> bool:
    """Whether groups of columns follow each other, `size` columns each."""
    return np.array_equal(groups.numpy(), _following(columns, size))


@cache
def _following(columns: int, size: int) -> NDArray[np.int64]:
    """The group of each column where they do."""
    return np.arange(columns) // size
