"""A conversation as a value: who said what, in order, and its form as JSON.

The file is `{"messages": [{"role": "user", "content": "..."}, ...]}`, the same messages that OpenAI's clients and
batch rows carry, so that a kept conversation can be asked elsewhere.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from windlass.errors import RequestError, UsageError
from windlass.facts.json_value import read_text

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One thing said."""

    role: Role
    content: str

    def as_dict(self) -> dict[str, str]:
        """As chat templates and OpenAI's clients take it."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Conversation:
    """At most one system message, and questions each with its answer. It never changes; each turn makes a new one."""

    system: str | None = None
    exchanges: tuple[tuple[str, str], ...] = ()

    @property
    def messages(self) -> tuple[Message, ...]:
        """Everything said, in order."""
        said: tuple[Message, ...] = () if self.system is None else (Message("system", self.system),)
        for question, answer in self.exchanges:
            said += (Message("user", question), Message("assistant", answer))
        return said

    def under(self, system: str | None) -> "Conversation":
        """The same exchanges under another system message, or under none."""
        return Conversation(system, self.exchanges)

    def answered(self, question: str, answer: str) -> "Conversation":
        """One exchange longer."""
        return Conversation(self.system, (*self.exchanges, (question, answer)))

    def cleared(self) -> "Conversation":
        """The system message alone."""
        return Conversation(self.system)

    def asking(self, question: str) -> tuple[Message, ...]:
        """Everything said and the next question, for which an answer is wanted."""
        return (*self.messages, Message("user", question))

    def continuing(self, question: str) -> str:
        """The same for a model without a chat template: one text, from which the model goes on.

        The system message stands on lines of its own; an answer follows its question as the model wrote it; the next
        question begins a new line.
        """
        head = "" if self.system is None else f"{self.system}\n"
        return head + "".join(f"{asked}{said}\n" for asked, said in self.exchanges) + question

    def as_json(self) -> str:
        """The text of a conversation file."""
        listed = [message.as_dict() for message in self.messages]
        return json.dumps({"messages": listed}, ensure_ascii=False, indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> "Conversation":
        """Raises UsageError, saying what was found and what is needed, for a text that is something else."""
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"it is no JSON ({error})") from error
        listed = found.get("messages") if isinstance(found, dict) else None
        if not isinstance(listed, list):
            raise UsageError('it holds no list "messages"')
        try:
            return _paired([_read(f"messages[{place}]", item) for place, item in enumerate(listed)])
        except RequestError as error:
            raise UsageError(str(error)) from error


def continued(messages: Sequence[Mapping[str, Any]]) -> str:
    """Messages and the question behind them for a model without a chat template, see `Conversation.continuing`.

    Raises RequestError where user and assistant do not speak by turns.
    """
    system = messages[0]["content"] if messages and messages[0]["role"] == "system" else None
    said = messages[system is not None :]
    turns = [message["role"] for message in said]
    if turns != ["user" if place % 2 == 0 else "assistant" for place in range(len(turns))] or len(turns) % 2 == 0:
        raise RequestError(
            "this model has no chat template: it goes on from a system message and from user and assistant by turns, "
            "the last of them the user"
        )
    texts = [message["content"] for message in said]
    return Conversation(system, tuple(zip(texts[:-1:2], texts[1:-1:2], strict=True))).continuing(texts[-1])


def _read(where: str, item: object) -> Message:
    if not isinstance(item, Mapping):
        raise RequestError(f"{where} must be an object with role and content, got {item!r:.60}")
    content = read_text(f"{where}.content", item.get("content"))
    match item.get("role"):
        case "system":
            return Message("system", content)
        case "user":
            return Message("user", content)
        case "assistant":
            return Message("assistant", content)
        case other:
            raise RequestError(f"{where}.role must be system, user or assistant, got {other!r:.60}")


def _paired(messages: list[Message]) -> Conversation:
    """Checks who speaks when: a system message may come first, then user and assistant by turns."""
    system = messages[0].content if messages and messages[0].role == "system" else None
    start = 0 if system is None else 1
    for place, message in enumerate(messages[start:], start):
        expected = ("user", "assistant")[(place - start) % 2]
        if message.role != expected:
            raise RequestError(f"messages[{place}].role must be {expected}, as the two take turns, got {message.role}")
    said = [message.content for message in messages[start:]]
    if len(said) % 2:
        raise RequestError(f"messages[{len(messages) - 1}] is a question without an answer")
    return Conversation(system, tuple(zip(said[::2], said[1::2], strict=True)))
