"""Who answers in a chat: the model in this process, or a server somewhere."""

from collections.abc import Generator
from typing import Protocol

from windlass.facts.completion import RequestOutput
from windlass.facts.conversation import Conversation
from windlass.facts.run_report import RunReport


class Answerer(Protocol):
    """`open` first. What it raises is WindlassError; the conversation then is as it was."""

    @property
    def report(self) -> RunReport | None:
        """What was measured in this process; None where another one answers."""

    def open(self) -> tuple[str, ...]:
        """Makes ready; what is to be said of it."""

    def notices(self) -> tuple[str, ...]:
        """What a person should know before the first message."""

    def ask(self, conversation: Conversation, question: str) -> Generator[RequestOutput, None, None]:
        """The answer as it grows. Closing it ends the answer."""

    def stats(self) -> tuple[str, ...]:
        """What is known of the speed, the memory and what binds; nothing that is not."""

    def kept(self, output: RequestOutput) -> str:
        """The answer as it enters the conversation."""

    def tokens(self, output: RequestOutput) -> int | None:
        """Those of the conversation with the answer, if they are known."""

    def why_cut(self, output: RequestOutput) -> str:
        """Why an answer was ended by its length."""

    def context(self, tokens: str) -> str:
        """The tokens of the conversation, beside their limit."""
