"""How the form of an answer is asked for: OpenAI's `response_format`, or vLLM's `structured_outputs`."""

from typing import Any

from windlass.server.api_error import bad_request
from windlass.server.sampling_body import SamplingBody


def structured_fields(body: SamplingBody) -> dict[str, Any]:
    """The fields of SamplingParams that say so; none where any text will do. Raises ApiError."""
    for name in ("response_format", "structured_outputs"):
        value = getattr(body, name)
        if value is not None and value != {"type": "text"}:
            raise bad_request(f"{name} {value!r:.60} is not supported; leave it out", name)
    return {}
