"""Text to ids and back: no second begin-of-sequence, clear errors, and pieces that add up to the whole."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from windlass.errors import CheckpointError, RequestError, UsageError
from windlass.model.detokenizer import LONGEST_HELD_RUN, Detokenizer
from windlass.model.tokenizer import NoTokenizer, Tokenizer
from windlass.packaged_model import packaged_model_folder

MIXED_TEXT = st.text(max_size=60) | st.lists(
    st.sampled_from(["Once", " upon", "\n", "  ", "é", "你好", "👩‍👩‍👧", "▁", " ", "a", "\u0301", "<s>", "�"]),
    max_size=30,
).map("".join)


def bytes_only() -> PreTrainedTokenizerFast:
    """Three special tokens and one token a byte, with byte fallback: every byte is its own token."""
    vocab = {piece: i for i, piece in enumerate(["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)])}
    backend = Backend(models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>"))
    backend.decoder = decoders.ByteFallback()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    return Tokenizer(bytes_only())


@pytest.fixture(scope="module")
def stories(shared: Path) -> Tokenizer:
    tokenizer = Tokenizer.load(shared / "models" / "stories-260k")
    assert isinstance(tokenizer, Tokenizer)
    return tokenizer


@pytest.fixture(scope="module")
def gpt2(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("gpt2")
    for name in ("vocab.json", "merges.txt"):
        (folder / name).symlink_to(shared / "data" / "gpt2-tokenizer" / name)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    tokenizer = Tokenizer.load(folder)
    assert isinstance(tokenizer, Tokenizer)
    return tokenizer


def pieces_of(tokenizer: Tokenizer, ids: Sequence[int], skip_special_tokens: bool = True) -> list[str]:
    detokenizer = Detokenizer(tokenizer, skip_special_tokens)
    return [*map(detokenizer.push, ids), detokenizer.flush()]


def test_encoding_is_that_of_transformers(stories: Tokenizer, shared: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(shared / "models" / "stories-260k")
    for text in ("Once upon a time", "", " two  spaces", "naïve 你好"):
        assert stories.encode(text) == theirs(text).input_ids
    assert (stories.vocab_size, stories.bos_token_id, stories.eos_token_ids) == (512, 1, (2,))


def test_a_text_that_begins_with_begin_of_sequence_gets_no_second_one(stories: Tokenizer) -> None:
    assert stories.encode("<s>Once upon")[:2] == [1, stories.encode("<s>Once upon")[1]]
    assert stories.encode("<s>Once upon").count(1) == 1
    assert stories.encode("Once upon").count(1) == 1


def test_what_the_writer_doubled_stays_doubled(stories: Tokenizer) -> None:
    assert stories.encode("<s><s>Once").count(1) == 2


def test_a_chat_template_writes_its_own_begin_of_sequence_once(stories: Tokenizer, shared: Path) -> None:
    inner = AutoTokenizer.from_pretrained(shared / "models" / "stories-260k")
    inner.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    ids = Tokenizer(inner).apply_chat_template([{"role": "user", "content": "Hello"}])
    assert ids.count(1) == 1
    assert stories.decode(ids).strip() == "user: Hello\nassistant:"
    assert ids == inner.apply_chat_template(
        [{"role": "user", "content": "Hello"}], add_generation_prompt=True, return_dict=False
    )


def test_chat_without_a_template_says_what_to_do(stories: Tokenizer) -> None:
    with pytest.raises(UsageError, match="no chat template.*instruction-tuned"):
        stories.apply_chat_template([{"role": "user", "content": "Hello"}])


def test_messages_that_the_template_refuses_are_a_request_error() -> None:
    inner = bytes_only()
    inner.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(RequestError, match="refuses these 1 messages: roles must alternate"):
        Tokenizer(inner).apply_chat_template([{"role": "user", "content": "Hello"}])
    with pytest.raises(RequestError, match="0 messages"):
        Tokenizer(inner).apply_chat_template([])
    with pytest.raises(RequestError, match="message 0 is 'Hello'"):
        Tokenizer(inner).apply_chat_template(["Hello"])


def test_a_folder_without_a_tokenizer_still_serves_token_ids(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 100}))
    tokenizer = Tokenizer.load(tmp_path)
    assert isinstance(tokenizer, NoTokenizer)
    assert (tokenizer.decode([1, 2]), tokenizer.eos_token_ids) == ("", ())
    assert Detokenizer(tokenizer).push(5) == ""
    for refused in (lambda: tokenizer.encode("Hello"), lambda: tokenizer.apply_chat_template([])):
        with pytest.raises(UsageError, match="has no tokenizer.*prompt_token_ids"):
            refused()


def test_a_tokenizer_config_without_its_vocabulary_is_a_checkpoint_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizerFast"}')
    with pytest.raises(CheckpointError, match="no vocabulary.*copy it"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("damaged", ["{", "{}", '{"model": {"type": "Nothing"}}'])
def test_a_damaged_tokenizer_is_a_checkpoint_error(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "tokenizer.json").write_text(damaged)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(CheckpointError, match="cannot be read.*again"):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_in_a_folder_whose_name_is_not_utf_8_asks_for_another_name(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(packaged_model_folder(), folder)
    with pytest.raises(CheckpointError, match="name is not UTF-8; rename the folder"):
        Tokenizer.load(folder)


@given(ids=st.lists(st.integers(0, 600), max_size=80), skip=st.booleans())
def test_pieces_of_any_ids_add_up_with_sentencepiece_like_pieces(
    stories: Tokenizer, ids: list[int], skip: bool
) -> None:
    assert "".join(pieces_of(stories, ids, skip)) == stories.decode(ids, skip)


@given(ids=st.lists(st.integers(0, 300), max_size=LONGEST_HELD_RUN), skip=st.booleans())
def test_pieces_of_any_ids_add_up_with_byte_fallback(byte_level: Tokenizer, ids: list[int], skip: bool) -> None:
    assert "".join(pieces_of(byte_level, ids, skip)) == byte_level.decode(ids, skip)


@given(ids=st.lists(st.integers(0, 50_300) | st.integers(0, 300), max_size=60), skip=st.booleans())
def test_pieces_of_any_ids_add_up_with_byte_pairs(gpt2: Tokenizer, ids: list[int], skip: bool) -> None:
    assert "".join(pieces_of(gpt2, ids, skip)) == gpt2.decode(ids, skip)


@pytest.mark.parametrize("name", ["stories", "byte_level", "gpt2"])
@given(text=MIXED_TEXT)
def test_pieces_of_any_text_add_up(request: pytest.FixtureRequest, name: str, text: str) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    ids = tokenizer.encode(text)
    assert "".join(pieces_of(tokenizer, ids, False)) == tokenizer.decode(ids, False)


@pytest.mark.parametrize("name", ["stories", "byte_level", "gpt2"])
def test_no_piece_shows_half_a_character(request: pytest.FixtureRequest, name: str) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    text = "naïve 你好, 👩‍👩‍👧 ends"
    pieces = pieces_of(tokenizer, tokenizer.encode(text))
    assert "".join(pieces).strip() == text
    assert not any("�" in piece for piece in pieces)


def test_an_answer_cut_inside_a_character_ends_as_transformers_shows_it(gpt2: Tokenizer) -> None:
    ids = gpt2.encode("so 👩")[:-1]
    assert "".join(pieces_of(gpt2, ids)) == gpt2.decode(ids) == "so �"


def test_text_comes_while_the_answer_grows(stories: Tokenizer) -> None:
    ids = stories.encode("Once upon a time, there was a little girl")
    pieces = pieces_of(stories, ids)
    assert pieces[-1] == ""
    assert all(pieces[2:-1])


def test_a_byte_run_waits_until_it_is_sure_and_can_be_peeked_at(byte_level: Tokenizer) -> None:
    detokenizer = Detokenizer(byte_level)
    assert [detokenizer.push(i) for i in byte_level.encode("hi é")[:-1]] == [""] * 4
    assert detokenizer.pending == "hi "
    assert detokenizer.push(3 + 0xA9) == ""
    assert detokenizer.pending == "hi é"
    assert detokenizer.flush() == "hi é"


def test_long_byte_runs_come_a_character_at_a_time(byte_level: Tokenizer) -> None:
    text = "To be, or not to be, that is the question: 你好 " * 5
    pieces = pieces_of(byte_level, byte_level.encode(text))
    assert "".join(pieces) == text
    assert max(map(len, pieces[:-1])) == 1
    assert len(pieces[-1].encode()) <= LONGEST_HELD_RUN


def test_characters_given_from_a_long_byte_run_outlive_a_bad_byte(byte_level: Tokenizer) -> None:
    given_out = LONGEST_HELD_RUN
    ids = byte_level.encode("x" * 2 * given_out) + [3 + 0xFF] * 2
    assert "".join(pieces_of(byte_level, ids)) == "x" * given_out + "�" * (given_out + 2)


@pytest.mark.parametrize("name", ["stories", "byte_level", "gpt2"])
@pytest.mark.parametrize("repeated", ["�", " ", "👩", "a"])
def test_work_a_token_does_not_grow_with_the_answer(request: pytest.FixtureRequest, name: str, repeated: str) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    watched = Counting(tokenizer._inner)
    for token_id in set(tokenizer.encode(repeated)):
        detokenizer = Detokenizer(watched)
        for _ in range(1000):
            detokenizer.push(token_id)
    assert 0 < watched.longest <= LONGEST_HELD_RUN + 4


class Counting(Tokenizer):
    """Remembers the most ids that were decoded at once."""

    def __init__(self, inner: PreTrainedTokenizerBase) -> None:
        super().__init__(inner)
        self.longest = 0

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        self.longest = max(self.longest, len(ids))
        return super().decode(ids, skip_special_tokens)
