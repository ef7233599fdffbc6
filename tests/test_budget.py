"""The second promise: the budget is a limit on the whole process, page cache included."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM

from windlass.units import MIB

BUDGET = 720 * MIB
SLACK = 64 * MIB
PROGRAM = """
import sys, json
from windlass.engine.llm import LLM
from windlass.facts.sampling_params import SamplingParams
with LLM(sys.argv[1], host_memory=int(sys.argv[2])) as llm:
    prompts = [{"prompt_token_ids": [5 + i] * 40} for i in range(4)]
    outputs = llm.generate(prompts, SamplingParams(max_tokens=3, temperature=0.0, ignore_eos=True))
    print(json.dumps(llm.report.as_dict() | {"tokens": [len(o.outputs[0].token_ids) for o in outputs]}))
"""


def hollow_checkpoint(folder: Path, nbytes: int) -> int:
    """A Llama-shaped bfloat16 checkpoint of at least `nbytes` whose weights are a hole in the file."""
    config = AutoConfig.for_model(
        "llama", hidden_size=1024, intermediate_size=4096, num_attention_heads=8, vocab_size=1000, dtype="bfloat16"
    )
    config.num_hidden_layers = -(-nbytes // (2 * (4 * 1024 * 1024 + 3 * 1024 * 4096)))
    config.save_pretrained(folder)
    with init_empty_weights():
        shapes = {name: list(t.shape) for name, t in AutoModelForCausalLM.from_config(config).state_dict().items()}
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * (shape[0] * shape[1] if len(shape) == 2 else shape[0])
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return end


def test_a_checkpoint_four_times_the_budget_runs_under_a_hard_cap(shared: Path, tmp_path: Path) -> None:
    capped = shared / "bench" / "capped.sh"
    if os.geteuid() != 0 or not os.access("/sys/fs/cgroup", os.W_OK):
        pytest.skip("a memory cap needs the right to make a control group")
    assert hollow_checkpoint(tmp_path, 4 * BUDGET) >= 4 * BUDGET
    command = ["bash", str(capped), str(BUDGET + SLACK), sys.executable, "-c", PROGRAM, str(tmp_path), str(BUDGET)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["tokens"] == [3, 3, 3, 3]
    assert report["peak_memory"] <= BUDGET, f"{report['peak_memory'] / MIB:.0f} MiB of {BUDGET / MIB:.0f}"
    assert report["bytes_read"] > 4 * BUDGET
