"""lm-eval's `local-completions` over a server finds what `LLM.score` finds; skipped where lm_eval is not installed."""

import json
from pathlib import Path
from typing import Any

import pytest

from server_world import KEY, MODEL, Server, model_with_template, running
from windlass import LLM

ROWS = [
    {"question": "ROMEO:\nGood morrow,", "choices": [" my lord", " the sea", " and good"], "answer": 0},
    {"question": "JULIET:\nO,", "choices": [" Romeo", " be", " thou art"], "answer": 2},
    {"question": "Nurse:\nI will", "choices": [" not", " to the king", " Angelica"], "answer": 0},
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_lm_eval_scores_choices_as_the_engine_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    lm_eval: Any = pytest.importorskip("lm_eval")
    model = model_with_template(tmp_path / "box")
    data = tmp_path / "verses.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    task = {
        "task": "verses",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
    }
    with running(Server(model)) as server:
        settings = {
            "model": MODEL,
            "base_url": f"{server.url}/v1/completions",
            "tokenizer": str(model),
            "tokenizer_backend": "huggingface",
            "num_concurrent": 2,
            "add_bos_token": True,
        }
        found = lm_eval.simple_evaluate(model="local-completions", model_args=settings, tasks=[task], log_samples=True)
    with LLM(model, dtype="float32") as llm:
        prompts = [row["question"] for row in ROWS]
        expected = llm.score(prompts, [row["choices"] for row in ROWS])
    samples = sorted(found["samples"]["verses"], key=lambda sample: sample["doc_id"])
    for sample, scores in zip(samples, expected, strict=True):
        told = [response[0] for response in sample["filtered_resps"]]
        assert [float(each) for each in told] == pytest.approx([score.cumulative_logprob for score in scores], abs=1e-3)
