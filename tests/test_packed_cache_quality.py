"""What packing keys and values costs on models that have learned something: perplexity and the likeliest token.

A text of the model's own is read a token at a time, so that every token sees packed all that it would see when writing.
"""

import math
from pathlib import Path

import pytest
import torch

from windlass.engine.llm import LLM
from windlass.engine.row import RowSpan
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.packaged_model import packaged_model_folder

TOKENS = 300


def read(folder: Path, kept_as: str, text: tuple[int, ...]) -> tuple[float, list[int]]:
    """Mean negative log-likelihood of the tokens behind the first, and the likeliest token at each."""
    with LLM(folder, device="cpu", dtype="float32", kv_cache_dtype=kept_as) as llm:
        llm.prepare(Workload(1, len(text), 1))
        engine = llm._engine
        assert engine is not None
        engine.cache.table.reserve(0, len(text))
        rows = [
            next(iter(engine.runner.run_pass([RowSpan(0, [token], at, len(text), True)]))).clone()
            for at, token in enumerate(text[:-1])
        ]
    logits = torch.cat(rows).float()
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(text[1:]))
    return loss.item(), logits.argmax(-1).tolist()


def written_by(folder: Path) -> tuple[int, ...]:
    drawn = SamplingParams(max_tokens=TOKENS, temperature=0.8, seed=1, ignore_eos=True)
    with LLM(folder, device="cpu", dtype="float32") as llm:
        (output,) = llm.generate("Once upon a time", drawn)
    return (*output.prompt_token_ids, *output.outputs[0].token_ids)


@pytest.fixture(params=["packaged", "stories-260k"])
def folder(request: pytest.FixtureRequest) -> Path:
    if request.param == "packaged":
        return packaged_model_folder()
    shared: Path = request.getfixturevalue("shared")
    return shared / "models" / request.param


@pytest.mark.slow
def test_int8_costs_a_thousandth_of_perplexity_and_int4_a_fiftieth(folder: Path) -> None:
    text = written_by(folder)
    exact, likeliest = read(folder, "auto", text)
    for kept_as, rise, agreeing in (("int8", 1e-3, 0.99), ("int4", 2e-2, 0.95)):
        loss, theirs = read(folder, kept_as, text)
        assert math.exp(loss - exact) - 1 < rise, kept_as
        assert sum(a == b for a, b in zip(likeliest, theirs, strict=True)) >= agreeing * len(likeliest), kept_as
        assert loss != exact, "nothing was packed"
