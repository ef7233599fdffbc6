"""What `/v1/chat/completions` is asked."""

from typing import Annotated, Any, Literal

from pydantic import Field

from windlass.server.chats.message import ChatMessage
from windlass.server.errors.api_error import bad_request
from windlass.server.questions.sampling_body import MAX_LOGPROBS, SamplingBody, Several, Strict, Whole


class ToolFunction(Strict):
    """`parameters` is a JSON schema."""

    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Strict):
    """Something that the model may call."""

    type: Literal["function"]
    function: ToolFunction


class ChatBody(SamplingBody):
    """A conversation, to be gone on with by the assistant."""

    messages: Annotated[Several[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Whole | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    tools: Several[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None

    @property
    def offered_tools(self) -> list[dict[str, Any]] | None:
        """What the template is given; None where no call is wanted."""
        if not self.tools or self.tool_choice == "none":
            return None
        return [tool.model_dump(exclude_none=True) for tool in self.tools]

    @property
    def most_calls(self) -> int | None:
        """Calls that an answer may show; None for any number."""
        return 1 if self.parallel_tool_calls is False else None

    def check(self) -> None:
        """Raises ApiError for fields that cannot be honoured."""
        super().check()
        if self.tool_choice not in (None, "none", "auto"):
            raise bad_request(
                f'tool_choice {self.tool_choice!r:.60} cannot be enforced here; use "auto" or "none"', "tool_choice"
            )
        if self.top_logprobs and not self.logprobs:
            raise bad_request(f"top_logprobs {self.top_logprobs} needs logprobs true beside it", "top_logprobs")
        if self.offered_tools and (self.response_format or {"type": "text"}).get("type") != "text":
            raise bad_request(
                "response_format would keep the model from calling tools; leave one out", "response_format"
            )
        both = (self.max_tokens, self.max_completion_tokens)
        if None not in both and both[0] != both[1]:
            raise bad_request(
                f"max_tokens is {both[0]} and max_completion_tokens {both[1]}; the two mean the same, give one",
                "max_completion_tokens",
            )
        for name in ("max_tokens", "max_completion_tokens"):
            if getattr(self, name) == 0:
                raise bad_request(f"{name} is 0, so the answer would be empty; ask for 1 at least", name)

    def given(self) -> dict[str, Any]:
        """The fields of SamplingParams that were given; without a length the answer goes on to the model's."""
        values: dict[str, Any] = {"max_tokens": self.max_completion_tokens} | super().given()
        return values | ({"logprobs": self.top_logprobs or 0} if self.logprobs else {})

    def conversation(self) -> list[dict[str, Any]]:
        """The messages as a chat template reads them. Raises ApiError."""
        return [message.for_template(place) for place, message in enumerate(self.messages)]
