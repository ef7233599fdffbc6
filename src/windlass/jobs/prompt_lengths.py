"""How many tokens prompts have, by the model's own tokenizer where it is at hand, without torch."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from windlass.errors import UsageError
from windlass.facts.batch_row import BatchRow
from windlass.facts.gguf_model import gguf_in, is_gguf, read_gguf
from windlass.facts.gguf_vocabulary import vocabulary_of
from windlass.model.gguf_backend import gguf_backend

# What a chat template writes around a message, about.
TEMPLATE_TOKENS = 8


def prompt_length(rows: Sequence[BatchRow], folder: str | None) -> list[int]:
    """Tokens of each row's prompt; conversations are counted without their template, and about what it adds.

    `folder` holds tokenizer.json or a GGUF file, or is one. Raises UsageError where text has to be counted and there
    is none.
    """
    texts = [_text(row) for row in rows]
    if not any(text is not None for text in texts):
        return [len(row.body.prompt_token_ids or ()) for row in rows]
    tokenizer = _tokenizer(Path(folder)) if folder is not None else None
    if tokenizer is None:
        raise UsageError(
            "the prompts are texts, and there is no tokenizer.json beside the model to count their tokens; "
            "give --prompt-len, --gen-len and --num-prompts instead of -i, or name the model's folder"
        )
    counted = {
        place: len(encoding.ids)
        for place, encoding in zip(
            [place for place, text in enumerate(texts) if text is not None],
            tokenizer.encode_batch([text for text in texts if text is not None]),
            strict=True,
        )
    }
    return [
        counted.get(place, len(row.body.prompt_token_ids or ())) + TEMPLATE_TOKENS * len(row.body.messages or ())
        for place, row in enumerate(rows)
    ]


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
