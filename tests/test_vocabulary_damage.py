"""A damaged vocabulary is an error in one line with its cause; what is not damage goes on as it is."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from transformers import AutoTokenizer

from windlass.errors import CheckpointError, StorageError
from windlass.model.tokenizer import Tokenizer
from windlass.model.vocabulary_damage import VocabularyDamage
from windlass.packaged_model import packaged_model_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(Path(packaged_model_folder()) / name, tmp_path / name)
    return tmp_path


def parse(text: str) -> Any:
    return tokenizers.Tokenizer.from_str(text)


def test_what_the_library_raises_is_of_no_subclass_and_is_told_in_one_line() -> None:
    with pytest.raises(CheckpointError, match=r"^the box cannot be read: [^\n]+; look again$") as told:
        with VocabularyDamage("the box cannot be read", "look again", ()):
            parse("{}")
    assert type(told.value.__cause__) is Exception


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt(), StorageError("full"), KeyError("a bug")])
def test_what_is_no_damage_goes_on_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as told, VocabularyDamage("the box", "look again", (ValueError,)):
        raise error
    assert told.value is error


@pytest.mark.parametrize(
    "member", ["model", "added_tokens", "normalizer", "pre_tokenizer", "decoder", "post_processor"]
)
def test_no_damage_of_a_member_is_a_traceback(folder: Path, member: str) -> None:
    whole = json.loads((folder / "tokenizer.json").read_text())
    for wrong in (3, "x", [3], {"type": "none"}):
        (folder / "tokenizer.json").write_text(json.dumps(whole | {member: wrong}))
        with pytest.raises(CheckpointError, match=r"^the tokenizer in \S+ cannot be read: [^\n]+; download its files"):
            Tokenizer.load(folder)


def test_memory_that_ran_out_and_a_library_that_is_missing_are_no_damage(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = [MemoryError(), ImportError("it needs the `sentencepiece` library:\npip install sentencepiece")]

    def fails(*arguments: Any, **named: Any) -> None:
        raise failing.pop(0)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", fails)
    with pytest.raises(MemoryError):
        Tokenizer.load(folder)
    with pytest.raises(CheckpointError, match="it needs the `sentencepiece` library:; install what it names"):
        Tokenizer.load(folder)
