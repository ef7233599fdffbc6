"""Windlass's own packed blocks: every byte is where the format says, and what was joined is split again."""

import pytest
import torch

from windlass.facts.packing import Packing
from windlass.kernels.encodings.blocks import INT4, INT8, block_shape, codebooks, join, split, unpack

BOTH = pytest.mark.parametrize("packing", [INT4, INT8], ids=lambda packing: packing.name)


def drawn(packing: Packing, rows: int = 2, columns: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(7)
    low, high = (0, 16) if packing is INT4 else (-128, 128)
    codes = torch.randint(low, high, (rows, columns, 16, 64), generator=draw)
    scales, offsets = torch.randn(2, rows, columns, 16, generator=draw).bfloat16()
    return codes, scales, offsets


@BOTH
def test_what_was_joined_is_split_again(packing: Packing) -> None:
    codes, scales, offsets = drawn(packing)
    blocks = join(packing, codes, scales, offsets)
    assert blocks.shape == block_shape(packing, 32, 192) and blocks.is_contiguous()
    again = split(packing, blocks)
    assert all(torch.equal(a.float(), b.float()) for a, b in zip(again, (codes, scales, offsets), strict=True))


@BOTH
def test_each_number_is_where_the_format_says(packing: Packing) -> None:
    blocks = join(packing, *drawn(packing))
    dense = unpack(packing, {"blocks": blocks}, (32, 192), 0, 32, torch.float64)
    for n, k in ((0, 0), (5, 37), (31, 191), (16, 66), (7, 130)):
        block = blocks[n // 16, k // 64]
        row, column = n % 16, k % 64
        ends = block[packing.bits * 128 :].clone().view(torch.bfloat16).double()
        if packing is INT8:
            level = block[32 * (column // 2) + 2 * row + column % 2].view(torch.int8).double()
        else:
            byte = int(block[32 * (column // 4) + 2 * row + column % 2])
            book = int(block[512 + 32 + 2 * row]) & 3
            level = codebooks()[book, byte & 15 if column % 4 < 2 else byte >> 4].double()
        expected = (ends[row].float() * level.float() + ends[16 + row].float()).double()
        assert dense[n, k] == expected


def test_codebooks_rise_and_bfloat16_holds_them() -> None:
    books = codebooks()
    assert (books.diff(dim=1) > 0).all()
    assert torch.equal(books, books.bfloat16().float())


@BOTH
def test_rows_and_columns_of_padding_are_left_out(packing: Packing) -> None:
    blocks = join(packing, *drawn(packing))
    dense = unpack(packing, {"blocks": blocks}, (30, 150), 16, 30, torch.float32)
    assert dense.shape == (14, 150)
    assert torch.equal(dense, unpack(packing, {"blocks": blocks}, (32, 192), 16, 32, torch.float32)[:14, :150])
