"""The command line: help at once, one line for an error, the promised exit codes, results apart from progress."""

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from checkpoints import byte_llama
from windlass import __version__
from windlass.cli.budget_flags import BudgetFlags
from windlass.cli.main import app
from windlass.engine.llm import LLM
from windlass.facts.completion import RequestOutput

SOURCE = Path(__file__).resolve().parent.parent / "src"
COSTS = ("cost job", "cost serve", "cost search", "cost train", "cost trajectory")
VERBS = ("run", "chat", "batch", "bench", "plan", "doctor", "eval ppl", *COSTS, "demo", "jobs", "version")


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Llama of 64 dimensions whose tokens are bytes."""
    return byte_llama(tmp_path_factory.mktemp("models") / "tiny")


def windlass(*arguments: str, given: str | bytes | None = None) -> Any:
    return CliRunner().invoke(app, arguments, input=given, prog_name="windlass")


def process(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "windlass", *arguments]


def environment() -> dict[str, str]:
    return dict(os.environ) | {"PYTHONPATH": str(SOURCE)}


def test_no_verb_shows_what_it_is_and_three_commands_to_begin_with() -> None:
    result = windlass()
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Windlass {__version__}: language models far larger than memory")
    tried = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("  windlass ")]
    assert tried == ["chat", "run", "doctor"]
    assert "windlass --help lists every verb" in result.stdout
    assert all(len(line) <= 120 for line in result.stdout.splitlines())


def test_help_names_every_verb() -> None:
    result = windlass("--help")
    assert result.exit_code == 0
    assert all(verb.split()[0] in result.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example_and_speaks_json(verb: str) -> None:
    result = windlass(*verb.split(), "--help")
    assert result.exit_code == 0
    assert f"windlass {verb}" in result.stdout.split("Examples:")[1]
    assert "--json" in result.stdout


@pytest.mark.parametrize("arguments", [(), ("--help",), *((*verb.split(), "--help") for verb in VERBS), ("version",)])
def test_help_is_instant_since_it_loads_no_torch(arguments: Sequence[str]) -> None:
    program = (
        "import sys\nfrom windlass.cli.main import app\n"
        f"try: app({list(arguments)!r}, prog_name='windlass')\n"
        "finally: print({'torch', 'transformers'} & set(sys.modules), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "set()"


REFUSALS = (
    ("lift",), ("run", "model", "Once", "--max-tokens", "0"), ("run", "model", "Once", "--top-p", "3"),
    ("run", "model", "Once", "--device", "abacus"), ("run", "model", "Once", "--device", "sim"),
    ("chat", "model", "--dtype", "int7"), ("chat", "model", "--quantization", "int3"),
    ("bench", "model", "--host-memory", "much"), ("bench", "model", "--gpu-memory", "1GB", "--device", "cpu"),
    ("bench", "model", "--offload-dir", "/no/such/folder"), ("bench", "--shape", "opt-6.8b"), ("bench",),
    ("bench", "model", "--percent", "80", "80", "0", "0", "0", "0"),
)  # fmt: skip


@pytest.mark.parametrize("arguments", REFUSALS, ids=" ".join)
def test_a_refusal_of_a_flag_is_instant_since_it_loads_no_torch(arguments: Sequence[str]) -> None:
    program = (
        "import sys\nfrom windlass.__main__ import main\n"
        f"sys.argv = ['windlass', *{list(arguments)!r}]\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (2, "[]\n")
    assert ran.stderr.startswith("error: ")


def test_the_door_imports_next_to_nothing_before_it_is_guarded() -> None:
    program = (
        "import sys; before = set(sys.modules); import windlass.__main__; print(*sorted(set(sys.modules) - before))"
    )
    ran = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["windlass", "windlass.__main__"]


def test_every_verb_that_loads_a_model_takes_the_same_budget_flags() -> None:
    for verb in ("run", "chat", "batch", "bench", "eval ppl"):
        text = windlass(*verb.split(), "--help").stdout
        assert all(f"--{field.name.replace('_', '-')}" in text for field in fields(BudgetFlags))


def test_budget_flags_are_parameters_of_the_engine_with_its_defaults() -> None:
    parameters = inspect.signature(LLM.__init__).parameters
    assert {f.name: f.default for f in fields(BudgetFlags)} == {
        f.name: parameters[f.name].default for f in fields(BudgetFlags)
    }


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("windlass.cli.doctor.late", broken)
    assert isinstance(windlass("doctor").exception, ZeroDivisionError)


def test_run_writes_the_answer_to_standard_output_and_the_report_to_standard_error(tiny_model: str) -> None:
    result = windlass("run", tiny_model, "Once", "--max-tokens", "8", "--temperature", "0")
    assert result.exit_code == 0
    assert result.stdout.endswith("\n") and "tok/s" not in result.stdout
    assert "decode   7 tokens" in result.stderr and "bound by" in result.stderr


def test_run_as_json_holds_text_tokens_and_report(tiny_model: str) -> None:
    result = windlass("run", tiny_model, "-", "--max-tokens", "4", "--json", "--quiet", given="Once\n")
    assert result.stderr == ""
    found = json.loads(result.stdout)
    assert (found["prompt"], len(found["token_ids"]), found["finish_reason"]) == ("Once", 4, "length")
    assert found["report"]["decode_tokens"] == 3


def test_run_streams_what_generate_gives(tiny_model: str) -> None:
    streamed = windlass("run", tiny_model, "Once", "--max-tokens", "12", "--quiet").stdout
    with LLM(tiny_model) as llm:
        (whole,) = llm.generate("Once", replace(llm.default_sampling_params, max_tokens=12))
    assert streamed == whole.outputs[0].text + "\n"


def test_a_length_that_the_model_has_no_room_for_is_cut_and_that_is_said(tiny_model: str) -> None:
    result = windlass("run", tiny_model, "Once", "--max-tokens", "999", "--temperature", "0", "--json", "--quiet")
    found = json.loads(result.stdout)
    assert result.stderr == (
        "warning: --max-tokens 999 is more than the 124 that a prompt of 4 tokens leaves of the 128 this model takes; "
        "the answer ends there at the latest\n"
    )
    assert found["finish_reason"] == "stop" or len(found["token_ids"]) == 124


def test_a_length_that_nobody_asked_for_is_cut_without_a_word(tiny_model: str) -> None:
    assert windlass("run", tiny_model, "Once", "--quiet").stderr == ""


def test_batch_says_once_that_answers_are_cut(tiny_model: str) -> None:
    rows = '{"prompt": "Once"}\n{"prompt": "Twice"}\n{"prompt": "One", "max_tokens": 2}\n'
    result = windlass("batch", tiny_model, "-i", "-", "-o", "-", "--max-tokens", "124", "--quiet", given=rows)
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 3)
    assert result.stderr == (
        "warning: --max-tokens 124 is more than the prompt of row 2, 5 tokens, leaves of the 128 this model takes; "
        "such answers end there at the latest\n"
    )


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes with the third output of every stream."""
    stream, answer = LLM.stream, LLM.answer

    def short(outputs: Iterator[RequestOutput]) -> Iterator[RequestOutput]:
        for number, output in enumerate(outputs):
            if number == 2:
                raise KeyboardInterrupt
            yield output

    monkeypatch.setattr(LLM, "stream", lambda *arguments: short(stream(*arguments)))
    monkeypatch.setattr(
        LLM, "answer", lambda *arguments, **named: short(answer(*arguments, **named | {"stream": True}))
    )


