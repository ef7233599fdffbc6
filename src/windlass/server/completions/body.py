"""What `/v1/completions` is asked."""

from typing import Annotated, Any

from pydantic import Field

from windlass.server.errors.api_error import bad_request
from windlass.server.questions.sampling_body import MAX_LOGPROBS, SamplingBody, Several, Whole

OPENAI_MAX_TOKENS = 16

TokenIds = Annotated[Several[Whole], Field(min_length=1)]

Texts = Annotated[Several[str], Field(min_length=1)]


class CompletionBody(SamplingBody):
    """One prompt or a list of them, each a text or token ids."""

    prompt: str | TokenIds | Texts | Annotated[Several[TokenIds], Field(min_length=1)]
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    best_of: Annotated[int, Field(ge=1)] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """One by one."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        tokens: list[int] = []
        several: list[str | list[int]] = []
        for each in self.prompt:
            if isinstance(each, int):
                tokens.append(each)
            else:
                several.append(each)
        return several or [tokens]

    @property
    def scores_only(self) -> bool:
        """Whether only the prompt is wanted back, with what it is worth: `echo` and `max_tokens` 0."""
        return bool(self.echo) and self.max_tokens == 0

    def check(self) -> None:
        """Raises ApiError for fields that cannot be honoured."""
        super().check()
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise bad_request(
                f"best_of {self.best_of} is not n, {self.n or 1}; ask for all with n and choose by their logprobs",
                "best_of",
            )
        if self.max_tokens == 0 and not self.echo:
            raise bad_request("max_tokens is 0 and echo is not true, so the answer would be empty", "max_tokens")

    def given(self) -> dict[str, Any]:
        """The fields of SamplingParams that were given."""
        values: dict[str, Any] = {"max_tokens": OPENAI_MAX_TOKENS} | super().given()
        if self.scores_only:
            values["max_tokens"] = 1  # the pass that reads the prompt gives a token; it is not shown
        if self.logprobs is not None:
            values |= {"logprobs": self.logprobs} | ({"prompt_logprobs": self.logprobs} if self.echo else {})
        return values
