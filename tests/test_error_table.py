"""Ways to get it wrong, through the real command line: each ends with its exit code and one line that helps.

A row says what was done, the exit code, and what the line must hold: the value that was wrong, what the limit is or
what was found, and the next step. Where a row says `{model}` a tiny model stands, `{folder}` is an empty folder.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
from typer.testing import CliRunner

from checkpoints import byte_llama
from windlass.cli.main import app
from windlass.engine.llm import LLM
from windlass.facts.completion import RequestOutput

SOURCE = Path(__file__).resolve().parent.parent / "src"


@dataclass(frozen=True)
class Wrong:
    """One way to get it wrong. `given` is standard input; `holds` stands in the one line of standard error."""

    name: str
    arguments: tuple[str, ...]
    code: int
    holds: tuple[str, ...]
    given: bytes = b""


RUN = ("run", "{model}", "Once")
CHAT = ("chat", "{model}", "-q")
BATCH = ("batch", "{model}", "-i", "{folder}/in.jsonl", "-o")

COMMAND_LINE = [
    Wrong("unknown verb", ("lift",), 2, ("there is no verb 'lift'", "see `windlass --help`")),
    Wrong("misspelt verb", ("bnech",), 2, ("no verb 'bnech'", "did you mean 'bench'")),
    Wrong("misspelt flag", (*RUN, "--temprature", "1"), 2, ("--temprature", "did you mean --temperature?")),
    Wrong("unknown flag", ("--nope",), 2, ("no option --nope", "see `windlass --help`")),
    Wrong("no value", (*RUN, "--temperature"), 2, ("--temperature needs a value after it",)),
    Wrong(
        "unquoted prompt", (*RUN, "upon", "a"), 2, ("upon a is more than it takes", "quote", "`windlass run --help`")
    ),
    Wrong("no model", ("bench",), 2, ("argument MODEL is missing", "`windlass bench --help`")),
    Wrong("no input", ("batch", "{model}"), 2, ("option --input", "is missing", "`windlass batch --help`")),
    Wrong("model, no prompt", ("run", "{model}"), 2, ("{model} names a model", "PROMPT is missing", "windlass run")),
    Wrong("id, no prompt", ("run", "org/name"), 2, ("org/name names a model", "PROMPT is missing", "windlass chat")),
]

NUMBERS = [
    Wrong("no tokens", (*RUN, "--max-tokens", "0"), 2, ("--max-tokens: 0 is below 1", "see `windlass run --help`")),
    Wrong("words for a number", (*RUN, "--max-tokens", "many"), 2, ("--max-tokens: 'many' is not a whole number",)),
    Wrong("bench of nothing", ("bench", "{model}", "--num-prompts", "-3"), 2, ("--num-prompts: -3 is below 1",)),
    Wrong("bench of all", ("bench", "{model}", "--num-prompts", "9" * 12), 2, ("at most 1000000", "more --rounds")),
    Wrong("bench of a word", ("bench", "{model}", "--rounds", "x"), 2, ("--rounds: 'x' is not a whole number",)),
    Wrong(
        "bench beyond the model",
        ("bench", "{model}", "--prompt-len", "999999"),
        2,
        ("999999 prompt tokens", "exceed the 128", "lower --prompt-len"),
    ),
    Wrong("negative temperature", (*RUN, "--temperature", "-1"), 2, ("temperature must be 0", "got -1.0", "1.0")),
    Wrong("infinite temperature", (*RUN, "--temperature", "inf"), 2, ("--temperature: 'inf' is not finite", "0.7")),
    Wrong("top-p of 3", (*RUN, "--top-p", "3"), 2, ("top_p must be above 0 and at most 1", "got 3.0", "1.0 switches")),
    Wrong("penalty of 0", (*RUN, "--repetition-penalty", "0"), 2, ("repetition_penalty must be above 0", "got 0.0")),
    Wrong("penalty of 3", (*RUN, "--presence-penalty", "3"), 2, ("must be between -2 and 2", "got 3.0", "0.0 switch")),
    Wrong("empty stop", (*RUN, "--stop", ""), 2, ("stop holds an empty string", "leave it out")),
    Wrong(
        "flags that fight",
        (*RUN, "--temperature", "0", "--top-p", "0.5"),
        2,
        ("--temperature 0 always takes the likeliest", "--top-p 0.5 has no effect", "leave one of them out"),
    ),
    Wrong("seed of a half", (*RUN, "--seed", "0.5"), 2, ("--seed: '0.5' is not a whole number",)),
    Wrong("too long a model", (*RUN, "--max-model-len", "4096"), 2, ("--max-model-len 4096", "within 1 and 128")),
]

BUDGETS = [
    Wrong("tiny budget", (*RUN, "--host-memory", "1MiB"), 1, ("the budget is 1.00 MiB", "missing", "--host-memory")),
    Wrong("no size", (*RUN, "--host-memory", "much"), 2, ("'much' is not a size", "write it as 8GiB")),
    Wrong("negative size", (*RUN, "--host-memory", "-4GiB"), 2, ("'-4GiB' is not a size", "write it as 8GiB")),
    Wrong("size of nothing", (*RUN, "--host-memory", "0"), 2, ("must be positive, got '0'", "write it as 8GiB")),
    Wrong("size of 5000 digits", (*RUN, "--host-memory", "9" * 5000), 2, ("is not a size", "write it as 8GiB")),
    Wrong("unit of a megadog", (*RUN, "--host-memory", "4MD"), 2, ("'4MD' is not a size", "512MiB")),
    Wrong("device of no kind", (*RUN, "--device", "abacus"), 2, ("device 'abacus' is not known", "use auto, cpu")),
    Wrong("device that lacks", (*RUN, "--device", "cuda"), 1, ("device 'cuda' was asked for", "use --device cpu")),
    Wrong(
        "memory of no device",
        (*RUN, "--gpu-memory", "8GiB", "--device", "cpu"),
        2,
        ("--gpu-memory has no effect on the CPU", "leave it out"),
    ),
    Wrong(
        "offload folder that is none",
        (*RUN, "--offload-dir", "{folder}/nowhere"),
        2,
        ("--offload-dir", "nowhere is not a folder", "make it, or name another one"),
    ),
    Wrong("quantization", (*RUN, "--quantization", "int3"), 2, ("quantization='int3' is not known", "leave it out")),
    Wrong("dtype of no kind", (*RUN, "--dtype", "int7"), 2, ("dtype 'int7' is not known", "choose one of auto")),
]

MODELS = [
    Wrong("no folder", ("run", "{folder}/none", "Hi"), 1, ("no folder {folder}/none", "check the path", "org/name")),
    Wrong(
        "no model inside", ("run", "{folder}", "Hi"), 1, ("{folder} has no config.json", "give the folder of a model")
    ),
    Wrong(
        "a file", ("run", "{model}/config.json", "Hi"), 1, ("config.json is a file", "give the folder that holds it")
    ),
    Wrong("revision of a folder", (*RUN, "--revision", "v2"), 2, ("no revision 'v2'", "leave the revision out")),
    Wrong("chat with no folder", ("chat", "./none"), 1, ("there is no folder", "none", "check the path")),
    Wrong(
        "id while offline",
        ("run", "org/absent", "Hi"),
        1,
        ("org/absent is neither a folder here nor in the cache", "unset HF_HUB_OFFLINE, or give a local folder"),
    ),
]

PROMPTS = [
    Wrong("empty prompt", ("run", "{model}", ""), 2, ("the prompt is empty", "Once upon a time")),
    Wrong("empty input", ("run", "{model}", "-"), 2, ("standard input is empty", "pipe a text in")),
    Wrong("no text", ("run", "{model}", "-"), 2, ("standard input is not UTF-8 (byte 2)", "iconv"), b"ab\xff"),
    Wrong("long prompt", ("run", "{model}", "y" * 200), 2, ("has 200 tokens", "the model takes 128", "shorten")),
    Wrong("no template", (*RUN, "--chat"), 2, ("has no chat template", "take an instruction-tuned model")),
    Wrong("long message", CHAT, 2, ("has 200 tokens", "takes 128", "/clear"), b"y" * 200 + b"\n"),
    Wrong("message of no text", CHAT, 2, ("line 1 of standard input is not UTF-8",), b"\xff\n"),
    Wrong("message without end", CHAT, 2, ('"""', "keeps open", "not asked"), b'"""Once\n'),
    Wrong(
        "load of another file",
        CHAT,
        2,
        ("config.json is no conversation", 'holds no list "messages"', "as /save writes it"),
        b"/load {model}/config.json\n",
    ),
    Wrong("load of no file", CHAT, 2, ("no file none", "that /save wrote"), b"/load ./none\n"),
    Wrong("save to a full disk", CHAT, 1, ("/dev/full", "No space left"), b"/save /dev/full\n"),
    Wrong("save over a file", CHAT, 2, ("is no conversation", "name another"), b"/save {model}/config.json\n"),
    Wrong("misspelt command", CHAT, 2, ("/sttas is no command", "did you mean /stats"), b"/sttas\n"),
]

FILES = [
    Wrong(
        "no input file", ("batch", "{model}", "-i", "none.jsonl", "-o", "-"), 2, ("no file none.jsonl", "name a file")
    ),
    Wrong(
        "input is a folder",
        ("batch", "{model}", "-i", "{folder}", "-o", "-"),
        2,
        ("{folder} is a folder", "name a file"),
    ),
    Wrong(
        "empty input file", ("batch", "{model}", "-i", "-", "-o", "-"), 2, ("holds no rows", "one JSON object a line")
    ),
    Wrong("output is a folder", (*BATCH, "{folder}"), 2, ("{folder} is a folder", "name a file, as in {folder}/")),
    Wrong("output in no folder", (*BATCH, "{folder}/no/a.jsonl"), 2, ("cannot write", "name a file in a folder")),
    Wrong("output exists", (*BATCH, "{folder}/old.jsonl"), 2, ("old.jsonl exists", "pass --overwrite")),
    Wrong("input is output", (*BATCH, "{folder}/in.jsonl"), 2, ("holds the questions", "name another file")),
    Wrong("two on one output", (*BATCH, "-", "--json"), 2, ("--json and -o - would both", "name a file")),
    Wrong("full disk", (*BATCH, "/dev/full", "-q"), 1, ("/dev/full", "No space left", "Free some space")),
    Wrong("disk of no kind", ("doctor", "{folder}/none"), 1, ("no folder {folder}/none", "name the folder of a model")),
    Wrong("demo in no folder", ("demo", "--folder", "{folder}/none"), 2, ("no folder {folder}/none", "--folder")),
]

PPL = ("eval", "ppl", "{model}", "--text")

TEXTS = [
    Wrong("no such evaluation", ("eval", "pl"), 2, ("there is no verb 'pl'", "did you mean 'ppl'", "windlass eval")),
    Wrong("no text named", ("eval", "ppl", "{model}"), 2, ("option --text is missing", "`windlass eval ppl --help`")),
    Wrong("no text file", (*PPL, "none.txt"), 2, ("there is no file none.txt", "name a file of text")),
    Wrong("text is a folder", (*PPL, "{folder}"), 2, ("--text {folder} is a folder", "name a file")),
    Wrong("empty text", (*PPL, "-"), 2, ("standard input holds no text (0 bytes)", "some pages")),
    Wrong("blank text", (*PPL, "-"), 2, ("standard input holds no text (3 bytes)", "some pages"), b" \n\n"),
    Wrong("text in Latin-1", (*PPL, "-"), 2, ("is no UTF-8 text (byte 3)", "iconv"), b"caf\xe9 noir"),
    Wrong("binary text", (*PPL, "-"), 2, ("is binary, no text (byte 2 is zero)", "name a file of text"), b"GG\0F"),
    Wrong("text of a letter", (*PPL, "-"), 2, ("has 1 token(s)", "takes 2 at least", "longer text"), b"a"),
    Wrong("context of 1", (*PPL, "-", "--context", "1"), 2, ("--context must be 2 or more, got 1",), b"abc"),
    Wrong(
        "context beyond the model",
        (*PPL, "-", "--context", "129"),
        2,
        ("--context 129 is more than the 128", "lower it"),
        b"abc",
    ),
    Wrong(
        "stride over context",
        (*PPL, "-", "--context", "8", "--stride", "9"),
        2,
        ("--stride 9 is more than --context 8", "lower it"),
    ),
    Wrong("convention", (*PPL, "-", "--convention", "gpt"), 2, ("'gpt' is not known", "transformers or llama.cpp")),
    Wrong(
        "stride of llama.cpp",
        (*PPL, "-", "--convention", "llama.cpp", "--stride", "4"),
        2,
        ("--stride 4 has no meaning", "leave it out"),
    ),
    Wrong(
        "against itself",
        (*PPL, "-", "--against-quantization", "none"),
        2,
        ("--against-quantization none is what", "runs with already", "name another one"),
    ),
    Wrong(
        "format to compare with",
        (*PPL, "-", "--against-quantization", "int3"),
        2,
        ("--against-quantization int3 is not known", "use int4 or int8"),
    ),
    Wrong(
        "plan for two", (*PPL, "-", "--against", "b", "--plan", "a"), 2, ("--plan a is for one model", "leave it out")
    ),
]

TABLE = [*COMMAND_LINE, *NUMBERS, *BUDGETS, *MODELS, *PROMPTS, *FILES, *TEXTS]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Llama of 64 dimensions whose tokens are bytes and whose length is 128."""
    return byte_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """No model, but a file of questions and one of earlier answers; relative names are looked for beside it."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "place"
    place.mkdir()
    (place / "in.jsonl").write_text('{"prompt": "Once", "max_tokens": 2}\n')
    (place / "old.jsonl").write_text("{}\n")
    return str(place)


@pytest.fixture(autouse=True)
def no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proving an architecture takes seconds and has tests of its own."""
    monkeypatch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)