class TestTheModelInTheBox:
    """`run PROMPT` and `run` alone are answered by a model that comes with the package."""

    @pytest.fixture(autouse=True)
    def boxed(self, monkeypatch: pytest.MonkeyPatch, tiny_model: str) -> None:
        box = SimpleNamespace(packaged_model_folder=lambda: Path(tiny_model))
        monkeypatch.setitem(sys.modules, "windlass.packaged_model", box)

    @pytest.mark.parametrize(
        ("argument", "prompt"), [("Once", "Once"), ("Why is 1/2 > 1/3?", "Why is 1/2 > 1/3?"), ("a /b", "a /b")]
    )
    def test_answers_a_prompt_alone_as_if_it_was_named(self, tiny_model: str, argument: str, prompt: str) -> None:
        alone = windlass("run", argument, "--max-tokens", "6")
        named = windlass("run", tiny_model, prompt, "--max-tokens", "6")
        assert (alone.exit_code, alone.stdout) == (0, named.stdout)
        assert "no MODEL named, so the small one in the box answers; name a folder or a hub id" in alone.stderr
        assert "in the box" not in named.stderr

    def test_has_a_prompt_of_its_own(self, tiny_model: str) -> None:
        result = windlass("run", "--max-tokens", "4", "--json", "--quiet")
        assert json.loads(result.stdout)["prompt"] == "Once upon a time"
        assert 'no PROMPT given, so it goes on from "Once upon a time"' in result.stderr

    def test_reads_a_pipe(self) -> None:
        result = windlass("run", "-", "--max-tokens", "4", "--json", given="Twice\n")
        assert json.loads(result.stdout)["prompt"] == "Twice"

    def test_talks(self, tiny_model: str) -> None:
        result = windlass("chat", "--max-tokens", "4", "--json", given="Once\n")
        assert json.loads(result.stdout)["prompt"] == "Once"
        assert "so the small one in the box answers" in result.stderr

    @pytest.mark.parametrize("name", ["./model", "../m", "~/m", "/models/m", "org/name", "a/b/c", "folder/"])
    def test_does_not_take_the_name_of_a_model_for_a_prompt(self, name: str) -> None:
        result = windlass("run", name)
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"{name} names a model, so PROMPT is missing; write `windlass run {name} " in result.stderr

    def test_does_not_take_a_folder_for_a_prompt(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "my model").mkdir()
        monkeypatch.chdir(tmp_path)
        assert "my model names a model, so PROMPT is missing" in windlass("run", "my model").stderr

    def test_does_not_take_a_file_for_a_prompt(self, tmp_path: Path) -> None:
        file = tmp_path / "question.txt"
        file.touch()
        result = windlass("run", str(file))
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"for its text as the prompt write `windlass run - < {file}`" in result.stderr


