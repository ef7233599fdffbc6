"""An output of nothing but error rows is no reason not to run a batch again; anything else is somebody's own."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from windlass.cli.main import app
from windlass.facts.batch_answer import refusal
from windlass.facts.batch_row import BadRow
from windlass.jobs.answers.refusals import only_refusals
from windlass.packaged_model import packaged_model_folder

ERROR = json.dumps(refusal(BadRow(1, "a", "no")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ERROR + "\n", True),
        (f"{ERROR}\n{ERROR}\n", True),
        ("", False),
        (ERROR + "\nmine\n", False),
        ('{"error": {}}\n', False),
        (ERROR.replace('"response": null', '"response": {}'), False),
    ],
)
def test_only_error_rows_are_nobodys(text: str, expected: bool, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text(text)
    assert only_refusals(file) is expected
    assert not only_refusals(tmp_path / "missing.jsonl") and not only_refusals(tmp_path)


def test_a_batch_of_bad_rows_is_corrected_and_asked_again(tmp_path: Path) -> None:
    rows, answers = tmp_path / "rows.jsonl", tmp_path / "answers.jsonl"
    command = ["batch", str(packaged_model_folder()), "-i", str(rows), "-o", str(answers), "-q"]
    rows.write_text('{"prompt": 5}\n')
    assert CliRunner().invoke(app, command).exit_code == 1
    rows.write_text('{"prompt": "Once", "max_tokens": 2}\n')
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.stderr
    assert json.loads(answers.read_text())["error"] is None
