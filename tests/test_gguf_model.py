"""A GGUF file gives what transformers gives with its numbers dequantised by the gguf package, wherever they lie."""

from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints import greedy_answers, random_prompts
from gguf_models import ARCHITECTURES, gguf_beside, the_same_model
from test_exactness import streamed
from windlass.engine.llm import LLM
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload

LENGTHS, TOKENS = (5, 23), 4
PARAMS = SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True, logprobs=4)


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    return random_prompts(*LENGTHS)


def check(llm: LLM, dense: Path, prompts: list[list[int]]) -> None:
    """The tokens are transformers' own, and log probabilities are within 1e-3 of its."""
    reference = the_same_model(dense)
    outputs = [out.outputs[0] for out in llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], PARAMS)]
    assert [list(out.token_ids) for out in outputs] == greedy_answers(reference, prompts, TOKENS)
    for prompt, out in zip(prompts, outputs, strict=True):
        with torch.no_grad():
            logits = reference(torch.tensor([prompt + list(out.token_ids)])).logits[0]
        expected = torch.log_softmax(logits.float(), dim=-1)[len(prompt) - 1 : -1]
        for row, found in zip(expected, out.logprobs, strict=True):
            assert len(found) >= 4
            for token, value in found.items():
                assert abs(value.logprob - row[token]) < 1e-3


def run_both_ways(file: Path, prompts: list[list[int]], **choices: Any) -> None:
    """Resident, then with every layer brought from disk."""
    dense = file.parent / "dense"
    with LLM(file, dtype="float32", **choices) as llm:
        check(llm, dense, prompts)
        plan = streamed(llm, Workload(len(prompts), max(LENGTHS), TOKENS), pass_tokens=19)
    with LLM(file, dtype="float32", plan=plan, **choices) as llm:
        check(llm, dense, prompts)
        assert llm.report.bytes_read > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_architecture(architecture: str, prompts: list[list[int]], tmp_path: Path) -> None:
    run_both_ways(gguf_beside(tmp_path, architecture, types=("Q4_K", "Q8_0", "Q6_K")), prompts)
