"""A checkpoint folder is known from its headers alone, and whatever is missing or false is said before a run."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from windlass.errors import CheckpointError, ModelNotFound
from windlass.facts.checkpoint_facts import read_checkpoint

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def save_shards(folder: Path, index: dict[str, str] | None = None) -> None:
    """Two shards with `a`, `b` and `c`, and an index unless it is the empty one."""
    save_file({"a": torch.ones(2, 3), "b": torch.ones(4)}, folder / FIRST)
    save_file({"c": torch.ones(5, dtype=torch.bfloat16)}, folder / SECOND)
    index = {"a": FIRST, "b": FIRST, "c": SECOND} if index is None else index
    if index:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(folder)
    return str(error.value)


def test_one_file_gives_its_tensors(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2, 3), "b": torch.ones(4)}, tmp_path / "model.safetensors")
    facts = read_checkpoint(tmp_path)
    assert set(facts.tensors) == {"a", "b"} and facts.nbytes == 40
    assert facts.folder == str(tmp_path)


def test_shards_are_found_by_the_index(tmp_path: Path) -> None:
    save_shards(tmp_path)
    facts = read_checkpoint(tmp_path)
    assert {name: Path(fact.file).name for name, fact in facts.tensors.items()} == {"a": FIRST, "b": FIRST, "c": SECOND}
    assert facts.tensors["c"].dtype == "BF16"


def test_shards_without_an_index_are_found_by_their_numbers(tmp_path: Path) -> None:
    save_shards(tmp_path, index={})
    assert set(read_checkpoint(tmp_path).tensors) == {"a", "b", "c"}


def test_a_single_file_of_another_name_is_taken(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "weights.safetensors")
    assert set(read_checkpoint(tmp_path).tensors) == {"a"}


def test_the_usual_file_wins_over_others(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    save_file({"b": torch.ones(2)}, tmp_path / "consolidated.safetensors")
    assert set(read_checkpoint(tmp_path).tensors) == {"a"}


def test_links_as_the_hub_cache_makes_them_are_followed(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    save_file({"a": torch.ones(2)}, blobs / "0123")
    (snapshot / "model.safetensors").symlink_to(os.path.relpath(blobs / "0123", snapshot))
    assert read_checkpoint(snapshot).tensors["a"].file == str(snapshot / "model.safetensors")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    save_shards(tmp_path)
    (tmp_path / SECOND).unlink()
    assert refusal(tmp_path) == f"{tmp_path} lacks 1 of 2 shards: {SECOND}; download the missing files"


def test_a_missing_shard_is_named_without_an_index_too(tmp_path: Path) -> None:
    save_shards(tmp_path, index={})
    (tmp_path / FIRST).unlink()
    assert f"lacks 1 of 2 shards: {FIRST}" in refusal(tmp_path)


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    save_shards(tmp_path)
    os.truncate(tmp_path / SECOND, (tmp_path / SECOND).stat().st_size - 4)
    assert SECOND in refusal(tmp_path) and "cut short" in refusal(tmp_path)


def test_a_name_of_the_index_that_no_shard_holds_is_named_with_its_shard(tmp_path: Path) -> None:
    save_shards(tmp_path, {"a": FIRST, "b": FIRST, "c": SECOND, "d": SECOND})
    text = refusal(tmp_path)
    assert f"{tmp_path / SECOND} lacks d" in text and "lists 4 tensors, the shards hold 3" in text


def test_of_two_shards_with_the_same_name_the_index_decides(tmp_path: Path) -> None:
    save_shards(tmp_path, {"a": SECOND, "b": FIRST, "c": SECOND})
    save_file({"a": torch.ones(7), "c": torch.ones(5)}, tmp_path / SECOND)
    assert read_checkpoint(tmp_path).tensors["a"].shape == (7,)


def test_the_same_name_in_two_shards_without_an_index_is_refused(tmp_path: Path) -> None:
    save_shards(tmp_path, index={})
    save_file({"a": torch.ones(7)}, tmp_path / SECOND)
    assert "tensor 'a' is in both" in refusal(tmp_path)


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", "sub/../../x.safetensors", ""])
def test_an_index_that_leads_out_of_the_folder_is_refused(tmp_path: Path, shard: str) -> None:
    save_shards(tmp_path, {"a": shard})
    text = refusal(tmp_path)
    assert repr(shard) in text and "outside the folder" in text and "do not trust" in text


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 3}}', "\udcff"])
def test_a_damaged_index_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content, errors="surrogateescape")
    assert "model.safetensors.index.json" in refusal(tmp_path) and "fetch the file again" in refusal(tmp_path)


def test_files_that_nothing_orders_are_refused(tmp_path: Path) -> None:
    for name in "abcde":
        save_file({"a": torch.ones(2)}, tmp_path / f"{name}.safetensors")
    text = refusal(tmp_path)
    assert "holds 5 safetensors files (a.safetensors, b.safetensors, c.safetensors and 2 more)" in text
    assert "add the index, or leave only the model's files" in text


def test_a_checkpoint_without_any_tensor_is_refused(tmp_path: Path) -> None:
    save_file({}, tmp_path / "model.safetensors")
    assert "holds no tensor at all" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickled_weights_are_refused_with_the_line_that_converts_them(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(b"pickle")
    text = refusal(tmp_path)
    assert name in text and "can run code" in text
    command = text.partition('python -c "')[2].removesuffix('"')
    compile(command, "the line", "exec")
    assert f"from_pretrained({str(tmp_path)!r}" in command and "safe_serialization=True" in command


def test_a_folder_without_weights_says_to_download_them(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert "has a config.json but no *.safetensors file; download the weights" in refusal(tmp_path)


def test_a_folder_that_is_no_model_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"is not a model folder.*or a Hugging Face id"):
        read_checkpoint(tmp_path)


def test_a_path_that_is_no_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="is not a folder; give the folder"):
        read_checkpoint(tmp_path / "nothing")


def test_real_trained_weights_are_read_as_the_library_reads_them(shared: Path) -> None:
    folder = shared / "models" / "stories-260k"
    facts = read_checkpoint(folder)
    for name, fact in facts.tensors.items():
        with safe_open(fact.file, "pt") as reference:
            assert list(fact.shape) == reference.get_slice(name).get_shape()
