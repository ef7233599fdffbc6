"""The candidates of log probabilities with their texts, as the tokenizer writes each on its own."""

from collections.abc import Mapping
from dataclasses import replace

from windlass.facts.completion import Logprob
from windlass.model.tokenizer import AnyTokenizer


def with_text(candidates: Mapping[int, Logprob], tokenizer: AnyTokenizer | None) -> dict[int, Logprob]:
    """Ids that are no whole characters on their own have no text, and none has without a tokenizer."""
    if tokenizer is None:
        return dict(candidates)
    return {
        token_id: replace(entry, decoded_token=tokenizer.text_alone(token_id) or None)
        for token_id, entry in candidates.items()
    }
