"""A packed checkpoint computes what transformers computes with its numbers unpacked, wherever the bytes lie."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from checkpoints import greedy_answers, random_model, random_prompts, save
from packed_folders import write_packed
from placements import any_plan, in_small_pages, placement
from test_exactness import answers, streamed
from windlass.engine.llm import LLM
from windlass.facts.packing import Packing
from windlass.facts.workload import Workload
from windlass.kernels.encodings.blocks import INT4, INT8

LENGTHS, TOKENS = (5, 17, 40), 12


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    return random_prompts(*LENGTHS)


CASES: tuple[tuple[str, Packing], ...] = (
    ("llama", INT4), ("llama", INT8), ("phi3", INT4), ("mixtral", INT4), ("qwen3_moe", INT8),
)  # fmt: skip


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1].name}", scope="module")
def checkpoint(
    request: pytest.FixtureRequest, prompts: list[list[int]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[list[int]]]:
    """The packed folder, and what transformers answers from the same numbers."""
    architecture, packing = request.param
    dense = save(random_model(architecture), tmp_path_factory.mktemp("packed") / "dense")
    folder = write_packed(dense, packing)
    model = AutoModelForCausalLM.from_pretrained(dense, dtype=torch.float32).eval()
    return folder, greedy_answers(model, prompts, TOKENS)


class TestTheSameTokens:
    def test_resident(self, checkpoint: tuple[Path, list[list[int]]], prompts: list[list[int]]) -> None:
        folder, expected = checkpoint
        with LLM(folder, dtype="float32") as llm:
            assert answers(llm, prompts) == expected

    def test_streamed(self, checkpoint: tuple[Path, list[list[int]]], prompts: list[list[int]]) -> None:
        folder, expected = checkpoint
        with LLM(folder, dtype="float32") as llm:
            plan = streamed(llm, Workload(len(prompts), max(LENGTHS), TOKENS), pass_tokens=19)
        with LLM(folder, dtype="float32", plan=plan) as llm:
            assert answers(llm, prompts) == expected
            assert 0 < llm.report.bytes_read

    def test_on_a_device(self, checkpoint: tuple[Path, list[list[int]]], prompts: list[list[int]]) -> None:
        folder, expected = checkpoint
        with LLM(folder, dtype="float32", device="sim", gpu_memory="256MiB") as llm:
            plan = in_small_pages(llm, any_plan(llm, prompts, TOKENS), placement(0.3, 0.4, 0.5), pass_tokens=19)
        with LLM(folder, dtype="float32", device="sim", gpu_memory="256MiB", plan=plan) as llm:
            assert answers(llm, prompts) == expected
