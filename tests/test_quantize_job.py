"""`windlass quantize`: what it writes is what packing each matrix gives, whatever was interrupted on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints import byte_llama, random_model, random_prompts, save
from windlass.cli.main import app
from windlass.engine.llm import LLM
from windlass.engine.packing import folder as packed_folder
from windlass.engine.packing import journal
from windlass.engine.packing import lane as pack_lane
from windlass.engine.packing.pack import quantize
from windlass.errors import CheckpointError, StorageError, UnsupportedModel, UsageError
from windlass.facts import packed_files
from windlass.facts.checkpoint_facts import read_checkpoint
from windlass.facts.packed_files import PackPiece
from windlass.facts.progress import Progress
from windlass.jobs import own_text
from windlass.kernels.encodings.blocks import unpack
from windlass.kernels.quantiser import PACKINGS, packed

KEPT = ("embed", "lm_head", "norm", "gate.weight", "bias")


def ignore(event: Progress) -> None:
    """Nobody watches."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(byte_llama(tmp_path / "model"))


@pytest.fixture(params=["llama", "mixtral", "phi3", "opt", "qwen3_moe"])
def family(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save(random_model(request.param), tmp_path / request.param)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("to", ["int4", "int8"])
def test_every_matrix_of_a_layer_is_packed_and_the_rest_is_copied(family: Path, to: str, tmp_path: Path) -> None:
    result = quantize(family, tmp_path / "out", to, ignore)
    before, after = load_file(family / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, weight in before.items():
        if weight.ndim == 1 or any(kept in name for kept in KEPT):
            assert torch.equal(after[name], weight), name
        else:
            assert torch.equal(after[name], packed(weight, PACKINGS[to]).blocks), name
    assert result.packed_tensors == sum(tensor.dtype == torch.uint8 for tensor in after.values())
    assert result.bytes_out == (tmp_path / "out" / "model.safetensors").stat().st_size


def test_a_packed_model_answers_as_one_with_its_numbers_unpacked(tmp_path: Path) -> None:
    family = save(random_model("mixtral"), tmp_path / "mixtral")
    quantize(family, tmp_path / "out", "int8", ignore)
    settings = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    tensors = load_file(family / "model.safetensors")
    for name, blocks in load_file(tmp_path / "out" / "model.safetensors").items():
        if blocks.dtype == torch.uint8:
            rows, columns = tensors[name].shape
            assert settings["shapes"].get(name, [rows, columns]) == [rows, columns]
            numbers = unpack(PACKINGS["int8"], {"blocks": blocks}, (rows, columns), 0, rows, torch.float32)
            tensors[name] = numbers.contiguous()
    shutil.copytree(family, tmp_path / "dense")
    save_file(tensors, tmp_path / "dense" / "model.safetensors", metadata={"format": "pt"})
    prompts = [{"prompt_token_ids": ids} for ids in random_prompts(5, 17)]
    answers = []
    for folder in (tmp_path / "out", tmp_path / "dense"):
        with LLM(folder, dtype="float32") as llm:
            answers.append([output.outputs[0].token_ids for output in llm.generate(prompts)])
    assert answers[0] == answers[1]


def test_the_result_holds_what_the_model_needs(model: Path, tmp_path: Path) -> None:
    quantize(model, tmp_path / "out", "int4", ignore)
    out, config = files_of(tmp_path / "out"), json.loads((tmp_path / "out" / "config.json").read_text())
    assert sorted(out) == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert out["tokenizer.json"] == (model / "tokenizer.json").read_bytes()
    own = config.pop("quantization_config")
    assert config == json.loads((model / "config.json").read_text())
    assert {key: own[key] for key in ("quant_method", "format", "bits", "group_size", "calibrated")} == {
        "quant_method": "windlass", "format": 1, "bits": 4, "group_size": 64, "calibrated": False,
    }  # fmt: skip


def test_several_files_are_one_checkpoint(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantize(model, tmp_path / "one", "int4", ignore)
    monkeypatch.setattr(packed_files.output_files, "__defaults__", (40_000,))
    quantize(model, tmp_path / "many", "int4", ignore)
    one, many = (read_checkpoint(tmp_path / name).tensors for name in ("one", "many"))
    assert len({fact.file for fact in many.values()}) > 2 and one.keys() == many.keys()
    for name in one:
        assert bytes_of(one[name]) == bytes_of(many[name])


def bytes_of(fact: object) -> bytes:
    with open(fact.file, "rb") as file:
        file.seek(fact.offset)
        return file.read(fact.nbytes)


class Stop(BaseException):
    """The job is killed."""


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_files, "MOST_PIECE_BYTES", 4096)
    monkeypatch.setattr(pack_lane, "PIECES_BETWEEN_FLUSHES", 3)


def stopped_after(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the job stop when so many pieces have been told as durable."""
    original = pack_lane.note

    def noting(folder: Path, durable: object) -> None:
        original(folder, durable)
        if durable.pieces >= pieces:
            raise Stop

    monkeypatch.setattr(pack_lane, "note", noting)


def count_packed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counted = []
    original: Callable[..., object] = pack_lane.packed_piece

    def counting(piece: PackPiece, *rest: object) -> object:
        counted.append(piece.rows * piece.columns)
        return original(piece, *rest)

    monkeypatch.setattr(pack_lane, "packed_piece", counting)
    return counted


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("pieces", [3, 30, 60])
def test_a_killed_job_goes_on_and_gives_the_same_bytes(model: Path, tmp_path: Path, pieces: int) -> None:
    whole = quantize(model, tmp_path / "whole", "int4", ignore)
    with pytest.MonkeyPatch.context() as patch:
        stopped_after(pieces, patch)
        with pytest.raises(Stop):
            quantize(model, tmp_path / "out", "int4", ignore)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial" / "config.json").exists()
    with pytest.MonkeyPatch.context() as patch:
        counted = count_packed(patch)
        resumed = quantize(model, tmp_path / "out", "int4", ignore)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole") and not (tmp_path / "out.partial").exists()
    assert sum(counted) == resumed.weights_moved and resumed.bytes_moved < whole.bytes_moved
    assert resumed.error == pytest.approx(whole.error)


@pytest.mark.usefixtures("small_pieces")
def test_a_journal_cut_short_counts_for_what_it_has(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize(model, tmp_path / "whole", "int4", ignore)
    with pytest.MonkeyPatch.context() as patch:
        stopped_after(30, patch)
        with pytest.raises(Stop):
            quantize(model, tmp_path / "out", "int4", ignore)
    kept = tmp_path / "out.partial" / "windlass-packing.jsonl"
    kept.write_bytes(kept.read_bytes()[:-9])
    quantize(model, tmp_path / "out", "int4", ignore)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_a_line_of_another_kind_counts_for_nothing(tmp_path: Path) -> None:
    journal.begin(tmp_path, {"to": "int4"})
    journal.note(tmp_path, journal.Durable(3, 0.5, 2.0))
    with open(tmp_path / "windlass-packing.jsonl", "a") as file:
        file.write('{"pieces": "four", "error": 0.5, "power": 2.0}\n{"pieces": 4, "error": 0.5}\n')
    assert journal.read(tmp_path, {"to": "int4"}) == journal.Durable(3, 0.5, 2.0)


@pytest.mark.slow
def test_a_process_killed_at_once_goes_on(tmp_path: Path) -> None:
    model = save(random_model("llama", hidden_size=1024, intermediate_size=4096), tmp_path / "model")
    command = [sys.executable, "-m", "windlass", "quantize", str(model), "--to", "int4", "-o", str(tmp_path / "out")]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None and '"phase": "pack"' in child.stderr.readline()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert not (tmp_path / "out").exists()
    subprocess.run(command, check=True, capture_output=True)
    quantize(model, tmp_path / "whole", "int4", ignore)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


class TestRefusals:
    def test_a_finished_model_says_so(self, model: Path, tmp_path: Path) -> None:
        quantize(model, tmp_path / "out", "int4", ignore)
        with pytest.raises(UsageError, match="out is finished: int4 of this very model; run it"):
            quantize(model, tmp_path / "out", "int4", ignore)
        with pytest.raises(UsageError, match="packed model of 4 bits and not 8; name another --output"):
            quantize(model, tmp_path / "out", "int8", ignore)
        os.utime(model / "config.json", (1, 1))
        with pytest.raises(UsageError, match="packed model of another input.*name another --output"):
            quantize(model, tmp_path / "out", "int4", ignore)

    def test_a_folder_that_is_not_ours(self, model: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "letter.txt").write_text("dear")
        with pytest.raises(UsageError, match="no model that Windlass packed; name another --output"):
            quantize(model, tmp_path / "out", "int4", ignore)
        with pytest.raises(UsageError, match="model is there and no model that Windlass packed"):
            quantize(model, model, "int4", ignore)
        assert (tmp_path / "out" / "letter.txt").read_text() == "dear"

    def test_an_empty_folder_is_filled(self, model: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        quantize(model, tmp_path / "out", "int4", ignore)
        assert (tmp_path / "out" / "config.json").is_file()

    @pytest.mark.usefixtures("small_pieces")
    def test_work_that_was_begun_as_another_job(self, model: Path, tmp_path: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            stopped_after(3, patch)
            with pytest.raises(Stop):
                quantize(model, tmp_path / "out", "int4", ignore)
        with pytest.raises(UsageError, match="its to was 'int4' and is now 'int8'; give what was given then"):
            quantize(model, tmp_path / "out", "int8", ignore)
        os.utime(model / "config.json", (1, 1))
        with pytest.raises(UsageError, match="its source was"):
            quantize(model, tmp_path / "out", "int4", ignore)

    def test_a_disk_without_room(self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(packed_folder.shutil, "disk_usage", lambda path: usage._replace(free=1000))
        with pytest.raises(
            StorageError, match="needs .* kB more in .*, where 1.00 kB are free; free .* there, or take"
        ):
            quantize(model, tmp_path / "out", "int4", ignore)
        assert not (tmp_path / "out.partial").exists()

    def test_a_folder_that_has_no_parent(self, model: Path, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="there is no folder .*nowhere for out; make it"):
            quantize(model, tmp_path / "nowhere" / "out", "int4", ignore)

    def test_weights_that_are_packed_already(self, model: Path, tmp_path: Path) -> None:
        quantize(model, tmp_path / "out", "int4", ignore)
        with pytest.raises(UnsupportedModel, match=r"packed already \(windlass\).*run it as it is"):
            quantize(tmp_path / "out", tmp_path / "again", "int8", ignore)

    def test_weights_that_are_no_numbers_name_their_tensor(self, model: Path, tmp_path: Path) -> None:
        (path,) = model.glob("*.safetensors")
        tensors = load_file(path)
        tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
        save_file(tensors, path)
        with pytest.raises(CheckpointError, match="tensor model.layers.1.mlp.up_proj.weight: 1 weights are infinite"):
            quantize(model, tmp_path / "out", "int4", ignore)
        assert not (tmp_path / "out").exists()

    def test_what_is_kept_is_looked_through_for_no_numbers_too(self, model: Path, tmp_path: Path) -> None:
        (path,) = model.glob("*.safetensors")
        tensors = load_file(path)
        tensors["model.norm.weight"][3] = float("nan")
        save_file(tensors, path)
        with pytest.raises(CheckpointError, match="tensor model.norm.weight: 1 weights are infinite or no numbers"):
            quantize(model, tmp_path / "out", "int4", ignore)
        tensors["model.norm.weight"][3] = float("-inf")  # may be meant, as in a mask
        save_file(tensors, path)
        shutil.rmtree(tmp_path / "out.partial")
        quantize(model, tmp_path / "out", "int4", ignore)

    def test_gpt2_holds_nothing_to_pack(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        transformers = pytest.importorskip("transformers")
        config = transformers.GPT2Config(n_embd=64, n_layer=1, n_head=4, vocab_size=128)
        save(transformers.GPT2LMHeadModel(config), tmp_path / "gpt2")
        with pytest.raises(UnsupportedModel, match="no matrix that can be packed.*run it as it is"):
            quantize(tmp_path / "gpt2", tmp_path / "out", "int4", ignore)


class TestVerb:
    def test_one_object_for_machines(self, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        app(["quantize", str(model), "--to", "int8", "-o", str(tmp_path / "out"), "--json"], standalone_mode=False)
        said = capsys.readouterr()
        result = json.loads(said.out)
        assert result["to"] == "int8" and result["packed_tensors"] == 14 and 0 < result["error"] < 0.01
        first, *_ = said.err.splitlines()
        assert json.loads(first)["phase"] == "pack"
        assert "packed   14 of 21 tensors as int8" in said.err

    def test_an_unknown_format(self, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            app(["quantize", str(model), "--to", "int3", "-o", str(tmp_path / "out")])
        assert ended.value.code == 2
        assert "--to 'int3' is not known; choose int4 or int8" in capsys.readouterr().err

    def test_a_model_that_calibrates_itself(
        self, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(own_text, "SEQUENCES", 3)
        asked = ["quantize", str(model), "--to", "int4", "-o", str(tmp_path / "out"), "--self-calibrate", "--json"]
        app(asked, standalone_mode=False)
        said = capsys.readouterr()
        assert json.loads(said.out)["calibrated"] is True
        assert "calibrating with 192 tokens of what the model writes by itself" in said.err

    @pytest.mark.parametrize("shape", [None, (3, 5)])
    def test_a_model_that_would_not_run_is_refused_before_a_byte_is_written(
        self, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], shape: tuple[int, int] | None
    ) -> None:
        (path,) = model.glob("*.safetensors")
        tensors, name = load_file(path), "model.layers.1.mlp.up_proj.weight"
        tensors.pop(name)
        save_file(tensors if shape is None else tensors | {name: torch.zeros(shape)}, path)
        with pytest.raises(SystemExit) as ended:
            app(["quantize", str(model), "--to", "int4", "-o", str(tmp_path / "out")])
        assert ended.value.code == 1 and name in capsys.readouterr().err
        assert [entry.name for entry in tmp_path.iterdir()] == ["model"]

    def test_a_folder_to_calibrate_with(
        self, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:  # fmt: skip
        asked = ["quantize", str(model), "--to", "int4", "-o", str(tmp_path / "out"), "--calibrate", str(tmp_path)]
        with pytest.raises(SystemExit) as ended:
            app(asked)
        assert ended.value.code == 2
        assert f"{tmp_path} is a folder; name a text" in capsys.readouterr().err

    def test_two_calibrations(self, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        asked = ["quantize", str(model), "--to", "int4", "-o", str(tmp_path / "out")]
        with pytest.raises(SystemExit) as ended:
            app([*asked, "--calibrate", "book.txt", "--self-calibrate"])
        assert ended.value.code == 2
        assert "--calibrate book.txt and --self-calibrate are two calibrations" in capsys.readouterr().err


def test_a_gguf_file_is_refused_by_its_kind(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(
        UnsupportedModel, match="is a GGUF file, which .* cannot be a source of quantize; name a folder"
    ):
        quantize(file, tmp_path / "out", "int4", lambda _: None)
