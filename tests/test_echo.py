"""Rows of a batch that ask for `echo`: the prompt comes back with its log probabilities, transformers' own."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from checkpoints import byte_llama
from windlass.engine.llm import LLM
from windlass.facts.batch_answer import answer
from windlass.facts.batch_row import BatchRow, parse_rows
from windlass.jobs.batch.ask import Ask, Question
from windlass.jobs.batch.engine_call import EngineCall
from windlass.jobs.batch.feed import workload_of
from windlass.jobs.batch.question import question

TEXT = "Once upon a time"


def answered(folder: str, *bodies: dict[str, Any]) -> list[Any]:
    """The first choice of each body's answer."""
    rows = parse_rows([json.dumps({"url": "/v1/completions", "body": body}).encode() for body in bodies])
    with LLM(folder, unproven=True) as llm:
        engine, asks = EngineCall(llm), list[Ask]()
        for row in rows:
            assert isinstance(row, BatchRow)
            item = question(engine, row, llm.default_sampling_params)
            assert isinstance(item, Question)
            asks.append(Ask(item))
        planned = workload_of(asks, engine.max_model_len)
        assert planned.scored
        engine.make_ready(planned)
        plan, found = llm.plan, dict(engine.answered(asks, planned, stream=False, until=lambda: False))
        assert llm.plan is plan, "the model was loaded for this"
    lines = [json.loads(json.dumps(answer(ask.question.row, found[ask.number], "m", 0))) for ask in asks]
    return [line["response"]["body"]["choices"][0] for line in lines]


def test_scores_of_a_prompt_as_text_and_as_ids_with_and_without_an_answer(tmp_path: Path) -> None:
    folder = byte_llama(tmp_path / "model")
    asked = {"prompt": TEXT, "echo": True, "logprobs": 2, "temperature": 0}
    with LLM(folder, unproven=True) as llm:
        ids = llm.tokenizer.encode(TEXT)
    scores, both, from_ids = answered(
        folder, asked | {"max_tokens": 0}, asked | {"max_tokens": 3}, asked | {"max_tokens": 0, "prompt": ids},
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        table = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    wanted = table[:-1].gather(1, torch.tensor(ids)[1:, None])[:, 0].tolist()
    assert scores["text"] == TEXT and scores["finish_reason"] == "length"
    logprobs = scores["logprobs"]
    assert logprobs["token_logprobs"][0] is None and logprobs["top_logprobs"][0] is None
    assert logprobs["token_logprobs"][1:] == pytest.approx(wanted, abs=1e-4)
    best = [max(top.values()) for top in logprobs["top_logprobs"][1:]]
    assert best == pytest.approx(table[:-1].max(-1).values.tolist(), abs=1e-4)
    assert logprobs["tokens"] == [f"token_id:{token}" for token in ids], "bytes have no text on their own"
    assert from_ids["logprobs"] == logprobs and from_ids["text"].endswith(TEXT)
    assert both["text"].startswith(TEXT)
    assert both["logprobs"]["token_logprobs"][: len(ids)] == logprobs["token_logprobs"]
    assert len(both["logprobs"]["tokens"]) == len(ids) + 3
