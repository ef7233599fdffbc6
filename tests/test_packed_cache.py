"""A packed cache gives the same tokens wherever its pages lie, however rows are cut and however answers share a prompt.

What it gives is not what transformers gives, so the first run is the measure of the others; what a token sees by
definition is held by test_packed_store.py.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from checkpoints import random_model, random_prompts, save
from placements import any_plan, in_small_pages, placement
from windlass.engine.llm import LLM
from windlass.errors import UsageError
from windlass.facts.sampling_params import SamplingParams
from windlass.kernels.page_store import PAGE_TOKENS

LENGTHS, TOKENS = (5, 17, 11, 40), 12
GREEDY = SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)
DEVICE, MEMORY = "sim:rate=2GB/s,latency=20us,delay=400us,seed=5", "200MiB"
ON_HOST = placement(0.0, 1.0, 1.0)

Tokens = list[list[tuple[int, ...]]]


def answers(llm: LLM, prompts: list[list[int]], params: SamplingParams = GREEDY) -> Tokens:
    outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], params)
    return [[answer.token_ids for answer in output.outputs] for output in outputs]


def in_small_pages_on_the_host(
    folder: Path, kept_as: str, prompts: list[list[int]], params: SamplingParams = GREEDY, block_size: int = 4
) -> Tokens:
    with LLM(folder, device="cpu", kv_cache_dtype=kept_as, block_size=block_size, micro_batch_tokens=64) as llm:
        llm.adopt(in_small_pages(llm, any_plan(llm, prompts, TOKENS), ON_HOST, pass_tokens=200))
        return answers(llm, prompts, params)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama."""
    folder = tmp_path_factory.mktemp("llama")
    save(random_model("llama"), folder)
    return folder


@pytest.mark.parametrize("kept_as", [pytest.param("int8", marks=pytest.mark.slow), "int4"])
def test_the_same_tokens_in_every_memory(folder: Path, kept_as: str, tmp_path: Path) -> None:
    prompts = random_prompts(*LENGTHS)
    expected = in_small_pages_on_the_host(folder, kept_as, prompts)
    for device, wanted in (
        ("cpu", placement(0.0, 1.0, 0.4, 0.6)),
        (DEVICE, placement(0.5, 0.5, 0.0)),
        (DEVICE, placement(0.6, 0.4, 0.5)),
        (DEVICE, placement(0.3, 0.4, 0.3, 0.4)),
        (DEVICE, placement(0.3, 0.4, 1.0)),
    ):
        memory = MEMORY if device == DEVICE else None
        with LLM(folder, device=device, gpu_memory=memory, kv_cache_dtype=kept_as, offload_dir=tmp_path) as llm:
            plan = in_small_pages(llm, any_plan(llm, prompts, TOKENS), wanted, pass_tokens=19)
            llm.adopt(replace(plan, micro_batch_tokens=7))
            assert answers(llm, prompts) == expected, (device, wanted)


def test_answers_to_one_prompt_share_its_full_pages_and_go_on_by_themselves(folder: Path) -> None:
    """In a block of one each waits for the one before, whose place is not kept: the end of the prompt is read again."""
    drawn = SamplingParams(max_tokens=TOKENS, temperature=1.0, seed=3, n=3, ignore_eos=True)
    prompts = random_prompts(21, 16)
    together = in_small_pages_on_the_host(folder, "int4", prompts, drawn, block_size=6)
    assert len({answer for request in together for answer in request}) > 3
    assert in_small_pages_on_the_host(folder, "int4", prompts, drawn, block_size=1) == together
    assert in_small_pages_on_the_host(folder, "int4", prompts, drawn, block_size=2) == together


@pytest.mark.parametrize("architecture", ["deepseek_v3", "gemma3n_text"])
def test_latents_and_shared_keys_are_packed_too(architecture: str, tmp_path: Path) -> None:
    save(random_model(architecture), tmp_path)
    prompts = random_prompts(*LENGTHS)
    exact = in_small_pages_on_the_host(tmp_path, "auto", prompts)
    packed = in_small_pages_on_the_host(tmp_path, "int8", prompts)
    agreeing = [a == b for x, y in zip(exact, packed, strict=True) for a, b in zip(x[0], y[0], strict=True)]
    assert sum(agreeing) >= 0.6 * len(agreeing)


def test_the_plan_counts_packed_pages_and_a_page_for_each_sequence(folder: Path) -> None:
    prompts = random_prompts(*LENGTHS)
    with LLM(folder, device="cpu", kv_cache_dtype="int4", block_size=4) as llm:
        plan, facts = any_plan(llm, prompts, TOKENS), llm.opened.facts
        packed = plan.num_pages * facts.cache_page_bytes(PAGE_TOKENS)
        unpacked = PAGE_TOKENS * facts.cache_bytes_per_token
        assert plan.kv_cache_dtype == "int4" and plan.memory.cache == packed + 4 * unpacked
        assert facts.cache_page_bytes(PAGE_TOKENS) < unpacked / 3
        assert "in int4" in plan.lines()[-1] and plan.summary()["kv_cache_dtype"] == "int4"
    with LLM(folder, device="cpu", plan=plan) as llm:
        assert llm.opened.facts.cache_format.name == "int4"
    with pytest.raises(UsageError, match="keeps keys and values in int4, kv_cache_dtype is int8; leave it out"):
        LLM(folder, device="cpu", plan=plan, kv_cache_dtype="int8")