@pytest.mark.usefixtures("interrupted")
def test_ctrl_c_ends_a_run_with_130_and_one_line(tiny_model: str) -> None:
    result = windlass("run", tiny_model, "Once", "--quiet")
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


@pytest.mark.usefixtures("interrupted")
def test_ctrl_c_leaves_what_there_was_of_a_json_answer(tiny_model: str) -> None:
    result = windlass("run", tiny_model, "Once", "--quiet", "--json")
    assert result.exit_code == 130
    found = json.loads(result.stdout)
    assert (len(found["token_ids"]), found["finish_reason"]) == (2, None)


@pytest.mark.usefixtures("interrupted")
def test_ctrl_c_ends_a_batch_with_the_rows_it_has(tiny_model: str, tmp_path: Path) -> None:
    questions, answers = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    questions.write_text('{"prompt": "a", "max_tokens": 1}\n{"prompt": "b", "max_tokens": 9}\n')
    result = windlass("batch", tiny_model, "-i", str(questions), "-o", str(answers), "--quiet")
    said, how_to_go_on = result.stderr.splitlines()
    assert (result.exit_code, said) == (130, "interrupted: 1 of 2 rows are done")
    assert how_to_go_on.startswith("the same command goes on with the others: windlass")
    assert len(answers.read_text().splitlines()) == 1


def test_batch_answers_a_file_and_tells_a_machine_how_it_went(tiny_model: str, tmp_path: Path) -> None:
    questions, answers = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    questions.write_text('{"custom_id": "a", "prompt": "Once"}\nnonsense\n')
    result = windlass(
        "batch", tiny_model, "-i", str(questions), "-o", str(answers), "--max-tokens", "3", "--json", "-q"
    )
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert (summary["rows"], summary["answered"], summary["refused_lines"]) == (2, 1, [2])
    first, second = [json.loads(line) for line in answers.read_text().splitlines()]
    assert first["response"]["body"]["usage"] == {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}
    assert second["error"]["line"] == 2


def test_batch_between_pipes_writes_only_rows_to_standard_output(tiny_model: str) -> None:
    result = windlass("batch", tiny_model, "-i", "-", "-o", "-", "--max-tokens", "2", given='{"prompt": "Once"}\n')
    assert result.exit_code == 0
    assert json.loads(result.stdout)["error"] is None


def test_batch_without_one_good_row_loads_no_model_and_fails(tmp_path: Path) -> None:
    questions, answers = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    questions.write_text("nonsense\n")
    result = windlass("batch", str(tmp_path / "no-model"), "-i", str(questions), "-o", str(answers))
    assert result.exit_code == 1
    assert "0 of 1 answered, 1 refused (line 1)" in result.stderr
    assert json.loads(answers.read_text())["error"]["line"] == 1


def test_batch_checks_its_files_before_the_model(tmp_path: Path) -> None:
    questions = tmp_path / "in.jsonl"
    questions.write_text('{"prompt": "Once"}\n')
    for target in (questions, tmp_path, tmp_path / "nowhere" / "out.jsonl"):
        result = windlass("batch", "no-such-model", "-i", str(questions), "-o", str(target))
        assert result.exit_code == 2
        assert str(target) in result.stderr
    assert questions.read_text() == '{"prompt": "Once"}\n'


def test_a_model_that_cannot_run_leaves_no_empty_answers(tmp_path: Path) -> None:
    questions, answers = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    questions.write_text('{"prompt": "Once"}\n')
    result = windlass("batch", str(tmp_path / "no-model"), "-i", str(questions), "-o", str(answers))
    assert result.exit_code == 1
    assert not answers.exists()


def test_bench_prints_one_json_object_with_settings_and_measurements(tiny_model: str) -> None:
    result = windlass(
        "bench", tiny_model, "--num-prompts", "2", "--prompt-len", "4", "--gen-len", "3", "--json", "--quiet"
    )
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert (found["prefill_tokens"], found["decode_tokens"], found["decode_passes"]) == (8, 4, 2)
    assert 0 < found["peak_memory"] and found["memory_budget"] > 0


def test_version_is_that_of_the_package() -> None:
    assert json.loads(windlass("version", "--json").stdout)["windlass"] == __version__
    assert f"windlass         {__version__}\n" in windlass("version").stdout
    assert windlass("--version").stdout == windlass("version").stdout


def test_a_reader_that_leaves_early_hears_no_complaint() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as pipe:
        ran = subprocess.run(
            process("version"), env=environment(), stdout=pipe, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (ran.stderr, ran.returncode) == ("", 1)
