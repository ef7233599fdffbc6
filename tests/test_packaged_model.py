"""The model in the box writes verse: small, with a tokenizer that loses nothing, and far better than chance."""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from checkpoints import greedy_answers
from windlass.engine.llm import LLM
from windlass.facts.sampling_params import SamplingParams
from windlass.packaged_model import packaged_model_folder

ROOT = Path(__file__).resolve().parent.parent
FOLDER = packaged_model_folder()
MOST_BYTES = 10_000_000
PROMPTS = ("", "ROMEO:\n", "What light through yonder window", "naïve 你好\n")

# Bits a byte. Random weights take more than 4; the card says what the model reaches over the whole held-out text.
MOST_BITS = 2.4
# The end of the plays, which neither tokenizer nor model has learned from.
HELD_OUT_CHARACTERS = 100_000
PASSAGE_CHARACTERS = 12_000

SPEAKER = re.compile(r"^[A-Z][A-Za-z' ]+:\n", re.MULTILINE)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(FOLDER, dtype="float32") as opened:
        yield opened


def bits_a_byte(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> float:
    """Cross-entropy of the text in rows of the model's length, each behind its begin token alone."""
    ids = torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)
    nats = 0.0
    for wanted in ids.split(model.config.max_position_embeddings):
        inputs = torch.cat([torch.tensor([tokenizer.bos_token_id]), wanted[:-1]])
        with torch.inference_mode():
            logits = model(input_ids=inputs[None]).logits[0].float()
        nats += functional.cross_entropy(logits, wanted, reduction="sum").item()
    return nats / math.log(2) / len(text.encode())


def test_the_folder_takes_at_most_10_mb() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= MOST_BYTES


def test_every_file_of_it_goes_into_the_wheel() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["windlass"]
    taken = {path.name for pattern in patterns for path in (ROOT / "src" / "windlass").glob(pattern)}
    data = {path.name for path in FOLDER.iterdir() if path.is_file() and path.suffix != ".py"}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= data <= taken


@example("First Citizen:\nSpeak , speak .\n\n  I do n't !")
@example("naïve 你好, 👩‍👩‍👧\r\n\ttabs")
@given(st.text())
def test_any_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_greedy_tokens_are_those_of_transformers(llm: LLM, tokenizer: PreTrainedTokenizerBase) -> None:
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32, attn_implementation="eager")
    model.generation_config.eos_token_id = None
    expected = greedy_answers(model, [tokenizer(prompt).input_ids for prompt in PROMPTS], tokens=24)
    outputs = llm.generate(list(PROMPTS), SamplingParams(max_tokens=24, temperature=0.0, ignore_eos=True))
    assert [list(output.outputs[0].token_ids) for output in outputs] == expected


def test_it_predicts_plays_it_has_not_read(shared: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    plays = shared / "data" / "shakespeare" / "input.txt"
    if not plays.is_file():
        pytest.skip(f"there is no {plays}")
    unread = plays.read_text(encoding="utf-8")[-HELD_OUT_CHARACTERS:]
    passage = unread[unread.index("\n\n") + 2 :][:PASSAGE_CHARACTERS]
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    assert bits_a_byte(model, tokenizer, passage) < MOST_BITS
    torch.manual_seed(0)
    unlearned = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(FOLDER), dtype=torch.float32)
    assert bits_a_byte(unlearned, tokenizer, passage) > 1.5 * MOST_BITS


def test_sampled_as_it_asks_to_be_it_lets_people_speak(llm: LLM) -> None:
    params = replace(llm.default_sampling_params, seed=1, max_tokens=160)
    assert not params.is_greedy
    (output,) = llm.generate("", params)
    assert SPEAKER.search(output.outputs[0].text)
