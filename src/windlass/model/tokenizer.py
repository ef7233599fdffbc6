"""Text to token ids and back, around transformers' AutoTokenizer.

It exists to hold three things in one place: no second begin-of-sequence, errors that say what to do, and checkpoints
without any tokenizer, which are still run from token ids. Code of the checkpoint is never executed.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from windlass.errors import CheckpointError, RequestError, UsageError
from windlass.model.vocabulary_damage import VocabularyDamage, first_line

# Any of these holds a vocabulary. Without one AutoTokenizer may still "succeed", with an empty tokenizer.
VOCABULARY_FILES = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
    "spm.model", "tiktoken.model", "tekken.json", "qwen.tiktoken",
)  # fmt: skip
# In these ways transformers fails on a damaged file, which it trusts.
_FAULTS = (ValueError, TypeError, LookupError, AttributeError, OSError, RuntimeError, AssertionError)
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Tokenizer:
    """One checkpoint's tokenizer. `load` reads it from a folder; the constructor takes one that is already built."""

    def __init__(self, inner: PreTrainedTokenizerBase) -> None:
        self._inner = inner
        self._special = frozenset(inner.all_special_ids)
        self._falls_back_to_bytes = _has_byte_fallback(inner)
        self._alone: dict[int, str] = {}
        self._anchor: tuple[int, ...] | None = None

    @staticmethod
    def load(folder: str | Path) -> "Tokenizer | NoTokenizer":
        """The folder's tokenizer; a NoTokenizer when it holds none. Raises CheckpointError for a damaged one."""
        path = Path(folder)
        if not any((path / name).is_file() for name in VOCABULARY_FILES):
            if (path / "tokenizer_config.json").is_file():
                raise CheckpointError(
                    f"{path} has a tokenizer_config.json but no vocabulary (tokenizer.json, tokenizer.model or "
                    f"vocab.json); copy it from where the model came from, or remove tokenizer_config.json and "
                    f"give prompt_token_ids"
                )
            return NoTokenizer(str(path))
        with VocabularyDamage(f"the tokenizer in {path} cannot be read", "download its files again", _FAULTS):
            try:
                inner = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
            except UnicodeEncodeError as error:  # the tokenizers library takes no other name of a file
                raise CheckpointError(
                    f"the tokenizer in {path} cannot be read: the folder's name is not UTF-8; rename the folder"
                ) from error
            except ImportError as error:
                raise CheckpointError(
                    f"the tokenizer in {path} cannot be read: {first_line(error)}; install what it names"
                ) from error
        return Tokenizer(inner)

    @property
    def vocab_size(self) -> int:
        """Number of ids the tokenizer knows, added tokens included; a model's embedding may have more rows."""
        return len(self._inner)

    @cached_property
    def longest_token(self) -> int:
        """Characters of the longest token, or more where one is spelt otherwise than it reads."""
        return max(map(len, self._inner.get_vocab()), default=1)

    @property
    def bos_token_id(self) -> int | None:
        """The begin-of-sequence id, if there is one."""
        bos: int | None = self._inner.bos_token_id
        return bos

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The tokenizer's own end id, if any; generation defaults of the checkpoint go before it."""
        return () if self._inner.eos_token_id is None else (self._inner.eos_token_id,)

    @property
    def has_chat_template(self) -> bool:
        """Whether `apply_chat_template` can work."""
        return self._inner.chat_template is not None

    @property
    def knows_tools(self) -> bool:
        """Whether the chat template reads the tools that it is given."""
        return "tools" in str(self._inner.chat_template)

    def encode(self, text: str) -> list[int]:
        """Ids as the tokenizer makes them, its special tokens added, but never a second begin-of-sequence.

        Raises UsageError for text that is no Unicode: bytes of another encoding arrive as halves of characters.
        """
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise UsageError(f"the text {text[:40]!a} is not UTF-8; convert it, for example with iconv")
        ids: list[int] = self._inner(text, verbose=False).input_ids  # length is the engine's to judge, not a warning's
        bos = self._inner.bos_token
        if bos and text.startswith(bos) and ids[:2] == [self.bos_token_id] * 2:
            return ids[1:]
        return ids

    def encode_plain(self, text: str) -> list[int]:
        """Ids of the text alone, no special tokens added."""
        ids: list[int] = self._inner(text, add_special_tokens=False, verbose=False).input_ids
        return ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of the ids, as transformers gives it. Ids that the tokenizer does not know are nothing."""
        return str(self._inner.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """Ids of a conversation up to where the answer begins. Takes and raises what `chat_text` does."""
        # The template has written every special token itself, begin-of-sequence included.
        return self.encode_plain(self.chat_text(messages, tools))

    def chat_text(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None) -> str:
        """The text of a conversation up to where the answer begins. messages: `{"role": ..., "content": ...}` each.

        tools: what the model may call, in OpenAI's form, for a template that `knows_tools`.

        Raises UsageError where there is no template, RequestError for messages the template refuses.
        """
        if not self.has_chat_template:
            raise UsageError(
                "this model's tokenizer has no chat template, so it cannot chat; take an instruction-tuned model, "
                "or give the text itself as a prompt (generate, or `windlass run`)"
            )
        _check_messages(messages)
        try:
            return str(
                self._inner.apply_chat_template(
                    [dict(message) for message in messages],
                    tools=None if tools is None else [dict(tool) for tool in tools],
                    tokenize=False,
                    add_generation_prompt=True,
                )
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise RequestError(
                f"the model's chat template refuses these {len(messages)} messages: {first_line(error)}"
            ) from error

    def as_json(self) -> str:
        """All of it, as the tokenizers library writes it. Raises UsageError for one that this library does not run."""
        if not self._inner.is_fast:
            raise UsageError(
                f"this model's tokenizer ({type(self._inner).__name__}) is written in Python, and a form of answers "
                "needs its rules as tokenizer.json has them; ask for text"
            )
        written = json.loads(self._inner.backend_tokenizer.to_str())
        return json.dumps(written | {"padding": None, "truncation": None}, ensure_ascii=False)

    def is_silent(self, token_id: int, skip_special_tokens: bool) -> bool:
        """Whether the id never shows: unknown to the tokenizer, or special and to be skipped."""
        if token_id in self._special:
            return skip_special_tokens
        return self._inner.convert_ids_to_tokens(token_id) is None

    def byte_of(self, token_id: int) -> int | None:
        """The byte that a byte-fallback token such as <0xE2> stands for; None for any other token."""
        if not self._falls_back_to_bytes:
            return None
        match = _BYTE_TOKEN.fullmatch(str(self._inner.convert_ids_to_tokens(token_id)))
        return int(match[1], 16) if match else None

    def text_alone(self, token_id: int) -> str:
        """Text of the id on its own if it is whole characters that no neighbour changes, else nothing."""
        text = self._alone.get(token_id)
        if text is None:
            text = "" if self.byte_of(token_id) is not None else self.decode([token_id], skip_special_tokens=False)
            text = self._alone[token_id] = "" if "\N{REPLACEMENT CHARACTER}" in text else text
        return text

    def anchor(self) -> tuple[int, ...]:
        """One id that is whole characters on its own, to decode others behind; none in a tokenizer of bytes only."""
        if self._anchor is None:
            plain = (i for i in range(self.vocab_size) if i not in self._special and self.text_alone(i).isalnum())
            first = next(plain, None)
            self._anchor = () if first is None else (first,)
        return self._anchor


class NoTokenizer:
    """Stands in where a checkpoint has no tokenizer: it runs from token ids, and its answers have no text."""

    vocab_size = 0
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    has_chat_template = False
    knows_tools = False

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def encode(self, text: str) -> list[int]:
        """Raises UsageError: there is nothing to encode with."""
        raise self._refusal()

    def encode_plain(self, text: str) -> list[int]:
        """Raises UsageError: there is nothing to encode with."""
        raise self._refusal()

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Ids have no text here."""
        return ""

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """Raises UsageError: there is nothing to encode with."""
        raise self._refusal()

    def chat_text(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None) -> str:
        """Raises UsageError: there is nothing to write with."""
        raise self._refusal()

    @property
    def longest_token(self) -> int:
        """No token has a text. Large, since a text is not refused here for its length."""
        return 2**31

    def as_json(self) -> str:
        """Raises UsageError: there is nothing to spell with."""
        raise self._refusal()

    def is_silent(self, token_id: int, skip_special_tokens: bool) -> bool:
        """No id ever shows."""
        return True

    def byte_of(self, token_id: int) -> int | None:
        """No id stands for a byte."""
        return None

    def text_alone(self, token_id: int) -> str:
        """Ids have no text here."""
        return ""

    def anchor(self) -> tuple[int, ...]:
        """There is none."""
        return ()

    def _refusal(self) -> UsageError:
        return UsageError(
            f'{Path(self._folder).name} has no tokenizer, so text cannot be read; give {{"prompt_token_ids": [...]}}, '
            f"or copy tokenizer.json from where the model came from"
        )


AnyTokenizer = Tokenizer | NoTokenizer


def _has_byte_fallback(inner: PreTrainedTokenizerBase) -> bool:
    if not inner.is_fast:
        return True
    decoder = json.loads(inner.backend_tokenizer.to_str())["decoder"]
    return '"ByteFallback"' in json.dumps(decoder)


def _check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    if not messages:
        raise RequestError('the conversation has 0 messages; give at least one {"role": "user", "content": ...}')
    for place, message in enumerate(messages):
        if not isinstance(message, Mapping) or "role" not in message:
            raise RequestError(f'message {place} is {message!r}; write it as {{"role": "user", "content": "..."}}')
