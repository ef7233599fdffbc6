"""The candidates of logprobs carry their text, as the tokenizer writes each on its own."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from checkpoints import random_model, save
from windlass.engine.llm import LLM
from windlass.facts.completion import Logprob
from windlass.facts.sampling_params import SamplingParams


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(random_model("llama"), tmp_path)


def candidates(folder: Path) -> list[tuple[int, Logprob]]:
    params = SamplingParams(max_tokens=4, temperature=0.0, logprobs=3, ignore_eos=True)
    with LLM(folder) as llm:
        (output,) = llm.generate({"prompt_token_ids": [5, 6, 7]}, params)
    logprobs = output.outputs[0].logprobs
    assert logprobs is not None and [len(table) for table in logprobs] == [3] * 4
    return [pair for table in logprobs for pair in table.items()]


def test_each_candidate_has_its_own_text(folder: Path) -> None:
    backend = Tokenizer(models.WordLevel({f"w{number}": number for number in range(128)}, "w0"))
    backend.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)
    assert [entry.decoded_token for _, entry in candidates(folder)] == [
        f"w{number}" for number, _ in candidates(folder)
    ]


def test_without_a_tokenizer_there_is_no_text(folder: Path) -> None:
    assert {entry.decoded_token for _, entry in candidates(folder)} == {None}
