"""Texts that may not come, as the runs of ids that would write them: at the beginning of a word, and within a line."""

from collections.abc import Sequence

from windlass.model.tokenizer import AnyTokenizer


def bad_words(tokenizer: AnyTokenizer, texts: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Ids of each text, alone and behind a space: small vocabularies write the two in other numbers of tokens.

    Raises UsageError where the model has no tokenizer.
    """
    written = [tuple(tokenizer.encode_plain(space + text.strip())) for text in texts for space in ("", " ")]
    return tuple(ids for ids in dict.fromkeys(written) if ids)
