"""What every benchmark needs: the model, a memory cap, the disk's best rate right now, medians of rounds."""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, OPTConfig

from windlass.jobs.demo_checkpoint import write_checkpoint
from windlass.memory.probe import measure_disk

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("WINDLASS_SHARED") or ROOT.parent / "shared")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}


def llama_3b(folder: Path) -> Path:
    """The 3.0-billion-parameter Llama shape, 6.03 GB in bfloat16, written to `folder` if it is not there."""
    if not (folder / "config.json").is_file():
        config = LlamaConfig(
            hidden_size=3072, intermediate_size=8192, num_hidden_layers=28, num_attention_heads=24,
            num_key_value_heads=8, vocab_size=32000, max_position_embeddings=4096, bos_token_id=1, eos_token_id=2,
            tie_word_embeddings=False, dtype="bfloat16", architectures=["LlamaForCausalLM"],
        )  # fmt: skip
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(folder, config)
    return folder


def opt_3b(folder: Path) -> Path:
    """The shape of OPT-2.7B, 5.3 GB in bfloat16, written to `folder` if it is not there."""
    if not (folder / "config.json").is_file():
        config = OPTConfig(
            hidden_size=2560, ffn_dim=10240, num_hidden_layers=32, num_attention_heads=32, word_embed_proj_dim=2560,
            vocab_size=50272, max_position_embeddings=2048, bos_token_id=1, eos_token_id=2, dtype="bfloat16",
            architectures=["OPTForCausalLM"],
        )  # fmt: skip
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(folder, config)
    return folder


def run(command: Sequence[str], cap: str | None = None) -> str:
    """Runs a command, under a hard cap that counts the page cache if `cap` is given -> its standard output."""
    whole = ["bash", str(SHARED / "bench" / "capped.sh"), cap, *command] if cap else list(command)
    # A peer may leave gigabytes in the folder for temporary files.
    with tempfile.TemporaryDirectory(prefix="windlass-benchmark-") as folder:
        done = subprocess.run(whole, capture_output=True, text=True, env=ENVIRONMENT | {"TMPDIR": folder})
    if done.returncode:
        raise SystemExit(f"{' '.join(whole)} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def windlass_bench(model: Path, *flags: str, cap: str | None = None) -> dict[str, Any]:
    """`windlass bench --json` in a process of its own."""
    command = [sys.executable, "-m", "windlass", "bench", str(model), "--json", "--quiet", *flags]
    return dict(json.loads(run(command, cap).splitlines()[-1]))


def best_disk_rate(model: Path) -> float:
    """Bytes/s: the best of 1, 8 and 64 MiB reads at depths 1, 4, 8 and 32, right now."""
    return measure_disk(model, seconds=4.0, most=2 << 30).rate


def median(values: Sequence[float]) -> float:
    """Of the rounds."""
    return statistics.median(values)


def machine() -> str:
    """The machine in a line, for the record."""
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    cpu = names[0] if names else platform.processor()
    return f"{os.cpu_count()} cores of {cpu}, torch {torch.__version__}, {date.today().isoformat()}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []
