"""What a model is called where clients see it: nothing of the owner's folders."""

import os
from pathlib import Path

import pytest

from windlass.facts.model_name import public_name


@pytest.mark.parametrize(
    ("below", "name"),
    [
        ("models/llama-3b", "llama-3b"),
        ("models/llama-3b.gguf", "llama-3b.gguf"),
        ("hub/models--org--name/snapshots/0123abcd", "org/name"),
    ],
)
def test_a_path_is_called_by_its_last_part(tmp_path: Path, below: str, name: str) -> None:
    path = tmp_path / below
    path.mkdir(parents=True)
    assert public_name(str(path)) == public_name(f"{path}/") == name


def test_so_is_one_that_is_told_from_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret" / "llama").mkdir(parents=True)
    (tmp_path / "latest").symlink_to(tmp_path / "secret" / "llama")
    monkeypatch.chdir(tmp_path / "secret" / "llama")
    monkeypatch.setenv("HOME", str(tmp_path))
    told = [public_name(model) for model in (".", "../llama", "~/secret/llama", os.path.join("..", "..", "latest"))]
    assert told == ["llama", "llama", "llama", "latest"]


@pytest.mark.parametrize("model", ["org/name", "org/name-GGUF:Q4_K_M", "gpt2"])
def test_a_hub_id_is_as_it_is(model: str) -> None:
    assert public_name(model) == model
