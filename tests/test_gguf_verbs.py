"""The verbs take a GGUF file where they take a folder, and answer as they do from the checkpoint it was made of."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from transformers import AutoConfig
from typer.testing import CliRunner

from gguf_models import write_gguf
from test_gguf_tokenizer import write_stories
from windlass.cli.main import app
from windlass.facts.batch_row import BatchRow
from windlass.jobs.prompt_lengths import prompt_lengths
from windlass.jobs.question_file import read_rows

PROMPT = "Once upon a time, there was a"


@pytest.fixture(scope="module")
def stories(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `dense`, beside which is the file model.gguf with the same numbers and tokenizer."""
    own = shared / "models" / "stories-260k"
    if not own.is_dir():
        pytest.skip(f"there is no folder {own}")
    folder = tmp_path_factory.mktemp("stories") / "dense"
    shutil.copytree(own, folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    write_gguf(
        folder, AutoConfig.from_pretrained(own), "LLAMA", ("Q8_0",), vocabulary=partial(write_stories, folder=own)
    )
    return folder


def said(*arguments: object, given: str | None = None) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=given)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_run_answers_as_from_the_folder(stories: Path) -> None:
    file = stories.with_name("model.gguf")
    settings = (PROMPT, "--max-tokens", 24, "--temperature", 0, "--dtype", "float32")
    answer = said("run", file, *settings)
    assert answer == said("run", stories, *settings) and len(answer) > 40


def test_batch_answers_as_from_the_folder(stories: Path, tmp_path: Path) -> None:
    rows, answers = tmp_path / "in.jsonl", []
    rows.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in (PROMPT, "The cat")))
    for place in (stories, stories.with_name("model.gguf")):
        out = tmp_path / f"{place.name}.jsonl"
        said("batch", place, "-i", rows, "-o", out, "--max-tokens", 8, "--temperature", 0, "--dtype", "float32")
        answers.append([json.loads(line)["response"]["body"]["choices"] for line in out.read_text().splitlines()])
    assert answers[0] == answers[1] and len(answers[0]) == 2


def test_plan_counts_prompts_by_the_tokenizer_in_the_file(stories: Path, tmp_path: Path) -> None:
    rows = tmp_path / "in.jsonl"
    rows.write_text(json.dumps({"prompt": PROMPT, "max_tokens": 8}) + "\n")
    file = stories.with_name("model.gguf")
    found = json.loads(said("plan", file, "-i", rows, "--machine", "rtx3090", "--host-memory", "8GiB", "--json"))
    (row,) = [row for row in read_rows(str(rows)) if isinstance(row, BatchRow)]
    counted = prompt_lengths([row], str(file))
    assert counted == prompt_lengths([row], str(stories)) and counted.lens == (found["workload"]["prompt_len"],)


def test_a_file_without_a_prompt_is_a_model(stories: Path) -> None:
    file = stories.with_name("model.gguf")
    result = CliRunner().invoke(app, ["run", str(file)])
    assert result.exit_code == 2
    assert f"{file} names a model, so PROMPT is missing" in " ".join(result.output.split())
