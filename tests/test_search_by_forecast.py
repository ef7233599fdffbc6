"""The search that knows the machine: inside every budget, never worse than the rule, never worse for more memory."""

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from planned_models import beside_host, decoder, demands, laptop, workstation
from windlass.errors import BudgetError, UsageError
from windlass.facts.machine import Machine
from windlass.facts.workload import Workload
from windlass.planner.cost import forecast
from windlass.planner.rule import rule
from windlass.planner.search import Demands, cheapest, explore, search
from windlass.units import GIB, MIB

# Layers of 14 MiB, 96 KiB of keys and values a token.
MODEL = decoder(layers=6, hidden=1024, heads=8, kv_heads=8, inner=2560)
WORK = Workload(num_prompts=40, prompt_len=100, gen_len=24)

FEW = settings(max_examples=15)


@st.composite
def asked(draw: st.DrawFn) -> tuple[Demands, Machine, Workload]:
    """A budget that streams more or less, a machine for it, and work."""
    work = replace(WORK, num_prompts=draw(st.sampled_from((1, 7, 40))), gen_len=draw(st.sampled_from((1, 2, 24))))
    block = draw(st.sampled_from((0, 0, 5)))
    if draw(st.booleans()):
        needs = replace(demands(draw(st.integers(200, 400)) * MIB, block), offload=draw(st.sampled_from((0, GIB))))
        return needs, laptop(disk=draw(st.sampled_from((1e8, 2e9)))), work
    device, host = draw(st.integers(200, 400)) * MIB, draw(st.integers(190, 500)) * MIB
    upload = draw(st.sampled_from((1e9, 2e10)))
    return beside_host(device, host, block, draw(st.sampled_from((0, GIB)))), workstation(upload), work


@FEW
@given(asked())
def test_no_candidate_exceeds_any_budget_and_none_is_faster_than_the_best(
    asked_: tuple[Demands, Machine, Workload],
) -> None:
    needs, machine, work = asked_
    try:
        found = explore(MODEL, work, needs, machine)
    except BudgetError:
        assume(False)
    for each in (found.best, *found.others):
        assert each.plan.memory.spare >= 0 and each.plan.memory.budget == needs.budget
        assert each.plan.host is None or (each.plan.host.spare >= 0 and each.plan.host.budget == needs.host_budget)
        page = needs.page_tokens * MODEL.cache_bytes_per_token
        assert each.plan.disk_pages * page <= needs.offload
        assert each.plan.device_pages >= 0 and each.plan.num_pages >= each.plan.block_size
        assert each.forecast.seconds >= found.best.forecast.seconds
        # A micro-batch wider than a pass takes room and does nothing.
        most = each.plan.block_size * work.prompt_len
        assert each.plan.micro_batch_tokens <= max(needs.micro_batch_tokens, most)
        assert not needs.block_size or each.plan.block_size == min(needs.block_size, work.num_prompts)


@FEW
@given(asked())
def test_it_finds_a_plan_wherever_the_rule_does_and_none_that_is_slower(
    asked_: tuple[Demands, Machine, Workload],
) -> None:
    needs, machine, work = asked_
    try:
        simple = rule(MODEL, work, needs)
    except BudgetError:
        assume(False)
    best = explore(MODEL, work, needs, machine).best.forecast.seconds
    assert best <= forecast(MODEL, simple, machine, work).seconds * 1.001


@FEW
@given(asked(), st.integers(1, 400), st.sampled_from(("budget", "host_budget")))
def test_more_memory_is_never_forecast_to_be_slower(
    asked_: tuple[Demands, Machine, Workload], more: int, which: str
) -> None:
    """Blocks and widths come in steps, so a little more memory may fall between two of them."""
    needs, machine, work = asked_
    assume(getattr(needs, which) is not None)
    try:
        before = explore(MODEL, work, needs, machine).best.forecast.seconds
    except BudgetError:
        assume(False)
    richer = replace(needs, **{which: getattr(needs, which) + more * MIB})
    assert explore(MODEL, work, richer, machine).best.forecast.seconds <= before * 1.03


