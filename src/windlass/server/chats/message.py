"""A message of a conversation, as OpenAI's clients write it and as chat templates read it."""

import json
from typing import Any, Literal

from pydantic import field_validator

from windlass.server.errors.api_error import bad_request
from windlass.server.questions.sampling_body import Several, Strict


class TextPart(Strict):
    """A part of a message. Only text can be read here; images, sound and files are refused."""

    type: Literal["text"]
    text: str

    @field_validator("type", mode="before")
    @classmethod
    def _is_text(cls, kind: object) -> object:
        if kind != "text":
            raise ValueError("only parts of type text can be read here")
        return kind


class CalledFunction(Strict):
    """`arguments` are JSON, in a string."""

    name: str
    arguments: str = "{}"


class PastCall(Strict):
    """A call that an earlier answer made."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Strict):
    """`developer` is the newer name of `system`; the two mean the same."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Several[TextPart] | None = None
    name: str | None = None
    tool_calls: Several[PastCall] | None = None
    tool_call_id: str | None = None

    def for_template(self, place: int) -> dict[str, Any]:
        """What templates expect: text in one piece, arguments as an object. Raises ApiError."""
        if self.content is None and not self.tool_calls:
            raise bad_request(f"messages[{place}].content is missing; write a text", f"messages[{place}].content")
        content = self.content or ""
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        message: dict[str, Any] = {"role": "system" if self.role == "developer" else self.role, "content": text}
        if self.tool_calls:
            message["tool_calls"] = [self._call(place, number) for number in range(len(self.tool_calls))]
        named = {"name": self.name, "tool_call_id": self.tool_call_id}
        return message | {key: value for key, value in named.items() if value is not None}

    def _call(self, place: int, number: int) -> dict[str, Any]:
        assert self.tool_calls is not None
        call = self.tool_calls[number]
        where = f"messages[{place}].tool_calls[{number}].function.arguments"
        try:
            arguments = json.loads(call.function.arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise bad_request(f"{where} is not JSON: {error}", where) from error
        function = {"name": call.function.name, "arguments": arguments}
        return {"id": call.id, "type": "function", "function": function}
