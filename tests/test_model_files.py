"""A model is known again by what its files hold, wherever they lie."""

import os
import shutil
from pathlib import Path

from windlass.jobs.batch.model_files import model_files


def model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(100))
    (folder / "notes.md").write_text("no answer depends on this")
    return folder


def test_a_model_that_was_moved_is_the_same(tmp_path: Path) -> None:
    before = model_files(model(tmp_path / "a"))
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert model_files(tmp_path / "b") == before
    assert sorted(before) == ["config.json", "model.safetensors"]


def test_a_file_that_changed_is_another_whatever_its_size(tmp_path: Path) -> None:
    folder = model(tmp_path / "a")
    before = model_files(folder)
    (folder / "config.json").write_text("[]")
    weights = folder / "model.safetensors"
    os.utime(weights, ns=(0, weights.stat().st_mtime_ns + 1))
    now = model_files(folder)
    assert {name for name in now if now[name] != before[name]} == {"config.json", "model.safetensors"}


def test_a_gguf_file_is_a_model_of_its_own(tmp_path: Path) -> None:
    for name in ("one.gguf", "other.gguf"):
        (tmp_path / name).write_bytes(bytes(10))
    assert list(model_files(tmp_path / "one.gguf")) == ["one.gguf"]
