"""`windlass plan`: a job planned from the outside, on machines that are not here, without torch."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from windlass.cli.main import app
from windlass.cli.plan_flags import WorkFlags
from windlass.cli.sampling_flags import SamplingFlags
from windlass.errors import UsageError
from windlass.facts.deadline import seconds_until
from windlass.facts.model_facts import ModelFacts
from windlass.facts.plan_file import read_plan
from windlass.jobs import model_description

# 125 million parameters on two memories too small for them.
SMALL = ("plan", "opt-125m", "--machine", "t4", "--prompt-len", "100", "--gen-len", "20", "--num-prompts", "40")
TIGHT = (*SMALL, "--device", "cpu", "--host-memory", "800MiB")


def windlass(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, arguments, prog_name="windlass")
    return result.exit_code, result.stdout, result.stderr


def refused(*arguments: str) -> str:
    code, out, error = windlass(*arguments)
    assert (code, out) == (2, "") and error.startswith("error: ") and error.count("\n") == 1
    return error


def test_a_plan_says_where_bytes_lie_how_fast_it_goes_and_why() -> None:
    code, out, _ = windlass(*TIGHT)
    assert code == 0
    for said in (
        "model    opt-125m",
        "machine  NVIDIA T4",
        "job      40 prompts of 100 tokens, 20 generated each",
        "rates    disk ",
        "from disk a pass",
        "counts   800 generated tokens",
        "bound by prefill",
        "help     ",
    ):
        assert said in out


@pytest.mark.parametrize(
    ("longest", "flags", "lengths"),
    [
        (2048, {}, (512, 128)),
        (640, {}, (512, 128)),
        (512, {}, (410, 102)),
        (512, {"gen_len": 64}, (448, 64)),
        (512, {"prompt_len": 500}, (500, 12)),
        (512, {"prompt_len": 600}, (600, 1)),
        (2, {}, (1, 1)),
    ],
)
def test_lengths_that_nobody_gave_keep_within_the_context(
    longest: int, flags: dict[str, int], lengths: tuple[int, int]
) -> None:
    work = WorkFlags(**flags).workload(longest)
    assert (work.prompt_len, work.gen_len) == lengths


def test_a_model_of_a_short_context_is_planned_for_without_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    described = model_description.describe_model

    def short(*asked: Any, **more: Any) -> ModelFacts:
        return replace(described(*asked, **more), max_model_len=100)

    monkeypatch.setattr(model_description, "describe_model", short)
    planned = json.loads(windlass("plan", "opt-125m", "--machine", "t4", "--json")[1])["workload"]
    assert (planned["prompt_len"], planned["gen_len"]) == (80, 20)
    assert "exceed the 100 that" in refused("plan", "opt-125m", "--machine", "t4", "--prompt-len", "100")


def test_as_json_it_holds_the_same_for_machines() -> None:
    found = json.loads(windlass(*TIGHT, "--json")[1])
    assert found["workload"] == {"num_prompts": 40, "mean_prompt_len": 100.0, "prompt_len": 100, "gen_len": 20}
    assert found["forecast"]["seconds"] > 0 and found["plan"]["disk_bytes"] > 0
    assert found["explanation"]["changes"][0]["gain"] > 1


def test_a_model_that_fits_needs_no_offloading() -> None:
    assert "no offloading is needed" in windlass(*SMALL)[1]


def test_experts_on_disk_are_not_said_to_be_resident() -> None:
    """Every layer stays, and few of the experts do."""
    flags = ("--machine", "t4", "--device", "cpu", "--host-memory", "24GiB", "--prompt-len", "8", "--gen-len", "2")
    out = windlass("plan", "mixtral-8x7b", *flags)[1]
    assert "weights  all resident but experts; experts that do not stay come from disk when tokens want them" in out
    # A token wants 2 experts of each of 32 layers, of three matrices of 4096 x 14336 in 2 bytes; some of them stay.
    told = re.search(r"experts  about ([\d.]+) GB from disk more a pass of 1 tokens", out)
    assert told is not None and 0 < float(told[1]) <= 2 * 32 * 3 * 4096 * 14336 * 2 / 1e9


def test_the_plan_is_written_and_can_be_read_back(tmp_path: Path) -> None:
    assert windlass(*TIGHT, "-o", str(tmp_path / "plan.json"))[0] == 0
    file = read_plan(tmp_path / "plan.json")
    assert file.model.model_type == "opt" and file.plan.memory.budget == 800 << 20 and file.plan.disk_bytes > 0


def test_the_forecast_is_a_timeline_too(tmp_path: Path) -> None:
    assert windlass(*TIGHT, "--timeline", str(tmp_path / "timeline.json"))[0] == 0
    events = json.loads((tmp_path / "timeline.json").read_text())["traceEvents"]
    names = {event["name"] for event in events}
    assert "read layer 3" in names and any(name.startswith("compute layer 3 rows 0:") for name in names)
    assert {event["args"]["name"] for event in events if event["name"] == "process_name"} == {"forecast"}


def test_with_time_to_spare_it_takes_less_memory() -> None:
    hurried, patient = (
        json.loads(windlass(*SMALL, "--json", *limit)[1]) for limit in ((), ("--max-seconds", "1000000"))
    )
    assert patient["plan"]["memory"]["budget"] < hurried["plan"]["memory"]["budget"]
    assert patient["forecast"]["seconds"] <= 1000000


def test_a_job_that_cannot_be_done_in_time_is_refused_with_what_is_missing() -> None:
    code, _, error = windlass(*TIGHT, "--max-seconds", "0.5")
    assert code == 1 and "the fastest plan takes" in error and "are missing; it would do with" in error


def test_prompts_in_a_file_are_counted_one_by_one(tmp_path: Path) -> None:
    rows = [{"prompt": [5] * length, "max_tokens": 4 + length % 2} for length in (3, 50, 51)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ("plan", "opt-125m", "--machine", "t4", "-i", str(tmp_path / "in.jsonl"), "--json")
    found = json.loads(windlass(*flags)[1])["workload"]
    assert found == {"num_prompts": 3, "mean_prompt_len": 104 / 3, "prompt_len": 51, "gen_len": 5}
    (tmp_path / "in.jsonl").write_text('{"prompt": [5, 6]}\n{"prompt": 5}\n')
    _, out, error = windlass(*flags)
    assert json.loads(out)["workload"]["gen_len"] == SamplingFlags().max_tokens, "as batch has it"
    assert error.startswith("warning: 1 of the rows in ") and error.count("\n") == 1
    (tmp_path / "in.jsonl").write_text('{"prompt": "Once upon a time"}\n')
    assert "no tokenizer.json beside the model" in refused(*flags)


def test_formats_that_lose_something_are_used_only_where_they_are_allowed(tmp_path: Path) -> None:
    allowed = json.loads(windlass(*TIGHT, "--json", "--allow", "int8,int4")[1])
    assert allowed["format"] == "int4"
    assert json.loads(windlass(*TIGHT, "--json")[1])["format"] is None
    said = refused(*TIGHT, "--allow", "int4", "-o", str(tmp_path / "p.json"))
    assert "int4 weights, which this checkpoint does not hold; plan with --quantization int4 to use -o" in said


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("plan",), "argument MODEL is missing"),
        (("plan", "opt-125m", "--shape", "opt-30b"), "are two models"),
        ((*SMALL, "--device", "cpu", "--gpu-memory", "1GiB"), "--gpu-memory has no effect: --device cpu"),
        ((*SMALL, "--device", "tpu"), "--device 'tpu' cannot be planned for"),
        (("plan", "opt-125m", "--machine", "cpu", "--device", "cuda"), "--device cuda: .* has none"),
        ((*SMALL, "--finish-by", "08:00", "--max-seconds", "5"), "two limits on the same time"),
        ((*SMALL, "--finish-by", "soon"), "--finish-by 'soon' is no time; write it as 08:00"),
        ((*SMALL, "--allow", "int3"), "--allow 'int3' is no format that is known"),
        ((*SMALL, "-i", "x.jsonl"), "--prompt-len 100 has no effect beside -i x.jsonl"),
        ((*SMALL, "--disk-room", "1GiB", "--offload-dir", "/tmp"), "both say how much room"),
        (("plan", "opt-125m", "--machine", "t4", "--gen-len", "4000"), "exceed the 2048 that opt-125m takes"),
        ((*SMALL, "--machine", "t44"), "did you mean t4"),
        ((*SMALL, "--revision", "main"), "--revision main has no effect: the shape opt-125m is made up"),
    ],
)
def test_what_makes_no_sense_or_has_no_effect_is_refused(flags: tuple[str, ...], reason: str) -> None:
    assert re.search(reason, refused(*flags))


def test_no_torch_is_loaded() -> None:
    program = f"""
import sys
from typer.testing import CliRunner
from windlass.cli.main import app
assert CliRunner().invoke(app, {TIGHT!r}).exit_code == 0
print(sorted({{"torch", "transformers"}} & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_time_of_day_is_the_next_one() -> None:
    now = datetime(2026, 5, 1, 22, 30, tzinfo=timezone.utc)
    assert seconds_until("23:00", now) == 1800
    assert seconds_until("08:00", now) == timedelta(hours=9, minutes=30).total_seconds()
    assert seconds_until("2026-05-02T00:30", now) == 7200
    assert seconds_until("2026-05-02T01:30+02:00", now) == 3600
    with pytest.raises(UsageError, match="is over already"):
        seconds_until("2026-04-30T00:00", now)
    with pytest.raises(UsageError, match="no time of day"):
        seconds_until("25:00", now)
