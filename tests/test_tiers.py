"""The first promise over three tiers: whatever lies where, and whatever arrives late, the tokens are transformers' own.

On a simulated device memory that holds nothing valid is NaN, and every copy and every piece of the host's work is held
up at random, so that a wait that is missing anywhere shows as a wrong token.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.llama.modeling_llama import LlamaMLP

from checkpoints import ARCHITECTURES, greedy_answers, random_model, random_prompts, save
from placements import any_plan, in_small_pages, placement
from windlass.engine.llm import LLM
from windlass.errors import BudgetError, DeviceError
from windlass.facts.placement import Placement
from windlass.facts.plan import Plan
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload

LENGTHS, TOKENS = (5, 17, 11, 40), 12
GREEDY = SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)
DEVICE, MEMORY = "sim:rate=2GB/s,latency=20us,delay=400us", "200MiB"

SPLITS = {
    "half of the weights on the device": placement(0.5, 0.5, 0.0),
    "half of the keys and values on the host": placement(0.6, 0.4, 0.5),
    "a little on disk": placement(0.3, 0.4, 0.3, 0.3),
}

Case = tuple[Path, list[list[int]], list[list[int]], Plan]


def answers(llm: LLM, prompts: list[list[int]]) -> list[list[int]]:
    outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], GREEDY)
    return [list(output.outputs[0].token_ids) for output in outputs]


def case(architecture: str, folder: Path) -> Case:
    model = random_model(architecture)
    prompts = random_prompts(*LENGTHS)
    save(model, folder)
    with LLM(folder, device=DEVICE, gpu_memory=MEMORY, micro_batch_tokens=7) as llm:
        plan = any_plan(llm, prompts, TOKENS)
        return folder, prompts, greedy_answers(model, prompts, TOKENS), plan


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case("llama", tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize("device", [f"{DEVICE},seed=3", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_in_three_splits(architecture: str, device: str, tmp_path: Path) -> None:
    folder, prompts, expected, plan = case(architecture, tmp_path)
    for name, wanted in SPLITS.items():
        with LLM(folder, device=device, gpu_memory="2GiB", offload_dir=tmp_path) as llm:
            llm.adopt(in_small_pages(llm, plan, wanted, pass_tokens=19))
            assert answers(llm, prompts) == expected, name


SHARES = st.floats(0, 1)
PLACEMENTS = st.builds(placement, SHARES, SHARES, SHARES, SHARES)
SEEDS, PASSES, MICRO_BATCHES = st.integers(0, 1000), st.integers(4, 90), st.integers(1, 40)


def run_a_random_plan(
    llama: Case, wanted: Placement, seed: int, pass_tokens: int, micro_batch: int, row_on_host: bool
) -> None:
    folder, prompts, expected, plan = llama
    with LLM(folder, device=f"{DEVICE},seed={seed}", gpu_memory=MEMORY, offload_dir=folder) as llm:
        chosen = in_small_pages(llm, plan, wanted, pass_tokens)
        llm.adopt(replace(chosen, micro_batch_tokens=micro_batch, row_on_host=row_on_host))
        assert answers(llm, prompts) == expected


@settings(max_examples=20)
@given(wanted=PLACEMENTS, seed=SEEDS, pass_tokens=PASSES, micro_batch=MICRO_BATCHES, row_on_host=st.booleans())
def test_no_random_plan_gives_a_wrong_token(
    llama: Case, wanted: Placement, seed: int, pass_tokens: int, micro_batch: int, row_on_host: bool
) -> None:
    run_a_random_plan(llama, wanted, seed, pass_tokens, micro_batch, row_on_host)


@pytest.mark.slow
@settings(max_examples=500)
@given(wanted=PLACEMENTS, seed=SEEDS, pass_tokens=PASSES, micro_batch=MICRO_BATCHES, row_on_host=st.booleans())
def test_none_of_500_random_plans_gives_a_wrong_token(
    llama: Case, wanted: Placement, seed: int, pass_tokens: int, micro_batch: int, row_on_host: bool
) -> None:
    run_a_random_plan(llama, wanted, seed, pass_tokens, micro_batch, row_on_host)


def test_a_plan_for_a_small_device_uses_the_host(tmp_path: Path) -> None:
    """With room for half of it the model is divided by the rule, not by hand, and the tokens are the same."""
    model = random_model("llama", hidden_size=512, intermediate_size=2048, vocab_size=1024)
    prompts = random_prompts(*LENGTHS)
    save(model, tmp_path)
    with LLM(tmp_path, device=DEVICE, gpu_memory="96MiB", micro_batch_tokens=16) as llm:
        plan = any_plan(llm, prompts, TOKENS)
        assert plan.streamed_bytes and plan.host is not None and plan.host.resident and not plan.disk_bytes
        assert plan.memory.spare >= 0 and plan.host.spare >= 0
        assert answers(llm, prompts) == greedy_answers(model, prompts, TOKENS)


def test_a_device_that_is_too_small_is_refused_with_what_would_do(llama: Case) -> None:
    folder, prompts, _, _ = llama
    with LLM(folder, device=DEVICE, gpu_memory="20MiB") as llm, pytest.raises(BudgetError, match="--gpu-memory"):
        answers(llm, prompts)


def test_answers_that_share_a_prompt_share_it_across_memories(llama: Case) -> None:
    """The last page of a prompt is copied for each answer, from whichever memory to whichever other."""
    folder, prompts, _, plan = llama
    params = SamplingParams(max_tokens=6, temperature=1.0, seed=5, n=3, ignore_eos=True)
    requests = [{"prompt_token_ids": prompt} for prompt in prompts]
    with LLM(folder) as llm:
        wanted = [[out.token_ids for out in output.outputs] for output in llm.generate(requests, params)]
    for on_host, on_disk in ((0.0, 0.0), (0.3, 0.0), (1.0, 0.0), (0.3, 0.6), (0.0, 1.0)):
        with LLM(folder, device=DEVICE, gpu_memory=MEMORY, offload_dir=folder) as llm:
            chosen = in_small_pages(llm, plan, placement(0.5, 0.5, on_host, on_disk), pass_tokens=19)
            llm.adopt(replace(chosen, block_size=12))
            got = [[out.token_ids for out in output.outputs] for output in llm.generate(requests, params)]
        assert got == wanted, f"{on_host:.0%} on the host, {on_disk:.0%} on disk"


def test_a_micro_batch_that_the_device_has_no_memory_for_is_halved(
    llama: Case, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once, whatever layer it happens in, and the tokens are the same."""
    folder, prompts, expected, plan = llama
    forward = LlamaMLP.forward

    def cramped(module: LlamaMLP, hidden: torch.Tensor) -> torch.Tensor:
        if hidden.shape[1] > 3:
            raise torch.OutOfMemoryError("no memory for so many tokens")
        return forward(module, hidden)

    with LLM(folder, device=DEVICE, gpu_memory=MEMORY) as llm:
        chosen = in_small_pages(llm, plan, placement(0.5, 0.5, 0.5), pass_tokens=19)
        llm.adopt(replace(chosen, micro_batch_tokens=19))
        monkeypatch.setattr(LlamaMLP, "forward", cramped)
        assert answers(llm, prompts) == expected
    assert [record.getMessage() for record in caplog.records if record.name == "windlass"] == [
        "the device ran out of memory: micro-batches are now of at most 4 tokens"
    ]


def test_a_device_without_memory_for_one_token_says_so(llama: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(module: LlamaMLP, hidden: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("no memory at all")

    folder, prompts, _, plan = llama
    with LLM(folder, device=DEVICE, gpu_memory=MEMORY, plan=plan) as llm:
        llm.prepare(Workload(4, 40, TOKENS))
        monkeypatch.setattr(LlamaMLP, "forward", full)
        with pytest.raises(DeviceError, match="no memory left for a single token"):
            answers(llm, prompts)
