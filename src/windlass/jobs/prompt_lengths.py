"""How many tokens prompts have, by the model's own tokenizer where it is at hand, without torch."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from windlass.errors import UsageError
from windlass.facts.batch_row import BatchRow

# What a chat template writes around a message, about.
TEMPLATE_TOKENS = 8


def prompt_length(rows: Sequence[BatchRow], folder: str | None) -> list[int]:
    """Tokens of each row's prompt; conversations are counted without their template, and about what it adds.

    `folder` holds tokenizer.json. Raises UsageError where text has to be counted and there is none.
    """
    texts = [_text(row) for row in rows]
    if not any(text is not None for text in texts):
        return [len(row.body.prompt_token_ids or ()) for row in rows]
    file = Path(folder or ".", "tokenizer.json")
    if folder is None or not file.is_file():
        raise UsageError(
            "the prompts are texts, and there is no tokenizer.json beside the model to count their tokens; "
            "give --prompt-len, --gen-len and --num-prompts instead of -i, or name the model's folder"
        )
    tokenizer = Tokenizer.from_file(str(file))
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
