"""What a run holds beside the model is measured before it is run, as the run itself then finds it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from checkpoints import byte_llama
from planned_models import decoder, laptop
from windlass.facts.footprint import Footprint
from windlass.facts.workload import Workload
from windlass.jobs import footprints
from windlass.jobs.footprints import footprint_of
from windlass.planner.estimate import Limits, estimated_demands, micro_batch_width
from windlass.units import MIB

WORK = Workload(4, 32, 4)
RUN = """
import json, sys
from windlass.engine.llm import LLM
from windlass.facts.workload import Workload
with LLM(sys.argv[1], host_memory="2GiB") as llm:
    print(json.dumps(llm.plan_for(Workload(4, 32, 4)).memory.base))
"""


def test_a_process_holds_what_a_run_of_the_model_then_counts(tmp_path: Path) -> None:
    folder = byte_llama(tmp_path / "model")
    told = footprint_of(Path(folder), "auto", "auto", micro_batch_width(WORK, Limits()))
    ran = subprocess.run([sys.executable, "-c", RUN, folder], capture_output=True, text=True, check=True)
    assert told is not None
    assert told.process_bytes == pytest.approx(json.loads(ran.stdout), rel=0.05)


def test_it_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDLASS_CACHE", str(tmp_path / "cache"))
    asked: list[Any] = []

    def child(command: list[str], question: str) -> str:
        asked.append(json.loads(question))
        return json.dumps({"footprint": Footprint(500 * MIB, 8 * MIB, 128, 1.5).as_json()})

    monkeypatch.setattr(footprints, "output_of", child)
    folder = Path(byte_llama(tmp_path / "model"))
    first = footprint_of(folder, "auto", "auto", 128)
    assert first == footprint_of(folder, "auto", "auto", 128) == Footprint(500 * MIB, 8 * MIB, 128, 1.5)
    assert len(asked) == 1
    footprint_of(folder, "auto", "int8", 128)
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    footprint_of(folder, "auto", "auto", 128)
    assert len(asked) == 3


def test_a_kept_answer_that_is_broken_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDLASS_CACHE", str(tmp_path / "cache"))
    right = Footprint(500 * MIB, 8 * MIB, 128, 1.5)
    monkeypatch.setattr(footprints, "output_of", lambda *asked: json.dumps({"footprint": right.as_json()}))
    folder = Path(byte_llama(tmp_path / "model"))
    footprint_of(folder, "auto", "auto", 128)
    (kept,) = (tmp_path / "cache" / "footprints").iterdir()
    for broken in ("", "{}", "[1]", '{"process_bytes": "much"}'):
        kept.write_text(broken)
        assert footprint_of(folder, "auto", "auto", 128) == right


def test_a_model_that_does_not_open_has_none(tmp_path: Path) -> None:
    folder = Path(byte_llama(tmp_path / "model"))
    (folder / "model.safetensors").write_bytes(b"")
    assert footprint_of(folder, "auto", "auto", 32) is None


def test_a_plan_counts_what_was_measured_in_place_of_an_estimate() -> None:
    seen = Footprint(700 * MIB, 40 * MIB, 128, 2.0)
    demands = estimated_demands(decoder(), WORK, laptop(), Limits(footprint=seen))
    assert (demands.base, demands.activations, demands.rows_held) == (700 * MIB, 40 * MIB, 2.0)
    wider = estimated_demands(decoder(), WORK, laptop(), Limits(micro_batch_tokens=256, footprint=seen))
    assert wider.activations == 80 * MIB
    assert estimated_demands(decoder(), WORK, laptop(), Limits()).base == laptop().process_bytes
