"""What happens in a chat, as the door shows it."""

from dataclasses import dataclass

from windlass.facts.completion import RequestOutput


@dataclass(frozen=True, slots=True)
class AnswerText:
    """More of the answer: what is to be written next, nothing of what was before."""

    text: str


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """The answer is over. `output` is None where nothing came; `stopped` says that it was cut short by hand."""

    question: str
    output: RequestOutput | None
    stopped: bool


@dataclass(frozen=True, slots=True)
class Notice:
    """Lines for the person, not part of any answer; a `hint` was not asked for."""

    lines: tuple[str, ...]
    hint: bool = False


@dataclass(frozen=True, slots=True)
class Farewell:
    """The person asked to leave."""


ChatEvent = AnswerText | AnswerEnd | Notice | Farewell
