"""An arena is one block of page-aligned memory; views and tensors are its bytes, never copies."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from windlass.memory.arena import Arena
from windlass.memory.process_memory import resident_bytes
from windlass.units import MIB

DTYPES = (torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.bool, torch.float8_e4m3fn, torch.int64)


def test_a_tensor_and_a_view_are_the_same_bytes() -> None:
    arena = Arena(8192)
    arena.view(4096, 8)[:] = b"\x00\x00\x80\x3f\x00\x00\x00\x40"
    tensor = arena.tensor(4096, torch.float32, (2,))
    assert tensor.tolist() == [1.0, 2.0]
    tensor[0] = 3.0
    assert bytes(arena.view(4096, 4)) == b"\x00\x00\x40\x40"


@given(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=3), st.integers(0, 40))
def test_any_dtype_and_shape_lie_at_their_offset(dtype: torch.dtype, shape: list[int], items: int) -> None:
    arena = Arena(4096)
    tensor = arena.tensor(items * dtype.itemsize, dtype, shape)
    assert tensor.dtype == dtype and list(tensor.shape) == shape and tensor.is_contiguous()
    if tensor.numel():
        assert tensor.data_ptr() == arena.tensor(0, torch.uint8, (1,)).data_ptr() + items * dtype.itemsize


def test_memory_begins_on_a_page_and_is_zero() -> None:
    arena = Arena(10_000)
    arena.check()
    assert arena.tensor(0, torch.uint8, (10_000,)).count_nonzero() == 0


def test_an_odd_offset_is_for_the_caller_to_copy() -> None:
    arena = Arena(4096)
    assert arena.tensor(1, torch.uint8, (4,)).shape == (4,)
    with pytest.raises(AssertionError, match="offset 1 is not a multiple of 2 bytes"):
        arena.tensor(1, torch.bfloat16, (4,))


@pytest.mark.parametrize(("offset", "nbytes"), [(-1, 4), (4090, 7), (0, 4097), (5000, 0)])
def test_nothing_is_lent_from_outside(offset: int, nbytes: int) -> None:
    arena = Arena(4096)
    with pytest.raises(AssertionError):
        arena.view(offset, nbytes)
    with pytest.raises(AssertionError):
        arena.tensor(offset, torch.uint8, (nbytes,))


def test_closing_gives_the_memory_back_even_while_a_tensor_is_held() -> None:
    arena = Arena(64 * MIB)
    tensor = arena.tensor(0, torch.uint8, (64 * MIB,)).fill_(7)
    held = resident_bytes()
    arena.close()
    assert held - resident_bytes() > 60 * MIB
    del tensor


def test_a_closed_arena_lends_nothing() -> None:
    arena = Arena(4096)
    arena.close()
    arena.close()
    with pytest.raises(AssertionError, match="closed"):
        arena.view(0, 1)