def windlass(*arguments: str, given: bytes = b"") -> Any:
    return CliRunner().invoke(app, arguments, input=given, prog_name="windlass")


def assert_one_line_that_helps(code: int, stderr: str, wrong_code: int, *holds: str) -> None:
    assert "Traceback" not in stderr
    lines = [line for line in stderr.splitlines() if not line.startswith('{"event": "progress"')]
    assert code == wrong_code, stderr
    assert len(lines) == 1 and lines[0].startswith("error: "), stderr
    missing = [text for text in holds if text not in lines[0]]
    assert not missing, lines[0]


@pytest.mark.parametrize("wrong", TABLE, ids=[wrong.name for wrong in TABLE])
def test_it_is_said_in_one_line(wrong: Wrong, model: str, folder: str) -> None:
    def filled(text: str) -> str:
        return text.replace("{model}", model).replace("{folder}", folder)

    given = wrong.given.replace(b"{model}", model.encode())
    result = windlass(*map(filled, wrong.arguments), given=given)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert_one_line_that_helps(result.exit_code, result.stderr, wrong.code, *map(filled, wrong.holds))
    assert result.stdout == ""


def test_no_two_rows_have_one_name() -> None:
    assert len({wrong.name for wrong in TABLE}) == len(TABLE) > 50


