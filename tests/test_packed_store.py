"""A cache of packed pages gives what its definition gives, however the tokens come and wherever rows are cut."""

import random

import pytest
import torch

from attention_world import RULES, Heads
from packed_world import PackedWorld
from windlass.facts.attention_rule import AttentionRule
from windlass.kernels.token_span import TokenSpan

LIMIT = 5e-6


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_prompts_pieces_and_single_tokens(rule: AttentionRule, bits: int) -> None:
    world = PackedWorld((23, 9, 40), bits)
    for new in ((7, 1, 16), (1, 2, 5), (4, 1, 1), (1, 1, 7), (1, 4, 1), (9, 0, 10)):
        assert world.worst(new, rule) < LIMIT
    assert [story.stored for story in world.sequences] == [23, 9, 40]


@pytest.mark.parametrize("seed", range(6))
def test_any_cut_of_a_row(seed: int) -> None:
    cuts = random.Random(seed)
    world = PackedWorld((50, 50), 4, Heads(4, 2, 8, 12))
    while any(story.stored < 50 for story in world.sequences):
        new = [min(cuts.choice((0, 1, 1, 3, 4, 6, 9, 13)), 50 - story.stored) for story in world.sequences]
        if any(new):
            assert world.worst(new, RULES["causal"]) < LIMIT


def test_sinks_take_their_share() -> None:
    world, sinks = PackedWorld((30, 11), 8), torch.randn(6)
    for new in ((18, 5), (1, 1), (3, 1), (1, 4)):
        assert world.worst(new, RULES["wide window"], sinks) < LIMIT


def test_a_micro_batch_that_failed_is_written_again_in_halves() -> None:
    world = PackedWorld((40,), 4)
    world.worst((6,), RULES["causal"])
    batch, ((story, _),) = world.batch((9,))  # goes on with one page and opens another in its place
    world.store.write(batch, story.key[:, 6:15], story.value[:, 6:15])
    for new in (1, 4, 4):
        assert world.worst((new,), RULES["causal"], writes=2) < LIMIT


def test_an_answer_goes_on_from_a_copy_of_the_page_that_is_not_full() -> None:
    world = PackedWorld((30, 30), 4)
    first, second = world.sequences
    world.worst((10, 0), RULES["causal"])
    for part in ("query", "key", "value"):
        getattr(second, part)[:, :10] = getattr(first, part)[:, :10]
    second.pages[:2] = first.pages[:2]  # the full ones are shared
    world.store.copy_page(first.pages[2], second.pages[2], (world.places[0], world.places[1]))
    second.stored = 10
    for new in ((1, 1), (1, 5), (8, 1), (1, 2)):
        assert world.worst(new, RULES["causal"]) < LIMIT


def test_a_full_page_is_copied_as_it_is() -> None:
    world = PackedWorld((8, 8), 8)
    world.worst((8, 0), RULES["causal"])
    first, second = world.sequences
    world.store.copy_page(first.pages[1], second.pages[1])
    assert torch.equal(world.pages.packed[first.pages[1]], world.pages.packed[second.pages[1]])


def test_reading_goes_from_full_pages_on_to_the_one_that_is_not() -> None:
    world = PackedWorld((11,), 8)
    world.worst((10,), RULES["causal"])
    (story,) = world.sequences
    key, value = world.store.read(TokenSpan(0, 1, 9, story.pages, world.places[0]), 10, 2)
    assert key.shape == (2, 8, 16) and value.shape == (2, 8, 16)
    assert torch.equal(key[:, 6:], story.key[:, 8:10]) and torch.equal(value[:, 6:], story.value[:, 8:10])
    assert 0 < (key[:, :6] - story.key[:, 2:8]).abs().max() < 0.1


def test_a_layer_that_shares_sees_packed_all_that_is_full() -> None:
    world = PackedWorld((14,), 4)
    world.worst((6,), RULES["causal"])
    batch, ((story, _),) = world.batch((8,))
    world.store.write(batch, story.key[:, 6:14], story.value[:, 6:14])
    query, none = story.query[:, 6:14], story.key[:, :0]
    out = world.store.attend(query, none, none, batch, RULES["causal"], None)
    (span,) = batch.spans
    key, value = world.store.read(span, 14)
    repeated = [each.repeat_interleave(3, 0) for each in (key, value)]
    wanted = torch.nn.functional.scaled_dot_product_attention(
        query, *repeated, attn_mask=torch.arange(14) <= torch.arange(6, 14)[:, None], scale=0.25
    )
    assert (out - wanted.transpose(0, 1)).abs().max() < LIMIT
