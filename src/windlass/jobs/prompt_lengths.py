"""How many tokens prompts have and share, by the model's own tokenizer where it is at hand, without torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from windlass.errors import UsageError
from windlass.facts.batch_row import BatchRow
from windlass.facts.gguf_model import gguf_in, is_gguf, read_gguf
from windlass.facts.gguf_vocabulary import vocabulary_of
from windlass.model.gguf_backend import gguf_backend

# What a chat template writes around a message, about.
TEMPLATE_TOKENS = 8
# Beginnings are compared so many tokens at a time; pages hold a multiple of it.
RUN_TOKENS = 16


@dataclass(frozen=True, slots=True)
class PromptLengths:
    """Tokens of each prompt, and how many of them an earlier one begins with too."""

    lens: tuple[int, ...]
    shared: tuple[int, ...]


def prompt_lengths(rows: Sequence[BatchRow], folder: str | None) -> PromptLengths:
    """Of each row's prompt; conversations are counted without their template, and about what it adds.

    `folder` holds tokenizer.json or a GGUF file, or is one. Raises UsageError where text has to be counted and there
    is none.
    """
    texts = [_text(row) for row in rows]
    encoded: Iterator[Encoding] = iter(())
    if any(text is not None for text in texts):
        tokenizer = _tokenizer(Path(folder)) if folder is not None else None
        if tokenizer is None:
            raise UsageError(
                "the prompts are texts, and there is no tokenizer.json beside the model to count their tokens; "
                "give --prompt-len, --gen-len and --num-prompts instead of -i, or name the model's folder"
            )
        encoded = iter(tokenizer.encode_batch([text for text in texts if text is not None]))
    lens, shared, known = list[int](), list[int](), KnownBeginnings()
    for row, text in zip(rows, texts, strict=True):
        ids = next(encoded).ids if text is not None else row.body.prompt_token_ids or ()
        around = TEMPLATE_TOKENS * len(row.body.messages or ())
        lens.append(len(ids) + around)
        begun = known.add(ids)
        shared.append(begun + around if begun and row.body.messages else begun)
    return PromptLengths(tuple(lens), tuple(shared))


class KnownBeginnings:
    """What prompts begin with, in runs of a few tokens: enough to tell which pages of theirs will be there already."""

    def __init__(self) -> None:
        self._known: set[int] = set()

    def add(self, ids: Sequence[int]) -> int:
        """Tokens that these begin with as earlier ones do, in whole runs; from now on they are known."""
        before, shared, new = 0, 0, False
        for start in range(0, len(ids) - RUN_TOKENS + 1, RUN_TOKENS):
            before = hash((before, *ids[start : start + RUN_TOKENS]))
            new = new or before not in self._known
            if new:
                self._known.add(before)
            else:
                shared = start + RUN_TOKENS
        return shared


def _text(row: BatchRow) -> str | None:
    if row.body.messages is not None:
        return "\n".join(message["content"] for message in row.body.messages)
    return row.body.prompt


def _tokenizer(place: Path) -> Tokenizer | None:
    """That of a folder or a GGUF file, None where it has none."""
    if (place / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(place / "tokenizer.json"))
    file = place if is_gguf(place) else gguf_in(place)
    model = read_gguf(file) if file is not None else None
    vocabulary = vocabulary_of(model) if model is not None else None
    return gguf_backend(model, vocabulary) if model is not None and vocabulary is not None else None