@pytest.fixture
def damaged(model: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "damaged"))


def shard(folder: Path) -> Path:
    (found,) = folder.glob("*.safetensors")
    return found


def edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


DAMAGES: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "truncated shard": (lambda at: os.truncate(shard(at), 1000), ("is damaged", "expected", "Fetch or save", "again")),
    "missing shard": (lambda at: shard(at).unlink(), ("lacks 1 of 1 shards", "download the missing files")),
    "unknown type": (lambda at: edit_config(at, model_type="novel"), ("the type 'novel'", "update transformers")),
    "quantised": (lambda at: edit_config(at, quantization_config={"quant_method": "hqq"}), ("with hqq", "choose")),
    "no vocabulary": (lambda at: (at / "tokenizer.json").unlink(), ("no vocabulary", "copy it from where")),
    "broken config": (lambda at: (at / "config.json").write_text("{"), ("config.json cannot be read", "fetch")),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("verb", ["run", "chat"])
def test_a_damaged_model_is_said_in_one_line(verb: str, damage: str, damaged: Path) -> None:
    spoil, holds = DAMAGES[damage]
    spoil(damaged)
    result = windlass(verb, str(damaged), *(["Once"] if verb == "run" else []), "-q")
    assert_one_line_that_helps(result.exit_code, result.stderr, 1, str(damaged), *holds)


