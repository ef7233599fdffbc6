"""Outside its layers a pass holds the hidden row and little more, however long the row is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from checkpoints import random_model, save
from windlass.units import MIB

SOURCE = Path(__file__).resolve().parent.parent / "src"
TOKENS = 65_536
WIDTH = 512
# In a process of its own: the heap of one that has run much else has holes, over which temporaries are spread.
PROGRAM = """
import sys
from windlass.engine.llm import LLM
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.memory.process_memory import peak_resident_bytes, reset_peak, resident_bytes, return_free_memory
folder, tokens = sys.argv[1], int(sys.argv[2])
once = SamplingParams(max_tokens=1, temperature=0.0)
with LLM(folder) as llm:
    llm.prepare(Workload(1, tokens, 1))
    for part in llm.opened.lifted.layers:
        part.module.forward = lambda hidden, *args, **kwargs: hidden
    llm.generate({"prompt_token_ids": [5]}, once)
    return_free_memory()
    assert reset_peak(), "this system cannot measure a peak"
    before = resident_bytes()
    llm.generate({"prompt_token_ids": [5] * tokens}, once)
    print(peak_resident_bytes() - before)
"""


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_65536_tokens_cost_one_row_and_at_most_64_mib(architecture: str, tmp_path: Path) -> None:
    """With layers that pass their input on, all that is left is embedding, rotary tables, masks, norm and head."""
    model = random_model(
        architecture, hidden_size=WIDTH, num_hidden_layers=2, max_position_embeddings=TOKENS + 8, head_dim=128
    )
    save(model.to(torch.bfloat16), tmp_path)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(TOKENS)]
    # Each thread of a large machine would have buffers of its own.
    environ = os.environ | {"PYTHONPATH": str(SOURCE), "WINDLASS_NUM_THREADS": "2"}
    ran = subprocess.run(command, capture_output=True, text=True, env=environ)
    assert ran.returncode == 0, ran.stderr[-2000:]
    used = int(ran.stdout.split()[-1])
    assert TOKENS * WIDTH * 2 <= used <= TOKENS * WIDTH * 2 + 64 * MIB, f"{used / MIB:.0f} MiB"
