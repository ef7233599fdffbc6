"""A plan from a file runs as the plan itself would; one that does not suit the run is refused before anything loads."""

from dataclasses import replace
from pathlib import Path

import pytest

from checkpoints import random_model, save
from planned_models import demands, laptop
from test_search_by_forecast import MODEL
from windlass.engine.llm import LLM
from windlass.engine.planning import choose_plan
from windlass.errors import BudgetError, UsageError
from windlass.facts.benchmark_result import BenchmarkWork
from windlass.facts.machine_file import write_machine
from windlass.facts.machine_store import profile_path
from windlass.facts.plan_file import PlanFile, identity, write_plan
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.jobs.benchmark import prepare
from windlass.planner.residency import keep_only
from windlass.planner.rule import Demands
from windlass.units import MIB

PROMPT = {"prompt_token_ids": [5, 6, 7, 8]}
GREEDY = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(random_model("llama"), tmp_path_factory.mktemp("llama"))


@pytest.fixture(autouse=True)
def no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)


def test_a_plan_file_is_used_as_it_is(folder: Path, tmp_path: Path) -> None:
    with LLM(folder, device="cpu") as llm:
        plan = keep_only(llm.opened.facts, llm.plan_for(Workload(1, 4, 8)), frozenset())
        wanted = llm.generate(PROMPT, GREEDY)[0].outputs[0].token_ids
        write_plan(tmp_path / "plan.json", PlanFile(identity(llm.opened.facts), plan))
    assert plan.disk_bytes > 0
    with LLM(folder, device="cpu", plan=tmp_path / "plan.json") as llm:
        assert llm.generate(PROMPT, GREEDY)[0].outputs[0].token_ids == wanted
        assert llm.plan == plan


def test_a_benchmark_runs_by_the_plan_it_was_given(folder: Path) -> None:
    with LLM(folder, device="cpu") as llm:
        plan = keep_only(llm.opened.facts, llm.plan_for(Workload(1, 4, 8)), frozenset())
    with LLM(folder, device="cpu", plan=plan) as llm:
        assert prepare(llm, BenchmarkWork(prompt_len=4, gen_len=8, num_prompts=1)) == plan


def test_work_that_a_given_plan_has_no_room_for_is_refused_before_anything_loads(folder: Path) -> None:
    with LLM(folder, device="cpu") as llm:
        plan = llm.plan_for(Workload(1, 4, 8))
    with LLM(folder, device="cpu", plan=plan) as llm:
        room = plan.num_pages * plan.page_tokens
        with pytest.raises(UsageError, match=f"keys and values of {room} tokens, a prompt of 4 .* take {room + 1}"):
            llm.prepare(Workload(1, 4, room - 2))
        assert llm.prepare(Workload(1, 4, room - 3)) == plan


def test_a_smaller_budget_than_the_plan_s_is_kept_to_where_the_plan_fits_it(folder: Path) -> None:
    with LLM(folder, device="cpu") as llm:
        plan = llm.plan_for(Workload(1, 4, 8))
    budget = plan.memory.budget - plan.memory.spare // 2
    with LLM(folder, device="cpu", plan=plan, host_memory=budget) as llm:
        assert llm.plan == replace(plan, memory=replace(plan.memory, budget=budget))


def test_a_plan_that_counts_too_little_for_the_process_itself_is_refused(folder: Path) -> None:
    with LLM(folder, device="cpu") as llm:
        plan = llm.plan_for(Workload(1, 4, 8))
    bill = plan.memory
    light = replace(bill, base=1 << 20, budget=bill.budget - bill.spare - bill.base + (1 << 20))
    with pytest.raises(BudgetError, match=r"counts 1.00 MiB for interpreter .* make the plan again for --host-memory"):
        LLM(folder, device="cpu", plan=replace(plan, memory=light), host_memory=light.budget)


def test_a_plan_that_does_not_suit_the_run_is_refused(folder: Path, tmp_path: Path) -> None:
    with LLM(folder, device="cpu") as llm:
        file = PlanFile(identity(llm.opened.facts), llm.plan_for(Workload(1, 4, 8)))
    write_plan(tmp_path / "plan.json", replace(file, model=replace(file.model, layers=99)))
    with pytest.raises(UsageError, match=r"the plan is for .*: layers 99, not"):
        LLM(folder, device="cpu", plan=tmp_path / "plan.json")
    for changed, reason in (
        (replace(file.plan, slices=file.plan.slices[:1]), "a pass of 1 slices, not of this model's"),
        (replace(file.plan, num_pages=10**15), "pages of keys and values, .* in .* bytes"),
    ):
        write_plan(tmp_path / "plan.json", replace(file, plan=changed))
        with pytest.raises(UsageError, match=reason):
            LLM(folder, device="cpu", plan=tmp_path / "plan.json")
    with pytest.raises(UsageError, match=r"the plan is for cpu, this run computes on sim"):
        LLM(folder, device="sim", gpu_memory="1GiB", plan=file.plan)
    with pytest.raises(UsageError, match=r"needs .* of host memory, here are 50.0 MiB: .* are missing"):
        LLM(folder, device="cpu", host_memory="50MiB", plan=file.plan)
    with pytest.raises(UsageError, match="--block-size 2 has no effect beside a plan"):
        LLM(folder, device="cpu", block_size=2, plan=file.plan)


def test_a_machine_that_was_measured_is_planned_for_and_the_run_is_held_against_its_forecast(folder: Path) -> None:
    path = profile_path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_machine(path, laptop(disk=1e9))
    try:
        with LLM(folder, device="cpu") as llm:
            outputs = llm.generate([PROMPT] * 3, GREEDY)
            report = llm.report
    finally:
        path.unlink()
    assert report.forecast is not None and report.forecast.seconds > 0
    with LLM(folder, device="cpu") as llm:
        again = llm.generate([PROMPT] * 3, GREEDY)
        assert llm.report.forecast is None, "nothing is known of this machine any more"
    assert [each.outputs[0].token_ids for each in outputs] == [each.outputs[0].token_ids for each in again]


def test_a_width_that_the_search_prefers_is_rehearsed_before_it_is_relied_on() -> None:
    """Activations that do not shrink with the width are found out, and the plan stays inside the budget."""
    widths: list[int | None] = []

    def measured(width: int | None) -> Demands:
        widths.append(width)
        return demands(250 * MIB, width=width or 512)

    work = Workload(num_prompts=400, prompt_len=100, gen_len=24)
    plan = choose_plan(MODEL, work, laptop(disk=5e7), measured, None, width_fixed=False)
    assert widths == [None, plan.micro_batch_tokens] and plan.micro_batch_tokens < 512
    assert plan.memory.activations == 10 * MIB and plan.memory.spare >= 0
