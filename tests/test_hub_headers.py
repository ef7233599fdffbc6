"""A model on a hub is described by its config and the headers of its weights; the weights stay where they are."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants

from checkpoints import random_model, save
from hub_server import NAME, serve
from windlass.errors import CheckpointError, ModelNotFound
from windlass.facts.checkpoint_facts import CheckpointFacts, read_checkpoint
from windlass.facts.safetensors_header import header_bytes
from windlass.jobs import structures
from windlass.jobs.model_description import describe_model
from windlass.jobs.structure_command import ask
from windlass.model import hub_headers
from windlass.model.hub import model_folder
from windlass.model.hub_headers import remote_model

EMPTY = b"{}" + b" " * 6
BIG = 24 << 20


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    monkeypatch.setenv("WINDLASS_CACHE", str(tmp_path / "cache"))
    yield from serve(tmp_path, monkeypatch)


def one_tensor(nbytes: int) -> bytes:
    """A safetensors file."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [nbytes], "data_offsets": [0, nbytes]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(nbytes)


def served(hub: SimpleNamespace, folder: Path) -> CheckpointFacts:
    """Puts a model folder on the hub."""
    hub.repository.files = {file.name: file.read_bytes() for file in folder.iterdir()}
    return read_checkpoint(folder)


def places(checkpoint: CheckpointFacts) -> dict[str, Any]:
    return {
        name: (fact.dtype, fact.shape, fact.file.rpartition("/")[2], fact.offset, fact.nbytes)
        for name, fact in checkpoint.tensors.items()
    }


