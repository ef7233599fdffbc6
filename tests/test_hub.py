"""A model is found as a folder, or fetched from a hub: only what it needs, only if it fits, and afterwards offline.

The hub is a server on the loopback that speaks the part of the real one's interface that a download uses.
"""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from checkpoints import greedy_answers, random_model, random_prompts, save
from hub_server import NAME, serve
from windlass.engine.llm import LLM
from windlass.engine.packing.journal import begin
from windlass.errors import CheckpointError, ModelNotFound, StorageError, UsageError, WindlassError
from windlass.facts.progress import Progress
from windlass.facts.sampling_params import SamplingParams
from windlass.model.hub import model_folder
from windlass.model.hub_refusal import hub_refusal

SOURCE = Path(__file__).resolve().parent.parent / "src"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    yield from serve(tmp_path, monkeypatch)


def refusal(kind: type[WindlassError], name: str | Path = NAME, revision: str | None = None) -> str:
    with pytest.raises(kind) as error:
        model_folder(name, revision)
    return str(error.value)


class TestAFolder:
    def test_is_taken_as_it_is(self, tmp_path: Path) -> None:
        assert model_folder(tmp_path, None) == tmp_path == model_folder(str(tmp_path), None)

    def test_may_begin_at_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "tiny").mkdir()
        monkeypatch.setenv("HOME", str(tmp_path))
        assert model_folder("~/tiny", None) == tmp_path / "tiny"

    @pytest.mark.parametrize("name", ["./nothing", "../nothing", "~/nothing", "/no/such", "a/b/c", Path("org/tiny")])
    def test_that_does_not_exist_is_not_looked_for_on_the_hub(
        self, name: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        text = refusal(ModelNotFound, name)
        assert f"there is no folder {Path(name).expanduser().absolute()}" in text and "check the path" in text

    def test_that_a_quantize_left_unfinished_says_how_to_go_on(self, tmp_path: Path) -> None:
        (tmp_path / "out.partial").mkdir()
        begin(tmp_path / "out.partial", {"to": "int4"})
        text = refusal(ModelNotFound, tmp_path / "out")
        assert text == f"{tmp_path}/out.partial is a quantize that was stopped; give the same quantize command again"

    def test_is_asked_for_where_a_file_is_given(self, tmp_path: Path) -> None:
        file = tmp_path / "model.safetensors"
        file.touch()
        assert refusal(ModelNotFound, file).startswith(f"{file} is a file; give the folder")

    def test_has_no_revision(self, tmp_path: Path) -> None:
        assert "has no revision 'main'; leave the revision out" in refusal(UsageError, tmp_path, "main")


class TestADownload:
    def test_runs_and_runs_again_without_the_hub(self, hub: SimpleNamespace, tmp_path: Path) -> None:
        model, prompts = random_model("llama"), random_prompts(5)
        folder = save(model, tmp_path / "made")
        hub.repository.files = {file.name: file.read_bytes() for file in folder.iterdir()}
        expected, params = greedy_answers(model, prompts, 4), SamplingParams(max_tokens=4, temperature=0.0)
        for _ in range(2):
            with LLM(NAME) as llm:
                (answer,) = llm.generate([{"prompt_token_ids": prompts[0]}], params)
            assert [list(answer.outputs[0].token_ids)] == expected
            hub.stop()

    def test_is_found_by_a_process_that_is_offline(self, hub: SimpleNamespace) -> None:
        fetched = model_folder(NAME, None)
        program = f"from windlass.model.hub import model_folder\nprint(model_folder({NAME!r}, None))"
        environ = {"HF_HOME": str(hub.cache.parent), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(SOURCE)}
        ran = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False)
        assert (ran.stdout.strip(), ran.stderr) == (str(fetched), "")

    def test_takes_the_weights_and_the_tokenizer_and_nothing_that_runs(self, hub: SimpleNamespace) -> None:
        taken = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model"}
        taken |= {"merges.txt", "vocab.json", "chat_template.jinja", "model.safetensors"}
        left = {"pytorch_model.bin", "modeling_x.py", "tokenizer.py", "x.gguf", "README.md", "consolidated.safetensors"}
        left |= {"onnx/model.safetensors", "training_args.bin"}
        hub.repository.files = {name: name.encode() for name in taken | left}
        folder = model_folder(NAME, None)
        assert {file.name for file in folder.rglob("*")} == taken == set(hub.repository.gets)
        assert (folder / "vocab.json").read_bytes() == b"vocab.json"

    def test_takes_the_shards_that_the_index_names(self, hub: SimpleNamespace) -> None:
        index = {"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}
        files = {name: name.encode() for name in ("config.json", *index["weight_map"].values(), "other.safetensors")}
        hub.repository.files = files | {"model.safetensors.index.json": json.dumps(index).encode()}
        model_folder(NAME, None)
        assert "other.safetensors" not in hub.repository.gets and len(hub.repository.gets) == 4

    def test_happens_once(self, hub: SimpleNamespace) -> None:
        assert model_folder(NAME, None) == model_folder(NAME, "main") == model_folder(NAME, hub.repository.commit)
        assert set(hub.repository.gets.values()) == {1}

    def test_that_broke_off_goes_on_with_the_files_that_lack(self, hub: SimpleNamespace) -> None:
        hub.repository.files["tokenizer.json"] = b"[]"
        hub.repository.broken = {"model.safetensors"}
        text = refusal(ModelNotFound)
        assert hub.endpoint in text and "500" in text and "run again: files that came are kept" in text
        hub.repository.broken = set()
        folder = model_folder(NAME, None)
        assert (folder / "model.safetensors").stat().st_size == 5000
        assert set(hub.repository.gets.values()) == {1}

    def test_tells_how_far_it_has_come(self, hub: SimpleNamespace, capfd: pytest.CaptureFixture[str]) -> None:
        events: list[Progress] = []
        model_folder(NAME, None, events.append)
        assert (events[-1].phase, events[-1].done, events[-1].total) == ("download", 5002, 5002)
        model_folder(NAME, None, events.append)
        assert events.count(events[-1]) == 1
        assert capfd.readouterr() == ("", "")


class TestBeforeADownload:
    def disk(self, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
        monkeypatch.setattr("windlass.model.hub.shutil.disk_usage", lambda path: SimpleNamespace(free=free))

    def test_a_disk_that_is_too_small_is_refused(self, hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
        self.disk(monkeypatch, free=2000)
        text = refusal(StorageError)
        assert f"{NAME} needs 5.00 kB more in {hub.cache}, 2.00 kB are free" in text
        assert "free 3.00 kB there, or set HF_HOME to a folder on a larger disk" in text
        assert not hub.repository.gets

    def test_what_the_cache_holds_already_needs_no_room(
        self, hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model_folder(NAME, None)
        hub.repository.files["config.json"] = b'{"changed": 1}'
        self.disk(monkeypatch, free=20)
        folder = model_folder(NAME, None)
        assert (folder / "config.json").read_bytes() == b'{"changed": 1}'
        assert hub.repository.gets["model.safetensors"] == 1

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
    def test_pickled_weights_are_refused_with_the_line_that_converts_them(
        self, hub: SimpleNamespace, name: str
    ) -> None:
        hub.repository.files = {"config.json": b"{}", name: b"pickle"}
        text = refusal(CheckpointError)
        assert name in text and "can run code" in text
        assert "from_pretrained('org/tiny', dtype='auto').save_pretrained('tiny-safetensors'" in text
        assert not hub.repository.gets

    def test_other_formats_are_refused(self, hub: SimpleNamespace) -> None:
        hub.repository.files = {"config.json": b"{}", "model.onnx": b"ONNX"}
        assert f"{NAME} has no *.safetensors among its 2 files; choose" in refusal(CheckpointError)

    def test_what_is_no_model_is_refused(self, hub: SimpleNamespace) -> None:
        hub.repository.files = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"w"}
        assert f"{NAME} has no config.json among its 2 files" in refusal(CheckpointError)


class TestWhatTheHubRefuses:
    def test_a_gated_model_says_where_to_accept_its_licence(self, hub: SimpleNamespace) -> None:
        hub.repository.status, hub.repository.error_code = 403, "GatedRepo"
        text = refusal(ModelNotFound)
        assert f"{NAME} is gated and a visitor without a token" in text
        assert f"accept its licence at {hub.endpoint}/{NAME}" in text and "HF_TOKEN" in text

    def test_a_model_that_is_not_there(self, hub: SimpleNamespace) -> None:
        text = refusal(ModelNotFound, "org/nothing")
        assert f"org/nothing is neither a folder here nor a model on {hub.endpoint}" in text
        assert "check the spelling, or set HF_TOKEN if the model is private" in text

    def test_a_revision_that_is_not_there(self, hub: SimpleNamespace) -> None:
        text = refusal(ModelNotFound, revision="v9")
        assert f"{NAME} has no revision 'v9'; see {hub.endpoint}/{NAME}/tree/main" in text

    def test_a_token_without_rights(self, hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
        hub.repository.status = 403
        text = refusal(ModelNotFound)
        assert "the account of HF_TOKEN" in text and "check HF_TOKEN" in text and "hf_of_nobody" not in text


class TestWithoutTheHub:
    def test_an_unknown_model_says_to_check_the_network(self, hub: SimpleNamespace) -> None:
        hub.stop()
        text = refusal(ModelNotFound)
        assert f"{NAME} could not be fetched from {hub.endpoint} (ConnectError" in text
        assert f"is not whole in the cache {hub.cache}; check the network" in text

    def test_a_name_that_may_be_a_folders_says_that_there_is_none(self, hub: SimpleNamespace) -> None:
        hub.stop()
        assert refusal(ModelNotFound, "gpt7").startswith("there is no folder gpt7 here, and gpt7 could not be fetched")
        assert "folder" not in refusal(ModelNotFound)

    def test_an_unknown_model_says_that_it_is_set_offline(
        self, hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        text = refusal(ModelNotFound, revision="v2")
        assert f"{NAME} at v2 is neither a folder here nor in the cache {hub.cache}" in text
        assert "unset HF_HUB_OFFLINE, or give a local folder" in text


@pytest.mark.parametrize(
    ("code", "flaw"), [(errno.ENOSPC, "is full"), (errno.EROFS, "cannot be written (Read-only file system)")]
)
def test_a_cache_that_cannot_be_written_is_a_matter_of_storage(code: int, flaw: str) -> None:
    error = hub_refusal(NAME, None, OSError(code, os.strerror(code)))
    assert isinstance(error, StorageError) and flaw in str(error) and "set HF_HOME" in str(error)
