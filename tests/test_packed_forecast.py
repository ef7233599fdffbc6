"""Plans and forecasts of packed weights: their bytes to the block, and products at the rates of packed products."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from checkpoints import random_model, save
from packed_folders import write_packed
from planned_models import beside_host, decoder, demands, laptop, workstation
from windlass.engine.llm import LLM
from windlass.facts.machine import Machine
from windlass.facts.machine_file import machine_from_json, machine_json
from windlass.facts.machine_table import machine_lines
from windlass.facts.model_facts import ModelFacts
from windlass.facts.packed_numbers import PackedNumbers, packed_numbers
from windlass.facts.packing import Packing
from windlass.facts.plan import Plan
from windlass.facts.rate_curve import RateCurve
from windlass.facts.workload import Workload
from windlass.kernels.encodings.blocks import INT4, INT8, block_shape, unpack
from windlass.kernels.packed_rates import measure_packed_products, random_matrix
from windlass.planner.cost import Run, forecast
from windlass.planner.layer_work import slice_works
from windlass.planner.pace import pace_of
from windlass.planner.rule import FIXED_SCRATCH, PACKED_SCRATCH, rule
from windlass.planner.search import search
from windlass.planner.smaller_weights import smaller_weights
from windlass.units import GIB, MIB

MODEL = decoder(layers=6, hidden=1024, heads=8, kv_heads=8, inner=2560)
WORK = Workload(num_prompts=4, prompt_len=64, gen_len=32)
SLOW = RateCurve(((1, 8e9), (4096, 90e9)))


def measured(**curves: RateCurve) -> Machine:
    """A laptop on which products with packed weights were measured."""
    here = laptop()
    return replace(here, host=replace(here.host, packed_matmul=curves))


def planned(model: ModelFacts, budget: int = 2 * GIB) -> Plan:
    return search(model, WORK, demands(budget, block_size=4))


class TestBytes:
    @pytest.mark.parametrize("packing", [INT4, INT8])
    def test_matrices_of_layers_take_whole_blocks_and_the_rest_stays(self, packing: Packing) -> None:
        odd = decoder(layers=2, hidden=1000, heads=8, kv_heads=8, inner=2500)
        small = smaller_weights(odd, packing.name)
        for before, after in zip(odd.groups, small.groups, strict=True):
            for dense, packed in zip(before.sources, after.sources, strict=True):
                if before.kind != "layer":
                    assert packed.nbytes == dense.nbytes and not packed.packed
                    continue
                rows, columns = dense.shapes[0]
                first, second, block = block_shape(packing, rows, columns)
                assert packed.nbytes == sum(fact.nbytes for fact in packed.tensors) == first * second * block
                assert packed.shapes == dense.shapes and packed.direct

    def test_what_streams_is_still_one_run_of_bytes_a_layer(self) -> None:
        plan = planned(smaller_weights(MODEL, "int4"), 230 * MIB)
        layers = [group for group in smaller_weights(MODEL, "int4").groups if group.kind == "layer"]
        for part, group in zip(plan.slices, layers, strict=False):
            if not part.resident_bytes:
                assert group.nbytes <= part.disk_bytes <= group.nbytes + 8192
        facts = sorted({f.offset: f for g in layers for s in g.sources for f in s.tensors}.items())
        assert all(at + fact.nbytes == after for (at, fact), (after, _) in zip(facts, facts[1:], strict=False))

    def test_a_ring_of_packed_slices_has_a_third_place_where_there_is_room(self) -> None:
        dense = decoder(layers=24, hidden=2048, heads=16, kv_heads=8, inner=4096)
        for model, budget, places in (
            (smaller_weights(dense, "int4"), 250 * MIB, 2),
            (smaller_weights(dense, "int4"), 400 * MIB, 3),
            (dense, 500 * MIB, 2),
        ):
            plan = rule(model, WORK, demands(budget))
            assert plan.memory.ring == places * max(part.buffer_bytes for part in plan.slices) > 0

    def test_routers_stay_and_experts_do_not(self) -> None:
        experts = smaller_weights(decoder(layers=2, hidden=256, experts=4, inner=512), "int4")
        sources = [source for group in experts.groups if group.kind == "expert" for source in group.sources]
        assert sources and all(source.packed for source in sources)
        router = replace(MODEL.groups[2].sources[0], parameter="model.layers.0.mlp.gate.weight")
        routed = replace(MODEL, groups=(replace(MODEL.groups[2], sources=(router,)),))
        assert not smaller_weights(routed, "int4").is_packed

    def test_a_tile_that_is_unpacked_is_in_the_bill(self) -> None:
        dense, packed = planned(MODEL), planned(smaller_weights(MODEL, "int4"))
        assert packed.memory.scratch == dense.memory.scratch + PACKED_SCRATCH > FIXED_SCRATCH


class TestRates:
    def test_products_go_at_the_rate_of_their_packing(self) -> None:
        small = smaller_weights(MODEL, "int4")
        plan = planned(small)
        pace = pace_of(measured(int4=SLOW), plan).computing
        work = slice_works(small, plan)[0]
        assert work.parameters == sum(part.numbers for part in work.packed)
        for rows in (1, 4, 64):
            seconds = pace.all_products(work.parameters, work.packed, rows)
            assert seconds == pytest.approx(2 * work.parameters * rows / SLOW.at(rows))

    def test_no_product_is_faster_than_dense_weights_at_their_best(self) -> None:
        pace = pace_of(measured(int4=SLOW.scaled(1e6)), planned(MODEL)).computing
        part = PackedNumbers("int4", 4, 1e6, 0.5625e6)
        assert pace.packed_products(part, 4096) == pytest.approx(pace.products(1e6, 4096))

    def test_other_packings_go_by_the_nearest_width(self) -> None:
        pace = pace_of(measured(int4=SLOW, int8=SLOW.scaled(0.5)), planned(MODEL)).computing
        cost = {
            (name, bits): pace.packed_products(PackedNumbers(name, bits, 1e6, 1e6), 1)
            for name, bits in (("int4", 4), ("Q4_K", 4), ("Q5_K", 5), ("int8", 8), ("Q6_K", 6), ("fp8", 8))
        }
        assert cost["Q4_K", 4] == cost["Q5_K", 5] == cost["int4", 4]
        assert cost["Q6_K", 6] == cost["fp8", 8] == cost["int8", 8] == 2 * cost["int4", 4]

    def test_a_profile_from_before_takes_the_dense_rate_but_never_beats_memory(self) -> None:
        old = machine_from_json(_without_packed(laptop()))
        assert not old.host.packed_matmul
        pace = pace_of(old, planned(MODEL)).computing
        part = PackedNumbers("int4", 4, 1e6, 0.5625e6)
        assert pace.packed_products(part, 8) == pytest.approx(pace.products(1e6, 8))
        assert pace.packed_products(replace(part, nbytes=1e9), 8) == pytest.approx(1e9 / old.host.memory_rate)
        assert pace.packed_products(part, 0) == 0.0

    def test_experts_are_priced_so_too(self) -> None:
        dense = decoder(layers=4, hidden=512, experts=8, inner=1024)
        small = smaller_weights(dense, "int4")
        plan = planned(small)
        quick, slow = (
            forecast(small, plan, measured(int4=SLOW.scaled(factor)), WORK).decode.seconds for factor in (10.0, 0.1)
        )
        assert slow > 5 * quick

    def test_a_pass_over_packed_weights_from_disk_takes_their_bytes_over_its_rate(self) -> None:
        small, work = smaller_weights(MODEL, "int4"), replace(WORK, gen_len=200)
        plan = planned(small, 230 * MIB)
        machine = replace(measured(int4=SLOW.scaled(10)), disk=replace(laptop().disk, rate=40e6))
        told = forecast(small, plan, machine, work).decode
        assert plan.disk_bytes > 0 and told.bound_by == "disk"
        assert told.seconds_per_pass == pytest.approx(plan.disk_bytes / 40e6, rel=0.05)

    @pytest.mark.parametrize("experts", [0, 8])
    @pytest.mark.parametrize("beside", [False, True])
    @given(
        factor=st.floats(1.01, 20), budget=st.integers(280, 700), what=st.sampled_from(("packed", "matmul", "memory"))
    )
    def test_a_faster_machine_is_never_forecast_to_be_slower(
        self, experts: int, beside: bool, factor: float, budget: int, what: str
    ) -> None:
        small = packed_model(experts)
        machine = workstation() if beside else laptop()
        asked = beside_host(budget * MIB, budget * MIB, 16) if beside else demands(budget * MIB, 16)
        plan, rates = search(small, WORK, asked), machine.device if beside else machine.host
        assert rates is not None
        quicker = {
            "packed": replace(rates, packed_matmul={"int4": rates.packed_matmul["int4"].scaled(factor)}),
            "matmul": replace(rates, matmul={"bfloat16": rates.matmul["bfloat16"].scaled(factor)}),
            "memory": replace(rates, memory_rate=rates.memory_rate * factor),
        }[what]
        better = replace(machine, device=quicker) if beside else replace(machine, host=quicker)
        told = [forecast(small, plan, each, WORK).seconds for each in (machine, better)]
        assert told[1] <= told[0] * 1.01


@cache
def packed_model(experts: int) -> ModelFacts:
    dense = decoder(layers=6, hidden=2048, heads=16, kv_heads=8, inner=512 if experts else 4096, experts=experts)
    return smaller_weights(dense, "int4")


class TestAPackedCheckpoint:
    def test_its_plan_and_work_are_of_its_packed_bytes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)
        dense = save(random_model("llama"), tmp_path / "dense")
        folder = write_packed(dense, INT4)
        with LLM(dense) as whole, LLM(folder) as small:
            plain, packed = whole.opened.facts, small.opened.facts
        assert packed.is_packed and not plain.is_packed
        file = (folder / "model.safetensors").stat().st_size
        assert packed.weight_bytes <= file < plain.weight_bytes
        found = [packed_numbers(group.sources) for group in packed.groups if group.kind == "layer"]
        by_hand = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 96  # q and o, k and v, three of the feed-forward
        assert all([part.numbers for part in parts] == [by_hand] for parts in found)
        assert Run(packed, planned(packed), measured(int4=SLOW), WORK).slices[0].packed == found[0]


class TestMeasuring:
    @pytest.mark.parametrize("packing", [INT4, INT8])
    def test_rates_are_of_products_that_are_really_made(
        self, packing: Packing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The seconds are set, so that the rate is the count of operations alone."""
        walked: list[None] = []

        def typical(action: object, device: torch.device, seconds: float) -> float:
            assert callable(action)
            walked.append(action())
            return 0.5

        monkeypatch.setattr("windlass.kernels.packed_rates.typical_seconds", typical)
        shapes = ((48, 64), (32, 128))
        found = measure_packed_products(packing, torch.float32, torch.device("cpu"), shapes, (1, 4))
        assert found.points == ((1, 4 * (48 * 64 + 32 * 128)), (4, 16 * (48 * 64 + 32 * 128))) and len(walked) == 2

    def test_a_kernel_is_compiled_before_the_clock_runs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        happened: list[str] = []
        monkeypatch.setattr("windlass.kernels.packed_rates.packed_linear", lambda *given: happened.append("product"))
        monkeypatch.setattr(
            "windlass.kernels.packed_rates.typical_seconds", lambda *given: happened.append("clock") or 0.5
        )
        measure_packed_products(INT4, torch.float32, torch.device("cpu"), ((32, 64),), (1,))
        assert happened == ["product", "clock"]

    def test_its_matrices_hold_numbers(self) -> None:
        for packing in (INT4, INT8):
            matrix = random_matrix(packing, (32, 128), torch.device("cpu"))
            numbers = unpack(packing, matrix.parts, matrix.shape, 0, 32, torch.float32)
            assert numbers.isfinite().all() and 0.01 < float(numbers.std()) < 10

    def test_the_table_shows_them(self) -> None:
        lines = "\n".join(machine_lines(measured(int4=SLOW)))
        assert "int4 weights" in lines and "8.00 GFLOP/s" in lines


def _without_packed(machine: Machine) -> dict[str, object]:
    written = machine_json(machine)
    host = written["host"]
    assert isinstance(host, dict)
    return written | {"host": {key: value for key, value in host.items() if key != "packed_matmul"}}
