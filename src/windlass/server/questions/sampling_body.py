"""What both ways of asking share: how tokens are drawn, and how the answer comes back."""

from dataclasses import replace
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from windlass.errors import UsageError
from windlass.facts.sampling_params import SamplingParams
from windlass.server.errors.api_error import bad_request
from windlass.server.questions.fields import check_fields

MAX_CHOICES = 128  # OpenAI's own limit on n
MAX_LOGPROBS = 20  # and on top_logprobs
MAX_STRINGS = MAX_STRING = 1024  # stop strings and bad words, and characters of one: each is looked for at every token

Whole = Annotated[int, Field(ge=0, le=2**31 - 1)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STRING)]

T = TypeVar("T")
Several = Annotated[list[T], Field(fail_fast=True)]
"""A list that is refused at its first wrong entry: a message for each of a million would hold everybody up."""


class FirstWrong:
    """For an object whose values are all of a `kind`: of one with wrong entries only the first is judged."""

    def __init__(self, kind: Any) -> None:
        self._one: TypeAdapter[Any] = TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False))

    def __call__(self, table: Any) -> Any:
        """The object, or as much of it as shows what is wrong."""
        for key, value in table.items() if isinstance(table, dict) else ():
            try:
                self._one.validate_python(value)
            except ValidationError:
                return {key: value}
        return table


Bias = Annotated[float, Field(ge=-100, le=100)]
Stops = Annotated[Several[Stop], Field(max_length=MAX_STRINGS)]

# Fields of SamplingParams that a body names alike.
_SAMPLING = (
    "n", "max_tokens", "min_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "stop_token_ids",
    "ignore_eos", "skip_special_tokens", "include_stop_str_in_output", "repetition_penalty", "presence_penalty",
    "frequency_penalty", "allowed_token_ids", "bad_words",
)  # fmt: skip


class Strict(BaseModel):
    """A part of a question: `"5"` is no number and 1 is no boolean. What it does not declare is kept for fields.py."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class StreamOptions(Strict):
    """`include_usage`: the last event before [DONE] counts the tokens."""

    include_usage: bool | None = None


class SamplingBody(Strict):
    """Names as in OpenAI's interface and, for what OpenAI does not have, in vLLM's."""

    model: str | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: Whole | None = None
    min_tokens: Whole | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Stop | Stops | None = None
    stop_token_ids: Several[Whole] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[dict[str, Bias] | None, BeforeValidator(FirstWrong(Bias))] = None
    allowed_token_ids: Annotated[Several[Whole], Field(min_length=1)] | None = None
    bad_words: Stops | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether a stream counts its tokens at the end."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def check(self) -> None:
        """Raises ApiError for fields that cannot be honoured."""
        check_fields(self.model_extra or {}, type(self).model_fields)
        if self.stream_options is not None and not self.stream:
            raise bad_request("stream_options needs stream true beside it; leave it out", "stream_options")

    def given(self) -> dict[str, Any]:
        """The fields of SamplingParams that were given. Raises ApiError."""
        values = {name: getattr(self, name) for name in _SAMPLING if getattr(self, name) is not None}
        if self.logit_bias:
            values["logit_bias"] = {self._token_id(key): value for key, value in self.logit_bias.items()}
        return values

    def _token_id(self, key: str) -> int:
        if not (key.isascii() and key.isdigit() and len(key) < 11):
            raise bad_request(f'logit_bias: {key!r:.40} is no token id; write ids as {{"42": -100}}', "logit_bias")
        return int(key)


def applied(defaults: SamplingParams, given: dict[str, Any]) -> SamplingParams:
    """The model's own parameters with what was asked. Raises ApiError naming the field."""
    try:
        return replace(defaults, **given)
    except UsageError as error:
        words = str(error).replace(",", " ").split()
        raise bad_request(str(error), next((word for word in words if word in given), None)) from error
