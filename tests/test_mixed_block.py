"""Requests that stop, report and draw in different ways share a block, and each gets what it gets alone."""

from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from checkpoints import random_model, random_prompts, save
from windlass.engine.llm import LLM
from windlass.facts.completion import CompletionOutput
from windlass.facts.sampling_params import SamplingParams

# A token the greedy model comes to say again and again would make every answer the same: the draws are seeded.
DRAWN = SamplingParams(max_tokens=12, temperature=1.0, ignore_eos=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama in float32 whose tokens are words, and of which every fourth ends an answer."""
    folder, model = tmp_path_factory.mktemp("llama"), random_model("llama")
    model.generation_config.eos_token_id = list(range(3, 128, 4))
    backend = Tokenizer(models.WordLevel({f"<{number}>": number for number in range(128)}, "<0>"))
    backend.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)
    return save(model, folder)


@pytest.fixture(autouse=True)
def no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)


def same(ours: tuple[CompletionOutput, ...], alone: tuple[CompletionOutput, ...]) -> None:
    """Equal but for the rounding of log probabilities in products of another shape."""
    for one, other in zip(ours, alone, strict=True):
        assert replace(one, logprobs=None, cumulative_logprob=None) == replace(
            other, logprobs=None, cumulative_logprob=None
        )
        assert one.cumulative_logprob == pytest.approx(other.cumulative_logprob, abs=1e-4)
        assert [list(table) for table in one.logprobs or ()] == [list(table) for table in other.logprobs or ()]
        for table, wanted in zip(one.logprobs or (), other.logprobs or (), strict=True):
            for token, entry in table.items():
                assert replace(entry, logprob=0.0) == replace(wanted[token], logprob=0.0)
                assert entry.logprob == pytest.approx(wanted[token].logprob, abs=1e-4)


def test_every_request_of_a_mixed_block_gets_what_it_gets_alone(folder: Path) -> None:
    lengths = (7, 1, 30, 12, 70, 5, 9, 3, 20)
    prompts = [{"prompt_token_ids": prompt} for prompt in random_prompts(*lengths)]
    with LLM(folder) as llm:
        (plain,) = llm.generate(prompts[0], replace(DRAWN, seed=1))
        said = plain.outputs[0].token_ids
        mixed = [
            replace(DRAWN, seed=1, stop=f"<{said[3]}>"),
            replace(DRAWN, seed=2, logprobs=3),
            replace(DRAWN, seed=3, ignore_eos=False),
            replace(DRAWN, seed=3, ignore_eos=False, min_tokens=8, logprobs=0),
            replace(DRAWN, seed=4, n=3, top_p=0.8, logprobs=1),
            SamplingParams(max_tokens=6, temperature=0.0, ignore_eos=True),
            replace(DRAWN, seed=5, stop=["1", "2>"], min_tokens=4, include_stop_str_in_output=True),
            replace(DRAWN, seed=6, stop_token_ids=list(range(64)), top_k=40, min_p=0.001),
            replace(DRAWN, seed=7, max_tokens=1, logprobs=2),
        ]
        together = llm.generate(prompts, mixed)
        assert llm.plan.block_size >= 11, "they were one block"
        for prompt, params, output in zip(prompts, mixed, together, strict=True):
            (alone,) = llm.generate(prompt, params)
            same(output.outputs, alone.outputs)
    shown = [output.outputs[0] for output in together]
    assert (shown[0].stop_reason, len(shown[0].token_ids)) == (f"<{said[3]}>", said.index(said[3]) + 1)
    assert shown[2].finish_reason == "stop" and shown[2].stop_reason is None
