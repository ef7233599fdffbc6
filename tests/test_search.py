"""The division of the budget: never over it, exact by bytes, and refusals that say what would do."""

import re
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from windlass.errors import BudgetError
from windlass.facts.cache_shape import CacheShape
from windlass.facts.model_facts import ModelFacts
from windlass.facts.parameter_source import ParameterSource
from windlass.facts.plan import Plan
from windlass.facts.tensor_fact import TensorFact
from windlass.facts.weight_group import WeightGroup
from windlass.facts.workload import Workload
from windlass.planner.residency import keep_only, keep_share
from windlass.planner.search import FIXED_SCRATCH, Demands, search
from windlass.units import GIB, MIB, parse_size

LAYERS, MATRIX = 8, 6 * MIB


def source(name: str, nbytes: int, offset: int) -> ParameterSource:
    return ParameterSource(name, (TensorFact(name, "BF16", (nbytes // 2,), "/model", offset, nbytes),), nbytes, True)


def model(layers: int = LAYERS, matrix: int = MATRIX) -> ModelFacts:
    """Layers of four matrices, one after the other in one file; a head and an embedding of three matrices each."""
    groups, offset = [WeightGroup("outer", "outer", (source("norm", 4096, 0),))], 4096
    groups.append(WeightGroup("embedding", "embedding", (source("embedding", 3 * matrix, offset),)))
    offset += 3 * matrix
    for layer in range(layers):
        sources = tuple(source(f"layers.{layer}.{i}", matrix, offset + i * matrix) for i in range(4))
        groups.append(WeightGroup(f"layer {layer}", "layer", sources, layer))
        offset += 4 * matrix
    groups.append(WeightGroup("head", "head", (source("head", 3 * matrix, offset),)))
    shapes = tuple((layer, CacheShape(2, 64, 2, 64)) for layer in range(layers))
    return ModelFacts("toy", "llama", "bfloat16", 2, layers, 512, 1000, 4096, tuple(groups), shapes)


def demands(budget: int, block_size: int = 0) -> Demands:
    return Demands(budget, 100 * MIB, 10 * MIB, 256, 1.0, 64, "cpu", block_size)


WORK = Workload(num_prompts=4, prompt_len=32, gen_len=16)
BUDGETS = st.integers(180 * MIB, 600 * MIB)


@given(budget=BUDGETS, prompts=st.integers(1, 600), prompt_len=st.integers(1, 2000))
def test_no_plan_exceeds_its_budget(budget: int, prompts: int, prompt_len: int) -> None:
    try:
        plan = search(model(), Workload(prompts, prompt_len, 16), demands(budget))
    except BudgetError:
        return
    assert plan.memory.spare >= 0
    streamed = sum(part.streamed_bytes for part in plan.slices)
    resident = sum(part.resident_bytes for part in plan.slices)
    assert resident + streamed >= sum(g.nbytes for g in model().groups if g.kind in ("layer", "head"))


def test_a_model_that_fits_is_simply_resident() -> None:
    plan = search(model(), WORK, demands(GIB))
    assert plan.streamed_bytes == 0 and plan.memory.ring == 0
    assert {source.key for group in model().groups for source in group.sources} == plan.resident


@given(budget=BUDGETS)
def test_what_streams_could_not_have_stayed_to_within_one_tensor(budget: int) -> None:
    try:
        plan = search(model(), WORK, demands(budget))
    except BudgetError:
        assume(False)
    if plan.streamed_bytes:
        assert plan.memory.spare < MATRIX, "a tensor more would have fitted"


@given(budget=BUDGETS, more=st.integers(1, 200 * MIB))
def test_more_memory_never_streams_more(budget: int, more: int) -> None:
    try:
        small = search(model(), WORK, demands(budget))
    except BudgetError:
        assume(False)
    assert search(model(), WORK, demands(budget + more)).streamed_bytes <= small.streamed_bytes


def test_layers_stream_alike() -> None:
    plan = search(model(), WORK, demands(260 * MIB))
    streamed = [part.streamed_bytes for part in plan.slices if part.kind == "layer"]
    assert max(streamed) - min(streamed) <= MATRIX


@given(budget=st.integers(MIB, 170 * MIB), block=st.integers(0, 8))
def test_following_the_advice_of_a_refusal_works(budget: int, block: int) -> None:
    try:
        search(model(), WORK, demands(budget, block))
        assume(False)
    except BudgetError as refusal:
        advised = re.search(r"--host-memory (\S+?MiB)", str(refusal))
        assert advised is not None
        assert search(model(), WORK, demands(parse_size(advised[1]), block)).memory.spare >= 0


@given(budget=st.integers(MIB, 250 * MIB), block=st.integers(1, 64), device=st.booleans())
def test_every_advice_to_ask_for_less_has_been_tried(budget: int, block: int, device: bool) -> None:
    work = Workload(block, 2000, 1000)
    asked = replace(beside_host(budget, 150 * MIB), block_size=block) if device else demands(budget, block)
    try:
        search(model(), work, asked)
        assume(False)
    except BudgetError as refusal:
        text = str(refusal)
    if fewer := re.search(r"--block-size (\d+)", text):
        search(model(), work, replace(asked, block_size=int(fewer[1])))
    if shorter := re.search(r"come to (\d+) tokens together", text):
        tokens = int(shorter[1])
        search(model(), Workload(block, tokens - 1, 1), asked) if tokens > 1 else None
        search(model(), Workload(block, 1, tokens), asked)


def test_where_nothing_smaller_fits_nothing_smaller_is_advised() -> None:
    with pytest.raises(BudgetError) as hopeless:
        search(model(), Workload(8, 2000, 1000), demands(101 * MIB, 8))
    with pytest.raises(BudgetError) as shy:
        search(model(), Workload(8, 2000, 1000), demands(290 * MIB, 8))
    assert "--block-size" not in str(hopeless.value) and "tokens together" not in str(hopeless.value)
    assert "--block-size 4" in str(shy.value) and "come to 1499 tokens together" in str(shy.value)


def test_a_refusal_names_what_is_needed_what_there_is_and_what_is_missing() -> None:
    with pytest.raises(BudgetError, match=r"toy needs .*the budget is 128 MiB: .* are missing .*--host-memory"):
        search(model(), WORK, demands(128 * MIB))


def test_a_block_is_no_larger_than_the_work_and_its_cache_holds_it() -> None:
    plan = search(model(), WORK, demands(GIB))
    assert plan.block_size == WORK.num_prompts
    assert plan.num_pages * plan.page_tokens >= plan.block_size * WORK.tokens_per_sequence


def test_keep_only_prices_a_plan_set_by_hand() -> None:
    plan: Plan = search(model(), WORK, demands(GIB))
    nothing = keep_only(model(), plan, frozenset())
    assert nothing.resident == {"norm"} and nothing.memory.resident == 4096
    assert nothing.streamed_bytes == (4 * LAYERS + 3) * MATRIX
    assert keep_only(model(), plan, plan.resident).resident == plan.resident
    assert FIXED_SCRATCH <= nothing.memory.scratch


def beside_host(budget: int, host_budget: int, **changes: object) -> Demands:
    return replace(demands(budget), device="sim", host_budget=host_budget, host_base=50 * MIB, **changes)


@given(budget=BUDGETS, host=st.integers(120 * MIB, 900 * MIB), prompts=st.integers(1, 600), length=st.integers(1, 2000))
def test_beside_a_device_no_plan_exceeds_either_budget_and_every_byte_has_a_place(
    budget: int, host: int, prompts: int, length: int
) -> None:
    try:
        plan = search(model(), Workload(prompts, length, 16), beside_host(budget, host))
    except BudgetError:
        return
    assert plan.host is not None and plan.memory.spare >= 0 and plan.host.spare >= 0
    assert not plan.resident & plan.host_resident
    assert plan.device_pages >= 0 and plan.host_pages >= 0
    for part in plan.slices:
        assert part.disk_bytes <= part.streamed_bytes
        assert part.buffer_bytes * 2 <= plan.memory.ring and part.disk_buffer_bytes * 2 <= plan.host.ring
    crossing = sum(part.resident_bytes + part.streamed_bytes for part in plan.slices)
    assert crossing >= sum(g.nbytes for g in model().groups if g.kind in ("layer", "head"))


@given(budget=BUDGETS, host=st.integers(120 * MIB, 900 * MIB), more=st.integers(1, 200 * MIB))
def test_more_host_memory_never_reads_more_from_disk(budget: int, host: int, more: int) -> None:
    try:
        small = search(model(), WORK, beside_host(budget, host))
    except BudgetError:
        assume(False)
    assert search(model(), WORK, beside_host(budget, host + more)).disk_bytes <= small.disk_bytes


def test_a_row_too_large_for_the_device_rests_on_the_host_where_it_may() -> None:
    work = Workload(num_prompts=64, prompt_len=1000, gen_len=1)
    small, resting = (search(model(), work, beside_host(300 * MIB, GIB, plain_row=plain)) for plain in (False, True))
    assert not small.row_on_host and resting.row_on_host
    assert resting.pass_tokens > small.pass_tokens
    assert resting.memory.row < small.memory.row and resting.host is not None and resting.host.row > 0


@given(share=st.floats(0, 1))
def test_a_share_set_by_hand_is_exact_to_within_a_tensor(share: float) -> None:
    sizes = {source.key: source.nbytes for group in model().groups for source in group.sources if group.kind != "outer"}
    kept = keep_share(model(), share)
    nbytes, wanted = sum(sizes[key] for key in kept), share * sum(sizes.values())
    smallest_left_out = min((size for key, size in sizes.items() if key not in kept), default=2 * MATRIX)
    assert nbytes <= wanted < nbytes + smallest_left_out
