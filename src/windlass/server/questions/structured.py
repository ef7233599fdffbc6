"""How the form of an answer is asked for: OpenAI's `response_format`, or vLLM's `structured_outputs`."""

from collections.abc import Callable
from typing import Any

from windlass.errors import UsageError
from windlass.facts.response_format import read_response_format
from windlass.facts.structured_outputs import StructuredOutputsParams, read_structured_outputs
from windlass.server.errors.api_error import bad_request
from windlass.server.questions.sampling_body import SamplingBody

_READERS: tuple[tuple[str, Callable[[object], StructuredOutputsParams | None]], ...] = (
    ("response_format", read_response_format),
    ("structured_outputs", read_structured_outputs),
)


def form_field(body: SamplingBody) -> str:
    """Which of the two fields the form of the answer is in."""
    return "structured_outputs" if body.response_format is None else "response_format"


def structured_fields(body: SamplingBody) -> dict[str, Any]:
    """The fields of SamplingParams that say so; none where any text will do. Raises ApiError."""
    forms: list[StructuredOutputsParams] = []
    for name, read in _READERS:
        value = getattr(body, name)
        try:
            form = None if value is None else read(value)
        except UsageError as error:
            raise bad_request(str(error), name) from error
        if form is not None:
            forms.append(form)
    if len(forms) > 1:
        raise bad_request(
            "response_format and structured_outputs both say what form the answer has; leave one out",
            "structured_outputs",
        )
    return {"structured_outputs": forms[0]} if forms else {}
