"""A plan set by hand: the bytes lie where they were asked to lie, to within a tensor and a page, or nowhere."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from test_search import MATRIX, demands, model
from windlass.errors import BudgetError, UsageError
from windlass.facts.model_facts import ModelFacts
from windlass.facts.piece import BLOCK
from windlass.facts.placement import Placement
from windlass.facts.plan import Plan
from windlass.facts.workload import Workload
from windlass.planner.by_hand import placed
from windlass.planner.disk_cache import disk_cache_memory
from windlass.planner.search import Demands, search
from windlass.units import GIB, MIB, parse_size

WORK = Workload(num_prompts=32, prompt_len=200, gen_len=60)
# Keys and values of a page of 64 tokens in 8 layers of 2 heads of 64, twice, in bfloat16.
PAGE = 64 * 8 * 2 * 2 * 64 * 2


def on_device(gpu: int = 2 * GIB, host: int = 2 * GIB) -> Demands:
    return replace(demands(gpu), device="sim", host_budget=host, host_base=100 * MIB)


def plan_of(asked: Demands) -> Plan:
    return search(model(), WORK, asked)


def bytes_of(facts: ModelFacts, keys: frozenset[str]) -> int:
    return sum(source.nbytes for group in facts.groups for source in group.sources if source.key in keys)


@st.composite
def placements(draw: st.DrawFn) -> Placement:
    device, cache = draw(st.integers(0, 100)), draw(st.integers(0, 100))
    host = draw(st.integers(0, 100 - device))
    return Placement(device / 100, host / 100, cache / 100, (100 - cache) / 100)


@given(placements(), st.integers(1, 40))
def test_shares_are_exact_to_within_one_tensor_and_one_page(asked: Placement, layers: int) -> None:
    facts = model(layers)
    plan = placed(facts, search(facts, WORK, on_device(8 * GIB, 8 * GIB)), asked)
    largest = 3 * MATRIX  # the head and the embedding
    here, there = bytes_of(facts, plan.resident), bytes_of(facts, plan.host_resident)
    assert abs(here - asked.weights_on_device * facts.weight_bytes) <= largest
    assert abs(here + there - (asked.weights_on_device + asked.weights_on_host) * facts.weight_bytes) <= largest
    assert abs(plan.host_pages - asked.cache_on_host * plan.num_pages) <= 1
    assert not plan.resident & plan.host_resident


@given(placements())
def test_the_bills_are_those_of_the_bytes(asked: Placement) -> None:
    plan = placed(model(), plan_of(on_device()), asked)
    assert plan.host is not None
    assert plan.memory.cache == plan.device_pages * PAGE and plan.host.cache == plan.host_pages * PAGE
    assert plan.memory.resident >= bytes_of(model(), plan.resident)
    assert plan.host.resident >= bytes_of(model(), plan.host_resident)
    assert (plan.disk_bytes > 0) == (plan.host.ring > 0)


def test_nothing_asked_of_the_disk_leaves_nothing_there() -> None:
    for percent in range(101):
        share = percent / 100
        plan = placed(model(), plan_of(on_device()), Placement(share, 1 - share, 1.0, 0.0))
        assert plan.disk_bytes == 0
        assert len(plan.resident) + len(plan.host_resident) == 4 * 8 + 3


def test_layers_are_cut_alike() -> None:
    plan = placed(model(), plan_of(on_device()), Placement(0.3, 0.3, 1.0, 0.0))
    streamed = [part.streamed_bytes for part in plan.slices if part.kind == "layer"]
    assert max(streamed) - min(streamed) <= MATRIX


def test_block_and_passes_stay_as_they_were() -> None:
    before = plan_of(on_device())
    plan = placed(model(), before, Placement(0.2, 0.8, 0.0, 1.0))
    assert (plan.block_size, plan.pass_tokens, plan.num_pages) == (32, before.pass_tokens, before.num_pages)


def test_what_nobody_needs_of_the_device_lets_the_link_run_ahead_within_the_budget() -> None:
    roomy, tight = (
        placed(model(), plan_of(on_device(gpu)), Placement(0.2, 0.8, 1.0, 0.0)) for gpu in (2 * GIB, 420 * MIB)
    )
    assert roomy.memory.ring == sum(part.buffer_bytes for part in roomy.slices), "a whole pass fits"
    assert tight.memory.ring < roomy.memory.ring
    for plan in (roomy, tight):
        assert plan.memory.ring % BLOCK == 0
        assert plan.memory.spare >= 0 and plan.memory.ring >= 2 * max(part.buffer_bytes for part in plan.slices)


@pytest.mark.parametrize(
    ("gpu", "host", "asked", "memory", "flag"),
    [
        (300 * MIB, 2 * GIB, Placement(1.0, 0.0, 0.0, 1.0), "memory of sim", "--gpu-memory"),
        (230 * MIB, 2 * GIB, Placement(0.0, 1.0, 1.0, 0.0), "memory of sim", "--gpu-memory"),
        (2 * GIB, 260 * MIB, Placement(0.0, 1.0, 1.0, 0.0), "host memory", "--host-memory"),
    ],
)
def test_a_memory_too_small_for_its_share_is_named_with_what_would_do(
    gpu: int, host: int, asked: Placement, memory: str, flag: str
) -> None:
    with pytest.raises(
        BudgetError, match=f"toy placed as asked needs .* of {memory}, the budget is .* missing"
    ) as said:
        placed(model(), plan_of(on_device(gpu, host)), asked)
    advised = re.search(rf"{flag} (\S+?MiB)", str(said.value))
    assert advised is not None
    enough = parse_size(advised[1])
    gpu, host = (enough, host) if flag == "--gpu-memory" else (gpu, enough)
    assert placed(model(), plan_of(on_device(gpu, host)), asked).memory.spare >= 0


def test_keys_and_values_that_have_no_other_place_are_on_disk_to_within_a_page() -> None:
    plan = placed(model(), plan_of(on_device()), Placement(0.5, 0.5, 0.2, 0.2))
    assert abs(plan.disk_pages - 0.6 * plan.num_pages) <= 1
    assert plan.device_pages + plan.host_pages + plan.disk_pages == plan.num_pages
    assert plan.host is not None and plan.host.scratch > disk_cache_memory(model(), plan.page_tokens, plan.block_size)


def test_pages_that_were_on_disk_already_cost_their_buffers_once() -> None:
    before = plan_of(on_device())
    once = placed(model(), before, Placement(0.5, 0.5, 0.2, 0.2))
    again = placed(model(), once, Placement(0.5, 0.5, 0.2, 0.2))
    assert once.disk_pages > 0 and again == once
    nowhere = placed(model(), once, Placement(0.5, 0.5, 0.2, 0.8))
    assert nowhere.host is not None and before.host is not None and nowhere.host.scratch == before.host.scratch


class TestWithoutADevice:
    def test_the_share_of_the_host_stays_and_the_rest_is_on_disk(self) -> None:
        plan = placed(model(), plan_of(demands(2 * GIB)), Placement(0.0, 0.6, 0.0, 1.0))
        assert abs(bytes_of(model(), plan.resident) - 0.6 * model().weight_bytes) <= 3 * MATRIX
        assert (plan.host, plan.host_pages, plan.host_resident) == (None, 0, frozenset())
        assert plan.disk_bytes == plan.streamed_bytes > 0

    def test_keys_and_values_go_to_disk_but_for_one_page(self) -> None:
        plan = placed(model(), plan_of(demands(2 * GIB)), Placement(0.0, 1.0, 0.0, 0.0))
        assert (plan.device_pages, plan.disk_pages) == (1, plan.num_pages - 1)

    @pytest.mark.parametrize("asked", [Placement(0.2, 0.8, 0.0, 1.0), Placement(0.0, 1.0, 1.0, 0.0)])
    def test_a_share_of_a_device_is_refused(self, asked: Placement) -> None:
        with pytest.raises(UsageError, match="this run computes on the CPU; give .* shares of the host, .*--device"):
            placed(model(), plan_of(demands(2 * GIB)), asked)

    def test_a_memory_too_small_is_refused(self) -> None:
        with pytest.raises(BudgetError, match="of memory, the budget is 300 MiB: .* use --host-memory"):
            placed(model(), plan_of(demands(300 * MIB)), Placement(0.0, 1.0, 0.0, 1.0))
