"""A plan survives JSON; what is no plan, is for another model, or needs more memory than there is, is refused."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from planned_models import beside_host, decoder, demands
from windlass.cli.budget_flags import BudgetFlags
from windlass.cli.flexgen_flags import FlexGenFlags
from windlass.errors import BudgetError, StorageError, UsageError
from windlass.facts.model_facts import ModelFacts
from windlass.facts.plan_file import (
    PlanFile,
    identity,
    parse_plan,
    read_plan,
    refuse_another_model,
    refuse_smaller_memory,
    write_plan,
)
from windlass.facts.workload import Workload
from windlass.planner.search import search
from windlass.units import GIB, MIB

WORK = Workload(8, 200, 40)
MODELS = {experts: decoder(layers=4, hidden=1024, inner=2048, experts=experts) for experts in (0, 4)}


def plan_file(facts: ModelFacts = MODELS[0], budget: int = 230 * MIB) -> PlanFile:
    return PlanFile(identity(facts), search(facts, WORK, demands(budget)))


@given(
    st.sampled_from((0, 4)),
    st.integers(200, 500),
    st.none() | st.integers(180, 400),
    st.sampled_from((0, 4 * GIB)),
    st.none() | st.integers(1, 64),
)
def test_a_plan_survives_json(experts: int, budget: int, host: int | None, offload: int, width: int | None) -> None:
    facts = MODELS[experts]
    asked = demands(budget * MIB) if host is None else beside_host(budget * MIB, host * MIB, 8, offload)
    try:
        plan = replace(search(facts, WORK, asked), micro_batch_sequences=width)
    except BudgetError:
        assume(False)
    file = PlanFile(identity(facts), plan)
    assert parse_plan(json.loads(json.dumps(file.as_dict()))) == file
    refuse_another_model(file, replace(facts, name="moved elsewhere"))


def test_a_plan_is_written_and_read_back(tmp_path: Path) -> None:
    write_plan(tmp_path / "plan.json", plan_file())
    assert read_plan(tmp_path / "plan.json") == plan_file()
    with pytest.raises(StorageError, match="could not be written .*; name another file"):
        write_plan(tmp_path / "nowhere" / "plan.json", plan_file())


def changed(change: Callable[[Any], object]) -> object:
    found = copy.deepcopy(plan_file().as_dict())
    change(found)
    return json.loads(json.dumps(found))


def setting(*path: Any) -> Callable[[Any], object]:
    """A change that puts the last of `path` where the others lead."""

    def change(found: Any) -> None:
        for step in path[:-2]:
            found = found[step]
        found[path[-2]] = path[-1]

    return change


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        (setting("windlass_plan", 2), "windlass_plan is 2, this version reads 1"),
        (lambda found: found.pop("model"), "model is missing"),
        (setting("model", 3), "model.* it is 3, expected an object"),
        (setting("notes", "mine"), "'notes' is not known"),
        (setting("plan", "block_size", 0), "block_size is 0, expected a whole number from 1"),
        (setting("plan", "block_size", True), "block_size is True, expected a whole number"),
        (setting("plan", "num_pages", 1.5), "num_pages is 1.5, expected a whole number"),
        (setting("plan", "row_on_host", "no"), "row_on_host is 'no', expected true or false"),
        (setting("plan", "slices", 0, "kind", "expert"), "kind is 'expert', it must be layer or head"),
        (setting("plan", "slices", 0, "disk_bytes", 10**12), "streams .* of them from disk"),
        (setting("plan", "slices", []), "slices is empty"),
        (setting("plan", "memory", "ring", 4096), "does not fit the ring that it passes through"),
        (setting("plan", "memory", "cache", 10**12), "memory divides .* more than its budget"),
        (setting("plan", "disk_pages", 10**6), "pages lie elsewhere, and there are"),
        (setting("plan", "host_pages", 1), "there is no bill for the host"),
        (setting("plan", "resident", ["norm", "norm"]), "resident must be a list of names, each once"),
    ],
)
def test_what_is_no_plan_is_refused_with_the_field(change: Callable[[Any], object], flaw: str) -> None:
    with pytest.raises(UsageError, match=flaw):
        parse_plan(changed(change))


@pytest.mark.parametrize("text", ["", "[1, 2", "7", '{"windlass_plan": 1}'])
def test_a_file_that_holds_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="is no plan.*make it again with `windlass plan"):
        read_plan(path)
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_plan(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (replace(MODELS[0], model_type="opt"), "type llama, not opt"),
        (replace(MODELS[0], dtype="float32"), "format bfloat16, not float32"),
        (decoder(layers=5, hidden=1024, inner=2048), "layers 4, not 5; weights"),
        (decoder(layers=4, hidden=1024, inner=2047), "weights .*, not "),
    ],
)
def test_a_plan_for_another_model_is_refused_with_the_difference(other: ModelFacts, difference: str) -> None:
    with pytest.raises(UsageError, match=f"the plan is for toy, not for toy: .*{difference}"):
        refuse_another_model(plan_file(), other)


def test_a_plan_for_more_memory_is_refused_with_what_is_missing() -> None:
    plan = plan_file().plan
    refuse_smaller_memory(plan, 230 * MIB, None)
    with pytest.raises(UsageError, match=r"needs .* of host memory, here are 200 MiB: .* are missing"):
        refuse_smaller_memory(plan, 200 * MIB, None)
    beside = search(MODELS[0], WORK, beside_host(240 * MIB, 400 * MIB, 4))
    with pytest.raises(UsageError, match=r"needs .* of memory of cuda, here are 100 MiB"):
        refuse_smaller_memory(beside, 400 * MIB, 100 * MIB)


def test_flags_that_say_again_what_the_plan_says_are_refused() -> None:
    plan = Path("plan.json")
    with pytest.raises(UsageError, match="--block-size 4 has no effect beside --plan plan.json"):
        BudgetFlags(plan=plan, block_size=4)
    with pytest.raises(UsageError, match="--micro-batch-tokens 64 has no effect beside --plan"):
        BudgetFlags(plan=plan, micro_batch_tokens=64)
    with pytest.raises(UsageError, match="--plan plan.json says where every byte lies"):
        FlexGenFlags(gpu_batch_size=4).policy(BudgetFlags(plan=plan))
    assert BudgetFlags(plan=plan).as_arguments()["plan"] == "plan.json"
