"""The flags of `windlass batch` that make prompts of a table, up to the row that is asked."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from windlass.cli.main import app
from windlass.cli.prompt_flags import PromptFlags
from windlass.errors import UsageError
from windlass.facts.batch_row import BatchRow
from windlass.jobs.question_file import read_rows

SOURCE = Path(__file__).resolve().parent.parent / "src"


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,topic\nHi,tea\n")
    return str(path)


def asked(table: str, flags: PromptFlags) -> object:
    (row,) = read_rows(table, flags.form())
    assert isinstance(row, BatchRow)
    return row.body.prompt or row.body.messages


def test_without_flags_a_table_asks_its_prompts_and_json_lines_what_they_say(table: str) -> None:
    assert PromptFlags().form() is None
    assert asked(table, PromptFlags()) == "Hi"


def test_each_flag_says_what_is_asked(table: str, tmp_path: Path) -> None:
    template = tmp_path / "prompt.j2"
    template.write_text("{{ prompt }}, {{ topic }}?")
    system, user = {"role": "system", "content": "Brief."}, {"role": "user", "content": "Hi"}
    assert asked(table, PromptFlags(column="topic")) == "tea"
    assert asked(table, PromptFlags(template=template)) == "Hi, tea?"
    assert asked(table, PromptFlags(chat=True)) == (user,)
    assert asked(table, PromptFlags(chat=True, system="Brief.")) == (system, user)
    assert asked(table, PromptFlags(template=template, chat=True)) == ({"role": "user", "content": "Hi, tea?"},)


def test_flags_that_contradict_each_other_are_misuse(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"both say what is asked; leave one out, .* as \{\{ text \}\}"):
        PromptFlags(column="text", template=tmp_path / "prompt.j2").form()
    with pytest.raises(UsageError, match="--system is a message of a conversation; give --chat"):
        PromptFlags(system="Brief.").form()


def test_the_verb_takes_a_table_and_says_of_each_row_why_it_was_not_asked(tmp_path: Path) -> None:
    rows, out, template = tmp_path / "rows.csv", tmp_path / "out.jsonl", tmp_path / "prompt.j2"
    rows.write_text("text,id\nHi,a\n,b\n")
    template.write_text("{{ text }} {{ missing }}")
    result = CliRunner().invoke(
        app, ["batch", "no-model-needed", "-i", str(rows), "-o", str(out), "--template", str(template), "-q"]
    )
    assert result.exit_code == 1
    errors = [json.loads(line) for line in out.read_text().splitlines()]
    assert [error["custom_id"] for error in errors] == ["a", "b"]
    assert errors[0]["error"]["message"].startswith("line 2: prompt.j2: 'missing' is undefined")


def test_naming_the_flags_loads_neither_jinja_nor_pyarrow() -> None:
    program = "import sys, windlass.cli.batch\nprint({'jinja2', 'pyarrow', 'torch'} & set(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=False
    )
    assert (ran.stdout.strip(), ran.stderr) == ("set()", "")
