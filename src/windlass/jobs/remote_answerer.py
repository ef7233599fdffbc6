"""A server answers a chat: it keeps the model, and this process the conversation."""

from collections.abc import Generator, Mapping
from typing import Any

from windlass.facts.completion import CompletionOutput, FinishReason, RequestOutput
from windlass.facts.conversation import Conversation
from windlass.facts.structured_outputs import StructuredOutputsParams
from windlass.jobs.chat_server import ChatServer
from windlass.jobs.server_state import state_lines


class RemoteAnswerer:
    """An Answerer. `model` is the server's first where it is None; `sampling` are fields of SamplingParams by name.

    Answers have text and no token ids: a server does not tell them.
    """

    def __init__(self, server: ChatServer, model: str | None, sampling: Mapping[str, Any]) -> None:
        self._server, self._model = server, model
        self._sampling = dict(sampling)
        self._form: StructuredOutputsParams | None = self._sampling.pop("structured_outputs", None)
        self._counted: int | None = 0
        self._answers = self._read = self._written = 0

    report = None

    def open(self) -> tuple[str, ...]:
        """Asks for the model's name. Raises WindlassError."""
        self._model = self._model or self._server.first_model()
        return (f"{self._model} at {self._server.url}",)

    def notices(self) -> tuple[str, ...]:
        """None."""
        return ()

    def ask(self, conversation: Conversation, question: str) -> Generator[RequestOutput, None, None]:
        """Signs of life give the answer as it is again, so that the caller may end it."""
        text, reason = "", None
        self._counted = None
        for piece in self._server.pieces(self._body(conversation, question)):
            if piece is not None:
                for choice in piece.get("choices") or ():
                    text += (choice.get("delta") or {}).get("content") or ""
                    reason = choice.get("finish_reason") or reason
                usage = piece.get("usage")
                if usage:
                    self._count(usage)
            yield _output(question, text, None)
        yield _output(question, text, "length" if reason == "length" else "stop")

    def stats(self) -> tuple[str, ...]:
        """The tokens that the server counted, and how it stands where it is a Windlass server."""
        counted: tuple[str, ...] = ()
        if self._answers:
            counted = (f"tokens   {self._read} read, {self._written} written, in {self._answers} answer(s)",)
        return (*counted, *state_lines(self._server.state()))

    def kept(self, output: RequestOutput) -> str:
        """As it came."""
        return output.outputs[0].text

    def tokens(self, output: RequestOutput) -> int | None:
        """As the server counted them."""
        return self._counted

    def why_cut(self, output: RequestOutput) -> str:
        """The server does not say."""
        return f"cut by --max-tokens {self._sampling.get('max_tokens')}, or by what the server has room for"

    def context(self, tokens: str) -> str:
        """The limit is the server's."""
        return f"{tokens} tokens at {self._server.url}"

    def _count(self, usage: Mapping[str, Any]) -> None:
        self._counted = usage.get("total_tokens")
        read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if isinstance(read, int) and isinstance(written, int):
            self._answers += 1
            self._read, self._written = self._read + read, self._written + written

    def _body(self, conversation: Conversation, question: str) -> dict[str, Any]:
        form: dict[str, Any] = {}
        if self._form is not None:
            form = {"structured_outputs": self._form.as_dict()}
        return {
            "model": self._model,
            "messages": [message.as_dict() for message in conversation.asking(question)],
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._sampling,
            **form,
        }


def _output(question: str, text: str, reason: FinishReason | None) -> RequestOutput:
    answer = CompletionOutput(0, text, (), finish_reason=reason)
    return RequestOutput("0", question, (), (answer,), reason is not None)