def test_an_architecture_that_is_not_proven(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    (damaged / "config.json").write_text(json.dumps({"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 2}))
    result = windlass("run", str(damaged), "Once")
    assert_one_line_that_helps(result.exit_code, result.stderr, 1, "mamba is not proven", "choose another model")


def test_a_gated_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def gated(*_: object, **__: object) -> None:
        response = SimpleNamespace(status_code=403, headers={}, request=None)
        raise GatedRepoError("Access to model org/gated is restricted", response=response)

    monkeypatch.setattr("windlass.model.hub.HfApi", lambda: SimpleNamespace(model_info=gated))
    monkeypatch.setattr("windlass.model.hub.snapshot_download", absent_from_the_cache)
    result = windlass("run", "org/gated", "Once")
    assert_one_line_that_helps(
        result.exit_code, result.stderr, 1, "org/gated is gated", "accept its licence", "HF_TOKEN"
    )


def test_a_bad_row_costs_only_itself_and_says_its_line(model: str, folder: str) -> None:
    Path(folder, "in.jsonl").write_bytes(b'{"prompt": "Once", "max_tokens": 1}\n{"prompt":\n\xff\n')
    answers = Path(folder, "out.jsonl")
    result = windlass("batch", model, "-i", f"{folder}/in.jsonl", "-o", str(answers))
    assert (result.exit_code, "1 of 3 answered, 2 refused (lines 2, 3)" in result.stderr) == (0, True), result.stderr
    errors = [json.loads(line)["error"] for line in answers.read_text().splitlines()]
    assert [error and error["line"] for error in errors] == [None, 2, 3]
    assert "JSON" in errors[1]["message"] and "UTF-8" in errors[2]["message"]


def test_a_budget_beyond_the_machine_is_warned_of_and_kept(model: str) -> None:
    result = windlass("run", model, "Once", "--max-tokens", "2", "--host-memory", "900TiB", "-q")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: --host-memory 900 TiB is more than the ")
    assert "that this process can have here now" in result.stderr and "MiB stays inside" in result.stderr


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes with the third output of every stream."""
    stream = LLM.stream

    def short(self: LLM, *arguments: Any) -> Iterator[RequestOutput]:
        for number, output in enumerate(stream(self, *arguments)):
            if number == 2:
                raise KeyboardInterrupt
            yield output

    monkeypatch.setattr(LLM, "stream", short)


@pytest.mark.usefixtures("interrupted")
def test_ctrl_c_in_a_chat_from_a_pipe_ends_it_with_130(model: str) -> None:
    result = windlass("chat", model, "-q", given=b"Once\nTwice\n")
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


def process(*arguments: str, **settings: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "windlass", *arguments],
        env=dict(os.environ) | {"PYTHONPATH": str(SOURCE)}, stderr=subprocess.PIPE, text=True, **settings,
    )  # fmt: skip


class TestAProcessOfItsOwn:
    def test_misuse(self) -> None:
        with process("bnech", stdout=subprocess.PIPE) as ran:
            out, err = ran.communicate()
        assert_one_line_that_helps(ran.returncode, err, 2, "did you mean 'bench'")
        assert out == ""

    def test_full_disk_for_standard_output(self) -> None:
        with open("/dev/full", "w") as full, process("version", stdout=full) as ran:
            _, err = ran.communicate()
        assert_one_line_that_helps(ran.returncode, err, 1, "standard output", "No space left", "free some space")

    def test_output_that_its_encoding_cannot_carry_is_escaped(self, folder: str) -> None:
        program = (
            "import sys\nfrom windlass.cli import main, version\n"
            "version.platform.python_version = lambda: '3.\u03b1'\nsys.argv = ['windlass', 'version']\nmain.main()"
        )
        environ = dict(os.environ) | {"PYTHONPATH": str(SOURCE), "PYTHONIOENCODING": "ascii"}
        ran = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stderr) == (0, "") and "3.\\u03b1" in ran.stdout

    @pytest.mark.parametrize(
        ("closed", "arguments", "code"),
        [(">&-", "version", 0), ("<&-", "run -", 2), ("<&-", "batch model -i - -o -", 2), ("2>&-", "lift", 2)],
    )
    def test_a_stream_that_is_closed_is_as_if_nothing_were_there(self, closed: str, arguments: str, code: int) -> None:
        line = f"{sys.executable} -m windlass {arguments} {closed}"
        environ = dict(os.environ) | {"PYTHONPATH": str(SOURCE)}
        ran = subprocess.run(["sh", "-c", line], env=environ, capture_output=True, text=True, check=False)
        assert ran.returncode == code and "Traceback" not in ran.stderr and "Exception" not in ran.stderr

    def test_closed_pipe(self) -> None:
        """Closed before the process begins: it might else write all it has before anybody closes anything."""
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "wb") as pipe, process("--help", stdout=pipe) as ran:
            _, err = ran.communicate()
        assert (err, ran.returncode) == ("", 1)

    @pytest.mark.parametrize("module", ["typer", "windlass.cli.batch", "rich", "dataclasses"])
    def test_ctrl_c_while_the_verbs_are_imported(self, module: str) -> None:
        program = (
            "import signal, sys\nfrom windlass.__main__ import main\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "class Pressed:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            f"        if name == {module!r}: signal.raise_signal(signal.SIGINT)\n"
            "sys.meta_path.insert(0, Pressed())\n"
            "sys.argv = ['windlass', '--help']\nmain()"
        )
        environ = dict(os.environ) | {"PYTHONPATH": str(SOURCE)}
        ran = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "interrupted\n")

    def test_ctrl_c(self) -> None:
        """The signal comes while a verb loads what it computes with."""
        program = (
            "import signal, sys\nfrom windlass.__main__ import main\nfrom windlass.cli import doctor\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "doctor.late = lambda module: signal.raise_signal(signal.SIGINT)\n"
            "sys.argv = ['windlass', 'doctor']\nmain()"
        )
        environ = dict(os.environ) | {"PYTHONPATH": str(SOURCE)}
        ran = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "interrupted\n")


def absent_from_the_cache(*_: object, **__: object) -> None:
    raise LocalEntryNotFoundError("not here")
