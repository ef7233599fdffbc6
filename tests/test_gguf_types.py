"""Every GGUF type that is read gives, bit by bit, the numbers that the gguf package gives."""

import gguf
import pytest
import torch

from gguf_models import drawn_blocks
from windlass.errors import UnsupportedModel
from windlass.facts.gguf_types import GGUF_TYPES, PACKINGS, packing_of
from windlass.kernels.encodings.table import ENCODINGS, unpack_rows
from windlass.kernels.packed_matrix import PackedMatrix

ROWS, COLUMNS = 6, 512
READ = sorted(PACKINGS)


@pytest.mark.parametrize("name", READ)
def test_numbers_are_those_of_the_gguf_package_bit_by_bit(name: str) -> None:
    blocks = drawn_blocks(name, ROWS, COLUMNS)
    expected = torch.from_numpy(gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[name]))
    assert expected.isfinite().all() and expected.unique().numel() > 50
    matrix = PackedMatrix(PACKINGS[name], (ROWS, COLUMNS), {"blocks": torch.from_numpy(blocks)})
    assert torch.equal(unpack_rows(matrix, 0, ROWS, torch.float32), expected)
    some = unpack_rows(matrix, 2, 5, torch.bfloat16)
    assert some.dtype == torch.bfloat16 and torch.equal(some, expected[2:5].bfloat16())


@pytest.mark.parametrize("name", [name for name in READ if name not in ("F32", "F16", "BF16")])
def test_bytes_may_lie_at_any_address(name: str) -> None:
    blocks = torch.from_numpy(drawn_blocks(name, 1, 256))
    shifted = torch.cat([torch.zeros(1, dtype=torch.uint8), blocks[0]])[1:]
    there = [PackedMatrix(PACKINGS[name], (1, 256), {"blocks": where}) for where in (blocks, shifted)]
    assert torch.equal(*(unpack_rows(matrix, 0, 1, torch.float32) for matrix in there))


def test_the_table_of_types_is_that_of_the_gguf_package() -> None:
    theirs = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items() if kind in GGUF_TYPES}
    assert theirs == GGUF_TYPES
    assert set(PACKINGS) <= set(ENCODINGS)


@pytest.mark.parametrize(
    ("name", "nearest"), [("IQ1_S", "Q2_K"), ("IQ2_XXS", "Q2_K"), ("IQ3_S", "Q3_K_M"), ("TQ1_0", "Q2_K")]
)
def test_a_type_that_is_not_read_is_named_with_the_nearest_that_is(name: str, nearest: str) -> None:
    with pytest.raises(UnsupportedModel, match=rf"x\.gguf.*blk\.0.*{name}.*not read yet; .*{nearest}"):
        packing_of(name, "x.gguf", "blk.0.ffn_up.weight")
