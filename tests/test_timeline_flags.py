"""`--timeline` and `--plot` write what a run did, if interrupted too; what cannot be written is refused at once."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from checkpoints import byte_llama
from windlass.cli.main import app
from windlass.engine.generation import Generation
from windlass.facts.time_span import TimeSpan
from windlass.jobs.timeline_file import add_to_timeline, read_timeline

MATPLOTLIB = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason='pip install "windlass[plot]"')


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return byte_llama(tmp_path_factory.mktemp("models") / "tiny")


def windlass(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments, prog_name="windlass")


def verbs(model: str, folder: Path) -> Iterator[tuple[str, ...]]:
    questions = folder / "questions.jsonl"
    questions.write_text('{"prompt": "Once"}\n{"prompt": "upon"}\n')
    yield "run", model, "Once", "--max-tokens", "6"
    yield "batch", model, "-i", str(questions), "-o", str(folder / "answers.jsonl"), "--max-tokens", "6"
    yield "bench", model, "--prompt-len", "4", "--gen-len", "6", "--num-prompts", "2"


def test_every_verb_that_runs_writes_what_its_lanes_did(model: str, tmp_path: Path) -> None:
    for number, verb in enumerate(verbs(model, tmp_path)):
        file = tmp_path / f"{number}.json"
        result = windlass(*verb, "--timeline", str(file))
        assert result.exit_code == 0, result.output
        assert f"spans in {file}, to open in ui.perfetto.dev" in result.stderr.replace("\n", " ")
        (spans,) = read_timeline(file).values()
        assert {f"compute layer {layer}" for layer in range(2)} <= {span.name.partition(" rows")[0] for span in spans}


def test_a_forecast_in_the_file_stays_beside_the_run(model: str, tmp_path: Path) -> None:
    file, forecast = tmp_path / "t.json", [TimeSpan("disk", "read layer 0", 0.0, 1.5)]
    add_to_timeline(file, "forecast", forecast)
    assert windlass("run", model, "Once", "--max-tokens", "4", "--timeline", str(file)).exit_code == 0
    found = read_timeline(file)
    assert found["forecast"] == forecast and found["measured"]


def test_an_interrupted_run_leaves_its_timeline(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Generation.run_line

    def interrupted(self: Generation, line: Any) -> Iterator[Any]:
        for number, output in enumerate(whole(self, line)):
            if number == 3:
                raise KeyboardInterrupt
            yield output

    monkeypatch.setattr(Generation, "run_line", interrupted)
    file = tmp_path / "t.json"
    result = windlass("run", model, "Once", "--max-tokens", "20", "--timeline", str(file))
    assert result.exit_code == 130
    names = [span.name for span in read_timeline(file)["measured"]]
    assert names.count("compute layer 1 rows 0:1") == 3, "the pass of the fourth token is whole"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--timeline", "none/t.json"), "there is no folder none for the timeline"),
        (("--plot", "picture.gif"), "--plot picture.gif is neither .png nor .svg"),
        (("--plot", "none/p.png"), "there is no folder none for the picture"),
        (("--timeline", "thesis.json"), "thesis.json holds no JSON, so no timeline"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_opened(
    flags: tuple[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("thesis.json").write_text("a thesis")
    result = windlass("run", "no/such-model", "Once", *flags)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {message}") and result.stderr.count("\n") == 1
    assert Path("thesis.json").read_text() == "a thesis"


def test_a_missing_matplotlib_is_named_with_the_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = windlass("run", "no/such-model", "Once", "--plot", "p.png")
    assert result.exit_code == 2
    assert 'pip install "windlass[plot]"' in result.stderr


@MATPLOTLIB
@pytest.mark.parametrize("picture", ["p.png", "p.SVG"])
def test_a_picture_is_drawn_with_every_lane_that_worked(model: str, tmp_path: Path, picture: str) -> None:
    timeline, file = tmp_path / "t.json", tmp_path / picture
    add_to_timeline(timeline, "forecast", [TimeSpan("disk", "read layer 0", 0.0, 0.5)])
    result = windlass("run", model, "Once", "--max-tokens", "6", "--timeline", str(timeline), "--plot", str(file))
    assert result.exit_code == 0, result.output
    if picture == "p.png":
        assert file.read_bytes().startswith(b"\x89PNG")
    else:
        text = " ".join(node.text or "" for node in ElementTree.parse(file).iter())
        comments = file.read_text()
        assert ElementTree.parse(file).getroot().tag.endswith("svg") and text
        for label in ("disk, forecast", "compute, forecast", "compute, measured", "the whole run", "seconds"):
            assert f"<!-- {label}" in comments, label
        assert "device-to-host" not in comments, "a lane that nobody used has no row"


def test_json_on_standard_output_is_untouched(model: str, tmp_path: Path) -> None:
    result = windlass("run", model, "Once", "--max-tokens", "3", "--json", "--timeline", str(tmp_path / "t.json"))
    assert json.loads(result.stdout)["report"]["promise"] is None
