"""Answers in a form through the verbs: flags, rows of a batch, a job that is stopped, and every kind of tokenizer."""

import json
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import jsonschema_rs
import pytest
from transformers import AutoConfig
from typer.testing import CliRunner

from fake_llm import FakeLLM
from gguf_models import write_gguf
from job_world import JobWorld
from test_gguf_tokenizer import write_stories
from windlass.cli.main import app
from windlass.engine.llm import LLM
from windlass.facts.job_settings import JobSettings
from windlass.jobs.batch.ending import DONE, STOPPED
from windlass.packaged_model import packaged_model_folder

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "mood": {"enum": ["joyful", "grim", "ängstlich"]},
        "lines": {"type": "array", "items": {"type": "string", "maxLength": 8}, "minItems": 1, "maxItems": 2},
    },
    "required": ["mood", "lines"],
    "additionalProperties": False,
}
MODEL = str(packaged_model_folder())


@pytest.fixture(autouse=True)
def no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proving an architecture takes seconds and has tests of its own."""
    monkeypatch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    return path


def said(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def test_run_answers_in_the_form_that_a_flag_says(schema: Path) -> None:
    asked = ("run", MODEL, "First Citizen:", "-q", "--max-tokens", 200)
    jsonschema_rs.validate(SCHEMA, json.loads(said(*asked, "--schema", schema)))
    assert said(*asked, "--choice", "aye, nay").strip() in ("aye", "nay")
    assert re.fullmatch("Act [IV]{1,3}", said(*asked, "--regex", "Act [IV]{1,3}").strip())
    assert "--schema and --regex both say" in said(*asked, "--schema", schema, "--regex", "a", code=2)
    refused = said(*asked, "--regex", "a(", code=2)
    assert "unclosed group, at character 2 of the expression" in refused and "Traceback" not in refused


def test_rows_of_a_batch_have_the_form_of_the_job_or_their_own(schema: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {},
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "boolean"}}}},
        {"structured_outputs": {"regex": "[0-9]{4}"}, "n": 2, "temperature": 1.0},
        {"structured_outputs": {"json": {"items": {"not": {}}}}},
    ]
    source, target = tmp_path / "rows.jsonl", tmp_path / "answers.jsonl"
    source.write_text("".join(json.dumps({"prompt": "ROMEO:"} | row) + "\n" for row in rows))
    said("batch", MODEL, "-i", source, "-o", target, "-q", "--max-tokens", 200, "--schema", schema)
    *good, bad = [json.loads(line) for line in target.read_text().splitlines()]
    texts = [[choice["text"] for choice in row["response"]["body"]["choices"]] for row in good]
    jsonschema_rs.validate(SCHEMA, json.loads(texts[0][0]))
    assert len(texts[1][0]) > 100 and texts[2][0] in ("true", "false")
    assert all(re.fullmatch("[0-9]{4}", text) for text in texts[3])
    assert "at #/items; change it" in bad["error"]["message"]
    source.write_text(json.dumps({"prompt": "ROMEO:"}) + "\n")
    changed = said("batch", MODEL, "-i", source, "-o", target, "-q", "--max-tokens", 200, "--choice", "a,b", code=2)
    assert "--choice was None, is ['a', 'b']; --schema was {" in changed and "--restart" in changed


def test_a_job_that_was_stopped_inside_an_answer_goes_on_to_the_same_tokens(tmp_path: Path) -> None:
    forms = [{"json": SCHEMA}, {"regex": "[a-z]{30,40}"}, {"json_object": True}, None]
    rows = [
        {"prompt": "JULIET:", "max_tokens": 40, "seed": seed, "temperature": 1.0, "return_token_ids": True}
        | ({} if form is None else {"structured_outputs": form})
        for seed, form in enumerate(forms)
    ]
    answers = []
    with LLM(MODEL, dtype="float32") as llm:
        for name, stops in (("whole", 0), ("stopped", 3)):
            (tmp_path / name).mkdir()
            world = JobWorld(tmp_path / name, settings=JobSettings(checkpoint_every=1))
            world.ask(*rows)
            for _ in range(stops):
                asked = iter(range(7))
                ending = world.start(cast(FakeLLM, llm), lambda asked=asked: next(asked, None) is None)
                assert ending == STOPPED
            assert world.start(cast(FakeLLM, llm)) == DONE
            bodies = [row["response"]["body"]["choices"] for row in world.written()]
            answers.append(bodies)
    assert answers[0] == answers[1] and len(answers[0]) == len(forms)


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_a_tokenizer_with_byte_tokens_spells_the_form_from_a_folder_or_a_gguf_file(
    kind: str, shared: Path, tmp_path: Path
) -> None:
    own = shared / "models" / "stories-260k"
    if not own.is_dir():
        pytest.skip(f"there is no folder {own}")
    model = tmp_path / "dense"
    shutil.copytree(own, model, copy_function=shutil.copyfile)
    model.chmod(0o755)
    if kind == "gguf":
        config = AutoConfig.from_pretrained(own)
        write_gguf(model, config, "LLAMA", ("Q8_0",), vocabulary=partial(write_stories, folder=own))
        model = tmp_path / "model.gguf"
    unicode = SCHEMA | {"properties": SCHEMA["properties"] | {"mood": {"const": "東京 🦙"}}}
    with LLM(str(model), dtype="float32") as llm:
        base = replace(llm.default_sampling_params, max_tokens=120, temperature=1.0)
        forms: list[dict[str, Any]] = [{"json": unicode}, {"choice": ["yes", "naïve"]}, {"regex": "x( a|b){3}"}]
        outs = llm.generate(["Once"] * 3, [replace(base, structured_outputs=form, seed=1) for form in forms])
        answer, choice, pattern = [out.outputs[0].text for out in outs]
        jsonschema_rs.validate(unicode, json.loads(answer))
        assert choice in ("yes", "naïve") and re.fullmatch("x( a|b){3}", pattern)
