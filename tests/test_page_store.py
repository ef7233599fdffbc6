"""The page store: what is written is read back, from any pages, and nothing else is touched."""

import pytest
import torch

from windlass.kernels.attention_batch import AttentionBatch
from windlass.kernels.page_store import PageStore
from windlass.kernels.token_span import TokenSpan

PAGE, HK, DK, DV = 4, 2, 8, 6
SIZES = (PAGE, HK, DK, HK, DV, torch.float32)


def filled_store(pages: list[int], tokens: int) -> tuple[PageStore, torch.Tensor, torch.Tensor]:
    """A store of NaN in which one sequence of random tokens has been written in pieces of 5, 1 and the rest."""
    store = PageStore(12, *SIZES, "cpu")
    store.keys.fill_(torch.nan)
    store.values.fill_(torch.nan)
    key, value = torch.randn(HK, tokens, DK), torch.randn(HK, tokens, DV)
    for start, stop in ((0, 5), (5, 6), (6, tokens)):
        batch = AttentionBatch([TokenSpan(0, stop - start, start, pages)], PAGE, "cpu")
        store.write(batch, key[:, start:stop], value[:, start:stop])
    return store, key, value


def test_a_sequence_written_in_pieces_over_scattered_pages_is_read_back_whole() -> None:
    store, key, value = filled_store([7, 2, 9, 0], 15)
    read_key, read_value = store.read([7, 2, 9, 0], 15)
    assert torch.equal(read_key, key)
    assert torch.equal(read_value, value)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (3, 5), (4, 8), (9, 15), (14, 15)])
def test_any_range_of_tokens_can_be_read(start: int, stop: int) -> None:
    store, key, value = filled_store([7, 2, 9, 0], 15)
    read_key, read_value = store.read([7, 2, 9, 0], stop, start)
    assert torch.equal(read_key, key[:, start:stop])
    assert torch.equal(read_value, value[:, start:stop])


def test_sequences_of_equal_length_are_read_together_one_after_the_other() -> None:
    store, key, value = filled_store([7, 2, 9, 0], 15)
    other = AttentionBatch([TokenSpan(0, 15, 0, [1, 3, 4, 5])], PAGE, "cpu")
    store.write(other, -key, -value)
    read_key, read_value = store.read_equal([[7, 2, 9, 0], [1, 3, 4, 5]], 15, 6)
    assert torch.equal(read_key, torch.cat([key, -key])[:, 6:])
    assert torch.equal(read_value, torch.cat([value, -value])[:, 6:])


def test_writing_touches_no_page_of_another_sequence() -> None:
    store, _, _ = filled_store([7, 2, 9, 0], 15)
    for page in (1, 3, 4, 5, 6, 8, 10, 11):
        assert store.keys[page].isnan().all()
        assert store.values[page].isnan().all()


def test_values_behind_the_end_of_a_sequence_are_finite_whatever_the_page_held_before() -> None:
    store, _, _ = filled_store([7, 2, 9, 0], 15)
    assert store.values[[7, 2, 9, 0]].isfinite().all()


def test_a_store_lives_in_the_storage_it_is_given() -> None:
    needed = PageStore.nbytes(3, *SIZES)
    storage = torch.zeros(needed + 64, dtype=torch.uint8)
    store = PageStore(3, *SIZES, "cpu", storage)
    batch = AttentionBatch([TokenSpan(0, 12, 0, [0, 1, 2])], PAGE, "cpu")
    store.write(batch, torch.ones(HK, 12, DK), torch.ones(HK, 12, DV))
    assert torch.equal(storage[:needed].view(torch.float32), torch.ones(needed // 4))
    assert not storage[needed:].any()


def test_the_bytes_of_a_store_count_keys_and_values_of_every_slot() -> None:
    assert PageStore.nbytes(10, 64, 8, 128, 8, 64, torch.bfloat16) == 10 * 64 * 8 * (128 + 64) * 2


def test_a_storage_too_small_is_refused_with_both_sizes() -> None:
    needed = PageStore.nbytes(3, *SIZES)
    with pytest.raises(AssertionError, match=f"{needed} bytes, its storage holds {needed - 1}"):
        PageStore(3, *SIZES, "cpu", torch.zeros(needed - 1, dtype=torch.uint8))


def test_a_span_longer_than_its_pages_is_refused() -> None:
    with pytest.raises(AssertionError, match="2 pages cannot hold 9 tokens"):
        AttentionBatch([TokenSpan(0, 1, 8, [0, 1])], PAGE, "cpu")
