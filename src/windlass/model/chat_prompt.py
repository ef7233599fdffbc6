"""What a conversation is to a model: its chat template's text, or all that was said as one text where it has none.

The one rule for a chat in the terminal, a question to a server and a row of a batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from windlass.facts.conversation import continued
from windlass.model.tokenizer import AnyTokenizer


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """`text` up to where the answer begins. A template has `written` every special token into it itself."""

    text: str
    written: bool

    def ids(self, tokenizer: AnyTokenizer) -> list[int]:
        """Its token ids. Raises UsageError where the model has no tokenizer."""
        return tokenizer.encode_plain(self.text) if self.written else tokenizer.encode(self.text)


def chat_prompt(
    tokenizer: AnyTokenizer, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
) -> ChatPrompt:
    """messages: `{"role": ..., "content": ...}` each; tools: for a template that `knows_tools`.

    Raises RequestError for messages that the template refuses, or that are no turns where there is none.
    """
    if tokenizer.has_chat_template:
        return ChatPrompt(tokenizer.chat_text(messages, tools), True)
    return ChatPrompt(continued(messages), False)


def chat_ids(tokenizer: AnyTokenizer, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """The token ids of a conversation. Raises as chat_prompt and its `ids` do."""
    return chat_prompt(tokenizer, messages).ids(tokenizer)