class TestHeaders:
    @pytest.mark.parametrize("shard", ["5GB", "40KB"])
    @pytest.mark.parametrize("first", [8, 64, 64 * 1024])
    def test_say_what_the_files_would(
        self, hub: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: str, first: int
    ) -> None:
        """Whether a header is longer or shorter than what is asked for first."""
        monkeypatch.setattr(hub_headers, "FIRST_BYTES", first)
        local = served(hub, save(random_model("llama"), tmp_path / "made", shard))
        remote = remote_model(NAME, None)
        assert places(remote.checkpoint) == places(local)
        assert json.loads((remote.folder / "config.json").read_text())["model_type"] == "llama"
        page = f"{hub.endpoint}/{NAME}/resolve/{hub.repository.commit}"
        assert remote.checkpoint.folder == page
        assert all(fact.file.startswith(f"{page}/model") for fact in remote.checkpoint.tensors.values())

    def test_cost_no_byte_of_the_weights(
        self, hub: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hub_headers, "FIRST_BYTES", 8)
        served(hub, save(random_model("llama"), tmp_path / "made", "40KB"))
        remote_model(NAME, None)
        shards = {name: content for name, content in hub.repository.files.items() if name.endswith(".safetensors")}
        assert len(shards) > 2
        for name, content in shards.items():
            assert hub.repository.sent[name] == 8 + header_bytes(name, content, len(content))

    def test_cost_one_short_question_a_file(self, hub: SimpleNamespace) -> None:
        hub.repository.files["model.safetensors"] = one_tensor(BIG)
        assert remote_model(NAME, None).checkpoint.nbytes == BIG
        assert hub.repository.gets["model.safetensors"] == 1
        assert hub.repository.sent["model.safetensors"] == hub_headers.FIRST_BYTES

    def test_of_a_server_without_ranges_cost_no_download(self, hub: SimpleNamespace) -> None:
        """The rest of the file is left on the way: what was sent is what the sockets between us hold."""
        hub.repository.ranges = False
        hub.repository.files["model.safetensors"] = one_tensor(BIG)
        assert remote_model(NAME, None).checkpoint.nbytes == BIG
        hub.stop()
        assert hub.repository.sent["model.safetensors"] < BIG // 2

    def test_are_kept_by_commit(self, hub: SimpleNamespace, tmp_path: Path) -> None:
        served(hub, save(random_model("llama"), tmp_path / "made"))
        first = remote_model(NAME, None)
        assert places(remote_model(NAME, hub.repository.commit).checkpoint) == places(first.checkpoint)
        assert hub.repository.gets["model.safetensors"] == 1
        served(hub, save(random_model("llama", num_hidden_layers=1), tmp_path / "again"))
        assert len(remote_model(NAME, None).checkpoint.tensors) < len(first.checkpoint.tensors)

    def test_serve_a_process_that_is_offline(
        self, hub: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        served(hub, save(random_model("llama"), tmp_path / "made", "40KB"))
        first = remote_model(NAME, None)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert remote_model(NAME, None) == first
        hub.stop()
        assert remote_model(NAME, None) == first

    def test_are_those_of_the_files_where_the_cache_has_them(self, hub: SimpleNamespace, tmp_path: Path) -> None:
        served(hub, save(random_model("llama"), tmp_path / "made"))
        folder = model_folder(NAME, None)
        hub.repository.gets.clear()
        assert remote_model(NAME, None).checkpoint == read_checkpoint(folder)
        assert hub.repository.gets.total() == 0


class TestRefusals:
    def refusal(self, kind: type[Exception], name: str = NAME, revision: str | None = None) -> str:
        with pytest.raises(kind) as error:
            describe_model(name, revision)
        return str(error.value)

    def test_are_those_of_a_download(self, hub: SimpleNamespace) -> None:
        assert "org/nothing is neither a folder here nor a model on" in self.refusal(ModelNotFound, "org/nothing")
        assert f"{NAME} has no revision 'v9'" in self.refusal(ModelNotFound, revision="v9")
        assert "there is no folder /no/such" in self.refusal(ModelNotFound, "/no/such")
        hub.repository.status, hub.repository.error_code = 403, "GatedRepo"
        assert f"{NAME} is gated and a visitor without a token" in self.refusal(ModelNotFound)
        hub.stop()
        assert "check the network" in self.refusal(ModelNotFound)

    def test_of_pickled_weights(self, hub: SimpleNamespace) -> None:
        hub.repository.files = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
        assert "can run code" in self.refusal(CheckpointError)

    def test_name_the_file_that_is_damaged(self, hub: SimpleNamespace) -> None:
        hub.repository.files["model.safetensors"] = (8).to_bytes(8, "little") + EMPTY + b"more than it says"
        text = self.refusal(CheckpointError)
        assert f"/{NAME}/resolve/{hub.repository.commit}/model.safetensors is damaged: the file is longer" in text
        assert not list((hub.cache.parent.parent / "cache").rglob("*.header")), "nothing damaged is kept"

    def test_name_a_shard_that_the_index_promises(self, hub: SimpleNamespace) -> None:
        index = {"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}
        hub.repository.files = {
            "config.json": b"{}",
            "part-1.safetensors": one_tensor(8),
            "model.safetensors.index.json": json.dumps(index).encode(),
        }
        assert f"{NAME} lacks part-2.safetensors, which its index names" in self.refusal(CheckpointError)

    def test_come_from_a_server_that_breaks_off(self, hub: SimpleNamespace) -> None:
        hub.repository.broken = {"model.safetensors"}
        text = self.refusal(ModelNotFound)
        assert hub.endpoint in text and "500" in text


def test_a_model_on_the_hub_is_described_as_its_folder(
    hub: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(command: list[str], given: str) -> str:
        return json.dumps({"structure": ask(json.loads(given)).as_json()}, default=str)

    monkeypatch.setattr(structures, "output_of", answer)
    folder = save(random_model("deepseek_v3"), tmp_path / "made", "100KB")
    served(hub, folder)
    here, there = describe_model(folder), describe_model(NAME)
    assert there.name == NAME and there.cache_shapes == here.cache_shapes
    assert [(group.name, group.nbytes) for group in there.groups] == [(g.name, g.nbytes) for g in here.groups]
    assert [s.key for g in there.groups for s in g.sources] == [s.key for g in here.groups for s in g.sources]