def test_without_a_machine_the_rule_decides() -> None:
    assert search(MODEL, WORK, demands(300 * MIB)) == rule(MODEL, WORK, demands(300 * MIB))


def test_what_fits_is_resident() -> None:
    found = explore(MODEL, WORK, demands(2 * GIB), laptop())
    assert found.best.plan.streamed_bytes == 0
    assert found.best.kind == "all weights resident, keys and values where the model computes"


def test_a_slow_disk_narrows_micro_batches_so_that_less_has_to_stream() -> None:
    """Room for activations is room taken from weights: given up where weights are dear, kept where they are cheap."""
    needs, work = demands(250 * MIB), replace(WORK, num_prompts=400)
    slow, fast = (search(MODEL, work, needs, laptop(disk=rate)) for rate in (5e7, 5e10))
    assert slow.disk_bytes < fast.disk_bytes and slow.micro_batch_tokens < fast.micro_batch_tokens


def test_the_best_of_a_grid_of_blocks_set_by_hand_is_no_better() -> None:
    needs, machine = demands(260 * MIB), laptop(disk=3e8)
    grid = []
    for block in range(1, WORK.num_prompts + 1):
        try:
            plan = rule(MODEL, WORK, replace(needs, block_size=block))
        except BudgetError:
            continue
        grid.append(forecast(MODEL, plan, machine, WORK).seconds)
    assert explore(MODEL, WORK, needs, machine).best.forecast.seconds <= 1.02 * min(grid)


def test_keys_and_values_go_where_attention_to_them_is_cheapest() -> None:
    """A link that hardly carries anything leaves weights on the device, and keys and values with the host."""
    needs, work = beside_host(230 * MIB, 2 * GIB), replace(WORK, gen_len=100)
    slow_link = explore(MODEL, work, needs, workstation(upload=2e8)).best.plan
    assert slow_link.host_pages > 0.9 * slow_link.num_pages


def test_a_width_that_was_asked_for_is_kept() -> None:
    needs = replace(demands(300 * MIB), width_fixed=True)
    assert {each.plan.micro_batch_tokens for each in explore(MODEL, WORK, needs, laptop()).others} == {512}


def test_a_refusal_is_the_rules_with_the_smallest_change_that_would_do() -> None:
    with pytest.raises(BudgetError, match="toy needs .* are missing .*--host-memory"):
        search(MODEL, WORK, demands(120 * MIB), laptop())


def test_a_profile_without_a_disk_is_refused_where_weights_stream() -> None:
    with pytest.raises(UsageError, match="gives no rate for it"):
        search(MODEL, WORK, demands(220 * MIB), laptop(disk=0.0))


def test_the_cheapest_of_those_that_are_done_in_time() -> None:
    found = explore(MODEL, WORK, demands(2 * GIB), laptop())
    patient = cheapest(found, 1e9)
    assert patient is not None and patient.plan.memory.spare > found.best.plan.memory.spare
    assert cheapest(found, 0.0) is None
    assert cheapest(found, found.best.forecast.seconds) is not None


def test_a_larger_block_with_other_places_for_its_keys_and_values_is_found() -> None:
    """Blocks of every size that shares the prompts out evenly, each set by hand, are no better than the search's."""
    needs, machine, work = beside_host(230 * MIB, 300 * MIB), workstation(), replace(WORK, num_prompts=64)
    found = explore(MODEL, work, needs, machine).best.forecast.seconds
    for block in (11, 16, 22, 32, 64):
        try:
            by_hand = explore(MODEL, work, replace(needs, block_size=block), machine).best.forecast.seconds
        except BudgetError:
            continue
        assert found <= 1.02 * by_hand, f"a block of {block}"
