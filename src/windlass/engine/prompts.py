"""Turns what a caller may pass as prompts into requests."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from windlass.errors import UsageError
from windlass.facts.request import Request
from windlass.facts.sampling_params import SamplingParams
from windlass.model.tokenizer import AnyTokenizer

Prompt = str | Mapping[str, Any]
Prompts = Prompt | Sequence[Prompt]


def read_prompts(
    prompts: Prompts,
    sampling_params: SamplingParams | Sequence[SamplingParams] | None,
    default: SamplingParams,
    tokenizer: AnyTokenizer,
    numbers: Iterator[int],
) -> list[Request]:
    """One request a prompt. Raises UsageError for a prompt of another kind, or if the numbers do not match."""
    listed: Sequence[Prompt] = [prompts] if isinstance(prompts, (str, Mapping)) else prompts
    if sampling_params is None or isinstance(sampling_params, SamplingParams):
        params = [sampling_params or default] * len(listed)
    else:
        params = list(sampling_params)
    if len(params) != len(listed):
        raise UsageError(
            f"{len(listed)} prompts were given with {len(params)} sampling_params; give one, or one a prompt"
        )
    return [
        _request(str(next(numbers)), prompt, chosen, tokenizer) for prompt, chosen in zip(listed, params, strict=True)
    ]


def _request(request_id: str, prompt: Prompt, params: SamplingParams, tokenizer: AnyTokenizer) -> Request:
    if isinstance(prompt, str):
        return Request(request_id, prompt, tuple(tokenizer.encode(prompt)), params)
    if isinstance(prompt, Mapping) and "prompt_token_ids" in prompt:
        return Request(request_id, None, tuple(prompt["prompt_token_ids"]), params)
    raise UsageError(
        f'a prompt must be a string or {{"prompt_token_ids": [...]}}, got {type(prompt).__name__}: {str(prompt)[:80]}'
    )
