"""The bytes that a cost counts with are those that a run then reads, within 2 %: streamed or loaded."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from checkpoints import random_model, random_prompts, save
from planned_models import laptop
from windlass.cli.main import app
from windlass.engine.llm import LLM
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.packaged_model import packaged_model_folder
from windlass.planner.cost import forecast
from windlass.planner.residency import keep_only, keys
from windlass.planner.traffic import job_bytes

LENGTHS, TOKENS, WITHIN = (17, 23, 9, 30), 60, 0.02  # so many passes that what is read ahead at the end is nothing
WORK = Workload(len(LENGTHS), max(LENGTHS), TOKENS, LENGTHS)
SIZES = {"hidden_size": 256, "intermediate_size": 768, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.mark.parametrize("kept", [0, 2], ids=["nothing stays", "two layers stay"])
def test_what_a_streamed_job_reads(kept: int, tmp_path: Path) -> None:
    folder = save(random_model("llama", **SIZES, num_hidden_layers=4).to(torch.bfloat16), tmp_path)
    prompts = [{"prompt_token_ids": ids} for ids in random_prompts(*LENGTHS)]
    with LLM(folder, block_size=2) as llm:
        facts = llm.opened.facts
        layers = [group for group in facts.groups if group.kind == "layer"][:kept]
        plan = keep_only(facts, llm.plan_for(WORK), keys(source for group in layers for source in group.sources))
    counted = job_bytes(facts, plan, WORK, forecast(facts, plan, laptop(), WORK))
    with LLM(folder, plan=plan) as llm:
        llm.generate(prompts, SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True))
        report = llm.report
    assert counted.streamed > 3 * counted.loaded
    assert counted.read == pytest.approx(report.bytes_read, rel=WITHIN)


def test_cost_job_and_the_batch_that_follows_count_the_same(tmp_path: Path) -> None:
    rows, out, model = tmp_path / "rows.jsonl", tmp_path / "out.jsonl", str(packaged_model_folder())
    rows.write_text("".join(json.dumps({"prompt": "Once upon a time", "max_tokens": 4}) + "\n" for _ in range(3)))

    def said(*arguments: str) -> dict[str, dict[str, dict[str, float]]]:
        result = CliRunner().invoke(app, [*arguments, "--json"])
        assert result.exit_code == 0, result.stderr
        return dict(json.loads(result.stdout.splitlines()[-1]))

    here = ("--machine", "cpu", "--host-memory", "8GiB")
    cost = said("cost", "job", model, "-i", str(rows), *here)["sheets"][0]["results"]
    report = said("batch", model, "-i", str(rows), "-o", str(out), "--temperature", "0")["report"]
    assert cost["bytes_read"]["value"] == pytest.approx(report["bytes_read"], rel=WITHIN)
    # What the answers are taken to weigh is of their order.
    assert 0.3 < cost["bytes_written"]["value"] / out.stat().st_size < 3
