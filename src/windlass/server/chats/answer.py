"""What `/v1/chat/completions` answers: whole, or in pieces as the text grows."""

from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import uuid4

from pydantic import BaseModel

from windlass.facts.completion import CompletionOutput, RequestOutput
from windlass.facts.logprob_forms import chat_logprobs
from windlass.server.chats.body import ChatBody
from windlass.server.chats.tool_calls import ToolCall, ToolCallReader
from windlass.server.questions.growth import Gain, Growth
from windlass.server.questions.usage import Usage

FinishReason = Literal["stop", "length", "tool_calls"]


class TokenLogprob(BaseModel):
    """A token, as text and as bytes."""

    token: str
    logprob: float
    bytes: list[int] | None


class DrawnLogprob(TokenLogprob):
    """The token that was drawn, and the likeliest in its place."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(BaseModel):
    """One entry a token."""

    content: list[DrawnLogprob] | None
    refusal: None = None


class FunctionCall(BaseModel):
    """`arguments` are JSON in a string, as the model wrote them: check them before use."""

    name: str
    arguments: str


class ToolCallAnswer(BaseModel):
    """A call that the model wants made. `index` is there in streams."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class ToolCallPiece(ToolCallAnswer):
    """A call comes in one piece."""

    index: int


class ChatAnswerMessage(BaseModel):
    """What the assistant says; `content` is null where it only calls."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[ToolCallAnswer] | None = None


class ChatChoice(BaseModel):
    """One of the `n` answers."""

    index: int
    message: ChatAnswerMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None
    token_ids: list[int] | None = None


class ChatCompletion(BaseModel):
    """The whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ChatDelta(BaseModel):
    """What is new; `role` comes first."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[ToolCallPiece] | None = None


class ChatPiece(BaseModel):
    """A piece of one of the `n` answers."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None
    token_ids: list[int] | None = None


class ChatChunk(BaseModel):
    """An event of a stream. The last one may hold `usage` alone."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatPiece]
    usage: Usage | None = None


@dataclass(slots=True)
class _Choice:
    """One answer as it grows. `reader` is there where calls are looked for."""

    reader: ToolCallReader | None
    growth: Growth = field(default_factory=Growth)


class ChatWriter:
    """Writes the choices of one request."""

    def __init__(self, body: ChatBody) -> None:
        self._body = body
        self._looks_for_calls = body.offered_tools is not None
        self._choices: dict[int, _Choice] = {}

    def opening(self) -> list[ChatPiece]:
        """The pieces that begin a stream."""
        indexes = range(self._body.n or 1)
        return [ChatPiece(index=index, delta=ChatDelta(role="assistant", content="")) for index in indexes]

    def pieces(self, output: RequestOutput) -> list[ChatPiece]:
        """What the answers gained."""
        pieces = (self._piece(choice) for choice in output.outputs)
        return [piece for piece in pieces if piece is not None]

    def choices(self, output: RequestOutput) -> list[ChatChoice]:
        """The answers at their end."""
        return [self._whole(choice) for choice in output.outputs]

    def _piece(self, choice: CompletionOutput) -> ChatPiece | None:
        state = self._state(choice)
        gain = state.growth.gain(choice)
        if not (gain.token_ids or gain.text) and (choice.finish_reason is None or state.growth.ended):
            return None
        state.growth.ended = choice.finish_reason is not None
        before = state.reader.found if state.reader is not None else 0
        text, calls = _read(state.reader, gain.text, choice)
        finish = _finish_reason(state.reader, choice)
        if not text and not calls and finish is None and gain.logprobs is None:
            return None
        pieces = [
            ToolCallPiece(index=before + place, id=_call_id(), function=_function(call))
            for place, call in enumerate(calls)
        ]
        delta = ChatDelta(content=text or None, tool_calls=pieces or None)
        return ChatPiece(index=choice.index, delta=delta, finish_reason=finish, **self._beside(gain))

    def _whole(self, choice: CompletionOutput) -> ChatChoice:
        state = self._state(choice)
        gain = state.growth.gain(choice)
        text, calls = _read(state.reader, gain.text, choice)
        answers = [ToolCallAnswer(id=_call_id(), function=_function(call)) for call in calls]
        message = ChatAnswerMessage(content=None if answers and not text else text, tool_calls=answers or None)
        finish = _finish_reason(state.reader, choice)
        return ChatChoice(index=choice.index, message=message, finish_reason=finish, **self._beside(gain))

    def _beside(self, gain: Gain) -> dict[str, Any]:
        """Log probabilities and ids, where they were asked for."""
        told: dict[str, Any] = {}
        if gain.logprobs is not None:
            told["logprobs"] = chat_logprobs(gain.token_ids, gain.logprobs, self._body.top_logprobs or 0)
        if self._body.return_token_ids:
            told["token_ids"] = list(gain.token_ids)
        return told

    def _state(self, choice: CompletionOutput) -> _Choice:
        reader = ToolCallReader(self._body.most_calls) if self._looks_for_calls else None
        return self._choices.setdefault(choice.index, _Choice(reader))


def _read(reader: ToolCallReader | None, text: str, choice: CompletionOutput) -> tuple[str, list[ToolCall]]:
    """The text and the calls of what is new."""
    if reader is None:
        return text, []
    parts = reader.feed(text, ended=choice.finish_reason is not None)
    told = "".join(part for part in parts if isinstance(part, str))
    return told, [part for part in parts if isinstance(part, ToolCall)]


def _finish_reason(reader: ToolCallReader | None, choice: CompletionOutput) -> FinishReason | None:
    if reader is not None and reader.found and choice.finish_reason == "stop":
        return "tool_calls"
    return choice.finish_reason


def _function(call: ToolCall) -> FunctionCall:
    return FunctionCall(name=call.name, arguments=call.arguments)


def _call_id() -> str:
    return f"call_{uuid4().hex[:24]}"
