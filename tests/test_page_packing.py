"""Packed pages: what a number loses, what a page takes, and that any number at all has a code."""

import pytest
import torch

from windlass.facts.cache_format import cache_format
from windlass.facts.cache_shape import CacheShape
from windlass.facts.packed_page import PackedPage
from windlass.kernels.page_packing import key_scales, pack_pages, unpack_keys, unpack_values, value_scales

SHAPES = {
    "grouped heads": CacheShape(2, 128, 2, 128),
    "small odd heads": CacheShape(3, 5, 3, 7),
    "latents": CacheShape(1, 96, 1, 16),
}


def made(shape: CacheShape, tokens: int, pages: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys with channels that are large throughout, and values with tokens that are."""
    generator = torch.Generator().manual_seed(7)
    key = torch.randn(pages, shape.key_heads, tokens, shape.key_dim, generator=generator)
    key += 30 * torch.randn(shape.key_dim, generator=generator)
    value = torch.randn(pages, shape.value_heads, tokens, shape.value_dim, generator=generator)
    return key, value * torch.rand(pages, shape.value_heads, tokens, 1, generator=generator) * 5


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_number_is_off_by_half_a_step_of_its_own_group(shape: CacheShape, bits: int) -> None:
    page = PackedPage(shape, 64, bits)
    key, value = made(shape, 64)
    packed = pack_pages(key, value, page)
    assert packed.shape == (3, page.nbytes) and packed.dtype == torch.uint8
    # A step is the range of a key channel over the page, or of a group of a token's values, and a little for float16.
    step = (key.amax(2, True) - key.amin(2, True)) / page.levels + key.abs().amax(2, True) * 2**-9 / page.levels
    assert ((unpack_keys(packed, page, torch.float32) - key).abs() <= 0.51 * step + 1e-6).all()
    grouped = value.unflatten(-1, (page.value_groups, -1))
    step = (grouped.amax(-1, True) - grouped.amin(-1, True) + grouped.abs().amax(-1, True) * 2**-9) / page.levels
    off = (unpack_values(packed, page, torch.float32) - value).abs().unflatten(-1, (page.value_groups, -1))
    assert (off <= 0.51 * step + 1e-6).all()


def test_a_large_channel_costs_its_neighbours_nothing() -> None:
    page = PackedPage(CacheShape(1, 64, 1, 64), 64, 4)
    key, value = made(page.shape, 64, 1)
    alone = unpack_keys(pack_pages(key, value, page), page, torch.float32)
    key[..., 3] *= 1000
    beside = unpack_keys(pack_pages(key, value, page), page, torch.float32)
    others = [channel for channel in range(64) if channel != 3]
    assert torch.equal(alone[..., others], beside[..., others])


def test_numbers_that_are_all_equal_and_numbers_of_any_size_have_codes() -> None:
    page = PackedPage(CacheShape(1, 4, 1, 4), 4, 4)
    sizes = torch.tensor([0.0, 1e-9, -3.0, 6e4])
    key = value = sizes.expand(1, 1, 4, 4)
    read = unpack_keys(pack_pages(key, value, page), page, torch.float32)
    assert torch.allclose(read, key, rtol=2**-10, atol=2**-23)
    assert unpack_values(pack_pages(key, value, page), page, torch.float32).isfinite().all()


@pytest.mark.parametrize(("name", "bits_each"), [("int8", 8.5), ("int4", 4.5)])
def test_a_page_of_64_tokens_takes_half_a_bit_a_number_for_its_scales(name: str, bits_each: float) -> None:
    shape = CacheShape(8, 128, 8, 128)
    assert cache_format(name).page_bytes(shape, 64, 2) == 64 * shape.elements * bits_each / 8
    assert cache_format("auto").page_bytes(shape, 64, 2) == 64 * shape.elements * 2


def test_the_parts_of_a_page_do_not_overlap() -> None:
    page = PackedPage(CacheShape(2, 128, 2, 128), 64, 4)
    packed = pack_pages(*made(page.shape, 64), page)
    codes = packed.clone()
    key_scales(codes, page).fill_(0)
    value_scales(codes, page).fill_(0)
    assert torch.equal(codes[:, : page.key_scales_at], packed[:, : page.key_scales_at])
    assert torch.equal(
        codes[:, page.values_at : page.value_scales_at], packed[:, page.values_at : page.value_scales_at]
    )
    assert not unpack_keys(codes, page, torch.float32).any() and not unpack_values(codes, page, torch.float32).any()
