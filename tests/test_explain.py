"""What is said of a plan: what binds it, why the next best lost, and the one change that would help most."""

from dataclasses import replace

import pytest

from planned_models import beside_host, decoder, demands, laptop, workstation
from windlass.errors import UsageError
from windlass.facts.forecast import PhaseForecast
from windlass.facts.machine import Machine
from windlass.facts.workload import Workload
from windlass.planner.estimate import Limits, estimated_demands
from windlass.planner.explain import Explanation, explained
from windlass.planner.layer_work import slice_works
from windlass.planner.search import Demands, explore
from windlass.planner.smaller_weights import smaller_weights
from windlass.units import GIB, MIB

MODEL = decoder(layers=6, hidden=1024, heads=8, kv_heads=8, inner=2560)
WORK = Workload(num_prompts=40, prompt_len=100, gen_len=24)


def explanation(needs: Demands, machine: Machine, work: Workload = WORK) -> Explanation:
    return explained(MODEL, work, needs, machine, explore(MODEL, work, needs, machine), ())


def test_a_job_bound_by_the_disk_says_so_and_names_what_would_help() -> None:
    found = explanation(demands(230 * MIB), laptop(disk=1e8))
    lines = "\n".join(found.lines())
    assert "decode by the disk, busy 9" in lines or "decode by the disk, busy 100%" in lines
    assert "computing idle" in lines
    whats = {change.what for change in found.changes}
    assert {"a disk twice as fast", "int4 weights"} <= whats and any("more memory" in what for what in whats)
    assert [change.gain for change in found.changes] == sorted((c.gain for c in found.changes), reverse=True)
    disk = next(change for change in found.changes if change.what == "a disk twice as fast")
    assert 1.5 <= disk.gain <= 2.05 and disk.line == f"a disk twice as fast: {disk.gain:.1f} times"
    int4 = next(change for change in found.changes if change.what == "int4 weights")
    assert int4.line.endswith("times (not lossless)")


def test_enough_memory_is_worth_what_a_run_with_it_would_be() -> None:
    """The gain of more memory is the search's own answer for a budget that large."""
    needs, machine = demands(230 * MIB), laptop(disk=1e8)
    found = explanation(needs, machine)
    more = next(change for change in found.changes if change.what == "794 MiB more memory")  # up to 1 GiB
    richer = explore(MODEL, WORK, demands(GIB), machine).best.forecast.seconds
    assert more.seconds == pytest.approx(richer, rel=0.05)


def test_a_block_that_was_asked_for_is_compared_with_a_larger_one() -> None:
    found = explanation(demands(260 * MIB, block_size=4), laptop(disk=1e8))
    larger = [change for change in found.changes if change.what == "block of 12 instead of 4"]
    assert larger and larger[0].gain > 1.2


def test_a_model_that_fits_needs_no_offloading() -> None:
    found = explanation(demands(2 * GIB), laptop())
    assert "note     the model fits in memory: no offloading is needed" in found.lines()
    beside = explanation(beside_host(2 * GIB, 2 * GIB), workstation())
    assert any("fits in the memory of the device: no offloading is needed" in line for line in beside.lines())


def test_it_says_what_the_figure_counts_and_how_the_next_best_kind_compares() -> None:
    found = explanation(beside_host(250 * MIB, 300 * MIB), workstation())
    text = "\n".join(found.lines())
    work = found.best.forecast.prefill.seconds + found.best.forecast.decode.seconds
    assert f"960 generated tokens: {960 / work:.2f} tok/s with the prompts' time included" in text
    assert found.runner_up is not None and found.runner_up.kind in text and "times as long" in text
    told = found.as_dict()["runner_up"]
    assert isinstance(told, dict) and told["seconds"] >= found.best.forecast.seconds


def test_nothing_to_decode_is_said() -> None:
    found = explanation(demands(230 * MIB), laptop(), replace(WORK, gen_len=1))
    assert isinstance(found.best.forecast.decode, PhaseForecast)
    assert "         nothing to decode" in found.lines()


def test_smaller_weights_are_smaller_in_bytes_and_the_same_in_arithmetic() -> None:
    small = smaller_weights(MODEL, "int4")
    kept = sum(group.nbytes for group in MODEL.groups if group.kind != "layer")
    assert small.weight_bytes == kept + (MODEL.weight_bytes - kept) * 576 // (16 * 64 * 2)
    plans = [explore(each, WORK, demands(300 * MIB), laptop()).best.plan for each in (MODEL, small)]
    whole, less = (slice_works(each, plan)[0] for each, plan in zip((MODEL, small), plans, strict=True))
    assert less.parameters == pytest.approx(whole.parameters, rel=1e-5)
    assert smaller_weights(small, "int4") is small


class TestEstimates:
    def test_budgets_without_a_flag_are_most_of_the_machine(self) -> None:
        needs = estimated_demands(MODEL, WORK, workstation(), Limits())
        assert 0.85 * 16 * GIB < needs.budget < 16 * GIB and needs.host_budget is not None
        assert estimated_demands(MODEL, WORK, workstation(), Limits(on_host=True)).host_budget is None

    def test_a_flag_without_effect_is_refused_with_the_reason(self) -> None:
        with pytest.raises(UsageError, match="--gpu-memory has no effect: laptop has no device"):
            estimated_demands(MODEL, WORK, laptop(), Limits(gpu_memory=GIB))
        with pytest.raises(UsageError, match="--gpu-memory has no effect: --device cpu computes on the host"):
            estimated_demands(MODEL, WORK, workstation(), Limits(gpu_memory=GIB, on_host=True))
        with pytest.raises(UsageError, match="--host-memory 32768MiB is more than the machine has, 16384MiB"):
            estimated_demands(MODEL, WORK, laptop(), Limits(host_memory=32 * GIB))

    def test_activations_grow_with_the_rows(self) -> None:
        narrow, wide = (
            estimated_demands(MODEL, WORK, laptop(), Limits(micro_batch_tokens=rows)) for rows in (1024, 4096)
        )
        assert wide.activations == 4 * narrow.activations and wide.width_fixed
