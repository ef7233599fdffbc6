"""The tokenizer made of a GGUF file gives the ids that the model's own tokenizer gives, and their text back."""

import json
from pathlib import Path
from types import SimpleNamespace

import gguf
import pytest
from tokenizers import ByteLevelBPETokenizer, decoders
from transformers import AutoTokenizer

from gguf_models import finish
from windlass.errors import CheckpointError, UnsupportedModel
from windlass.facts.gguf_ends import end_ids
from windlass.facts.gguf_model import read_gguf
from windlass.facts.gguf_vocabulary import GgufVocabulary
from windlass.model.gguf_backend import gguf_backend
from windlass.model.gguf_cuts import cut_by
from windlass.model.gguf_tokenizer import gguf_tokenizer
from windlass.model.tokenizer import NoTokenizer, Tokenizer

TEXTS = (
    "Once upon a time, there was a little girl named Lily.",
    "  two spaces, a tab\tand\n\n\nlines ",
    "naïve café — 東京 🦙 Ωmega",
    "it's 12345 o'clock; we'LL see: x=3.14159!",
    "",
)
CONTROL, NORMAL, BYTE, UNKNOWN, USER = 3, 1, 6, 2, 4


@pytest.fixture(scope="session")
def verse(shared: Path) -> str:
    file = next(iter(sorted((shared / "data" / "shakespeare").glob("*.txt"))), None)
    if file is None:
        pytest.skip(f"there is no text in {shared / 'data' / 'shakespeare'}")
    return file.read_text(encoding="utf-8")[:20_000]


@pytest.fixture
def stories(shared: Path) -> Path:
    folder = shared / "models" / "stories-260k"
    if not folder.is_dir():
        pytest.skip(f"there is no folder {folder}")
    return folder


@pytest.fixture
def writer(tmp_path: Path) -> gguf.GGUFWriter:
    return gguf.GGUFWriter(tmp_path / "model.gguf", "llama")


def made(writer: gguf.GGUFWriter, tmp_path: Path) -> Tokenizer:
    finish(writer)
    tokenizer = gguf_tokenizer(read_gguf(tmp_path / "model.gguf"))
    assert isinstance(tokenizer, Tokenizer)
    return tokenizer


def write_stories(writer: gguf.GGUFWriter, folder: Path) -> None:
    """As llama.cpp's conversion does: a token's score is minus its place among the learned ones."""
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.get)
    kinds = [BYTE if token.startswith("<0x") else NORMAL for token in tokens]
    kinds[:3] = [UNKNOWN, CONTROL, CONTROL]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0 if kind != NORMAL else float(259 - place) for place, kind in enumerate(kinds)])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def test_a_sentencepiece_vocabulary_gives_the_ids_of_its_own_tokenizer(
    writer: gguf.GGUFWriter, stories: Path, verse: str, tmp_path: Path
) -> None:
    write_stories(writer, stories)
    tokenizer, own = made(writer, tmp_path), AutoTokenizer.from_pretrained(stories)
    for text in (*TEXTS, verse, "<s>a</s> b"):
        ids = own(text).input_ids
        assert tokenizer.encode(text) == (ids[1:] if text.startswith("<s>") else ids)
        assert tokenizer.decode(ids) == own.decode(ids, skip_special_tokens=True)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_ids) == (1, (2,))
    assert tokenizer.byte_of(20) == 0x11


@pytest.mark.parametrize(("flag", "begins"), [(None, True), (True, True), (False, False)])
def test_a_text_begins_as_the_file_says(
    flag: bool | None, begins: bool, writer: gguf.GGUFWriter, stories: Path, tmp_path: Path
) -> None:
    write_stories(writer, stories)
    if flag is not None:
        writer.add_add_bos_token(flag)
    assert (made(writer, tmp_path).encode("a cat")[0] == 1) == begins


def test_no_space_is_put_before_a_text_where_the_file_says_so(
    writer: gguf.GGUFWriter, stories: Path, tmp_path: Path
) -> None:
    write_stories(writer, stories)
    writer.add_add_space_prefix(False)
    tokenizer = made(writer, tmp_path)
    assert tokenizer.decode(tokenizer.encode(" cat")) == " cat"
    assert tokenizer.encode("the") != tokenizer.encode(" the")


@pytest.fixture
def gpt2(shared: Path) -> Path:
    folder = shared / "data" / "gpt2-tokenizer"
    if not folder.is_dir():
        pytest.skip(f"there is no folder {folder}")
    return folder


