"""A GGUF file gives what transformers gives with its numbers dequantised by the gguf package, wherever they lie."""

from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints import greedy_answers, random_prompts
from gguf_models import ARCHITECTURES, gguf_beside, the_same_model
from placements import any_plan, in_small_pages, placement
from test_exactness import streamed
from windlass.engine.llm import LLM
from windlass.facts.gguf_types import PACKINGS
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.jobs.model_description import describe_model

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


@pytest.mark.parametrize("name", sorted(set(PACKINGS) - {"Q4_K", "Q8_0", "Q6_K"}))
def test_each_type(name: str, prompts: list[list[int]], tmp_path: Path) -> None:
    file = gguf_beside(tmp_path, "llama", types=(name,), num_hidden_layers=1)
    with LLM(file, dtype="float32") as llm:
        check(llm, tmp_path / "dense", prompts)


def test_a_tensor_for_each_matrix_of_an_expert(prompts: list[list[int]], tmp_path: Path) -> None:
    run_both_ways(gguf_beside(tmp_path, "mixtral", types=("Q4_K",), one_by_one=True), prompts)


def test_a_tied_head(prompts: list[list[int]], tmp_path: Path) -> None:
    run_both_ways(gguf_beside(tmp_path, "qwen2", types=("Q6_K",), tie_word_embeddings=True), prompts)


LONG = {"max_position_embeddings": 512}
ROPES: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("llama", {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}),
    "yarn": (
        "qwen2",
        {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 128},
    ),
    "llama3": (
        "llama",
        {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0}
        | {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
    ),
    "llama3 of other factors": (
        "llama",
        {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 6.0, "low_freq_factor": 2.0}
        | {"high_freq_factor": 8.0, "original_max_position_embeddings": 256},
    ),
    "longrope": (
        "phi3",
        {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 16}
        | {"short_factor": [1.0] * 32, "long_factor": [2.0, 1.5] * 16},
    ),
    "linear beside local": (
        "gemma3_text",
        {
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
}


@pytest.mark.parametrize("kind", ROPES)
def test_each_way_to_stretch_positions(kind: str, tmp_path: Path) -> None:
    """Prompts on both sides of phi3's threshold, but not at it: there transformers itself forgets the prompt."""
    architecture, rope = ROPES[kind]
    own = {"original_max_position_embeddings": 16} if architecture == "phi3" else {}
    file = gguf_beside(tmp_path, architecture, rope_parameters=rope, **LONG, **own)
    with LLM(file, dtype="float32") as llm:
        check(llm, tmp_path / "dense", random_prompts(6, 30) if architecture == "phi3" else random_prompts(90))


@pytest.mark.parametrize(
    ("types", "dtype"), [(("Q4_K",), "bfloat16"), (("F16",), "float16"), (("BF16",), "bfloat16"), (("F32",), "float32")]
)
def test_what_it_is_computed_in(types: tuple[str, ...], dtype: str, tmp_path: Path) -> None:
    file = gguf_beside(tmp_path, "llama", types=types, num_hidden_layers=1)
    assert describe_model(file).dtype == dtype


def test_a_description_is_that_of_the_opened_model(tmp_path: Path) -> None:
    """A plan is made without torch, from a file or from the folder that holds it alone."""
    file = gguf_beside(tmp_path / "there", "mixtral", types=("Q4_K", "Q6_K"))
    alone = file.rename(tmp_path / "alone.gguf")
    with LLM(alone) as llm:
        assert describe_model(alone).groups == llm.opened.facts.groups
    assert describe_model(tmp_path).groups == describe_model(alone).groups


@pytest.mark.parametrize("architecture", ["llama", "mixtral"])
def test_divided_over_a_device_host_memory_and_disk(
    architecture: str, prompts: list[list[int]], tmp_path: Path
) -> None:
    file = gguf_beside(tmp_path, architecture, types=("Q4_K", "Q6_K"))
    choices: dict[str, Any] = {"dtype": "float32", "device": "sim", "gpu_memory": "256MiB"}
    with LLM(file, **choices) as llm:
        plan = in_small_pages(llm, any_plan(llm, prompts, TOKENS), placement(0.3, 0.4, 0.5), pass_tokens=19)
    with LLM(file, plan=plan, **choices) as llm:
        check(llm, tmp_path / "dense", prompts)