def write_gpt2(writer: gguf.GGUFWriter, folder: Path) -> list[str]:
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    tokens = sorted(vocabulary, key=vocabulary.get)
    merges = [line for line in (folder / "merges.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL if token == "<|endoftext|>" else NORMAL for token in tokens])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(vocabulary["<|endoftext|>"])
    return tokens


def test_a_bytewise_vocabulary_gives_the_ids_of_its_own_tokenizer(
    writer: gguf.GGUFWriter, gpt2: Path, verse: str, tmp_path: Path
) -> None:
    tokens = write_gpt2(writer, gpt2)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}")
    tokenizer = made(writer, tmp_path)
    own = ByteLevelBPETokenizer.from_file(str(gpt2 / "vocab.json"), str(gpt2 / "merges.txt"))
    for text in (*TEXTS, verse):
        assert tokenizer.encode(text) == own.encode(text).ids
        assert tokenizer.decode(tokenizer.encode(text)) == text
    end = tokens.index("<|endoftext|>")
    assert tokenizer.encode("a<|endoftext|>") == [*own.encode("a").ids, end]
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}])[-1] == end


@pytest.mark.parametrize(
    ("cut", "text", "pieces"),
    [
        ("llama-bpe", "I'LL pay 12345 now", ["I", "'LL", " pay", " ", "123", "45", " now"]),
        ("qwen2", "x=123\n\n y", ["x", "=", "1", "2", "3", "\n\n", " y"]),
        ("tekken", "camelCase 42", ["camel", "Case", " ", "4", "2"]),
        ("gpt-4o", "HelloWorld's 1234", ["Hello", "World's", " ", "123", "4"]),
        ("smollm", "a 12", ["a", " ", "1", "2"]),
    ],
)
def test_text_is_cut_as_the_maker_does(cut: str, text: str, pieces: list[str]) -> None:
    found = cut_by(cut, "model.gguf").pre_tokenize_str(text)
    assert [decoders.ByteLevel().decode([piece]) for piece, _ in found] == pieces


def test_tokens_that_are_whole_are_found_before_anything_else(writer: gguf.GGUFWriter, tmp_path: Path) -> None:
    write_few(writer, "gpt-2")
    tokenizer = made(writer, tmp_path)
    assert tokenizer.encode("nation") == [0, 5]
    assert tokenizer.decode([0, 5]) == "nation"


@pytest.mark.parametrize(("cut", "ids"), [("gpt-2", [6, 2]), ("llama-bpe", [7])])
def test_a_piece_that_is_a_token_is_that_token_where_the_maker_says_so(
    cut: str, ids: list[int], writer: gguf.GGUFWriter, tmp_path: Path
) -> None:
    """No merge makes "nat"."""
    write_few(writer, cut)
    assert made(writer, tmp_path).encode("nat") == ids


def write_few(writer: gguf.GGUFWriter, cut: str) -> None:
    """Eight tokens and one merge; "ation" is found whole."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut)
    writer.add_token_list(["n", "a", "t", "i", "o", "ation", "na", "nat"])
    writer.add_token_types([NORMAL] * 5 + [USER] + [NORMAL] * 2)
    writer.add_token_merges(["n a"])


def test_ends_of_answers_are_those_named_and_those_known_by_their_text(writer: gguf.GGUFWriter, tmp_path: Path) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "<|endoftext|>", "<|im_end|>", "<end_of_turn>"])
    writer.add_token_types([NORMAL, CONTROL, CONTROL, NORMAL])
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(0)
    finish(writer)
    assert end_ids(read_gguf(tmp_path / "model.gguf")) == [2, 0, 1]


def test_a_file_without_vocabulary_has_no_tokenizer(writer: gguf.GGUFWriter, tmp_path: Path) -> None:
    finish(writer)
    assert isinstance(gguf_tokenizer(read_gguf(tmp_path / "model.gguf")), NoTokenizer)


def test_an_unknown_cut_or_kind_is_named(writer: gguf.GGUFWriter, tmp_path: Path) -> None:
    write_few(writer, "deepseek-v9")
    with pytest.raises(UnsupportedModel, match=r"'deepseek-v9'.*llama-bpe"):
        made(writer, tmp_path)
    other = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    other.add_tokenizer_model("rwkv")
    other.add_token_list(["a"])
    with pytest.raises(UnsupportedModel, match=r"'rwkv'.*gpt2"):
        made(other, tmp_path)


def test_a_vocabulary_that_is_not_sound_is_an_error_in_one_line(writer: gguf.GGUFWriter, tmp_path: Path) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b"])
    writer.add_token_merges(["a c"])
    with pytest.raises(CheckpointError, match=r"model\.gguf cannot be made: .*; fetch another"):
        made(writer, tmp_path)


@pytest.mark.parametrize(("tokens", "merge"), [(["a"], "a b"), (["a", "b"], "a b")], ids=["no token", "gives none"])
def test_a_merge_that_is_none_is_an_error_of_the_file(tokens: list[str], merge: str) -> None:
    """The second one would make the library panic: what it raises then is no Exception, only a BaseException."""
    rest = (None, None, None, None, False, False, False, None)
    vocabulary = GgufVocabulary("gpt2", "gpt-2", tokens, [], [1] * len(tokens), [merge], *rest)
    with pytest.raises(CheckpointError, match="model.gguf cannot be made: it merges 'a' and 'b'"):
        gguf_backend(SimpleNamespace(path="model.gguf", architecture="llama"), vocabulary)
