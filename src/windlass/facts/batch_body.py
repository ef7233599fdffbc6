"""The body of a batch row: what is asked, and how the answer is to be drawn.

A field that would change the answer and cannot be honoured is refused by name, a misspelt one too: an answer drawn
otherwise than asked is worse than an error row. Fields that only label a request are passed over.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from windlass.errors import RequestError, UsageError
from windlass.facts.echo import Echo
from windlass.facts.json_value import (
    read_boolean,
    read_ids,
    read_number,
    read_object,
    read_text,
    read_texts,
    read_whole,
)
from windlass.facts.response_format import read_response_format
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.structured_outputs import read_structured_outputs

MAX_CHOICES = 128  # OpenAI's own limit on n
MAX_LOGPROBS = 20  # and on top_logprobs

_LABELS = frozenset({
    "model", "metadata", "user", "store", "stream", "stream_options", "service_tier", "safety_identifier",
    "prompt_cache_key",
})  # fmt: skip
_ROLES = frozenset({"system", "developer", "user", "assistant"})


@dataclass(frozen=True, slots=True)
class BatchBody:
    """Exactly one of `prompt`, `prompt_token_ids` and `messages` is set.

    `sampling` holds the fields of SamplingParams that the row gives; the rest is the caller's default.

    With `echo` the answer begins with the prompt, which is `echoed` once a tokenizer has seen it. With `scores_only`
    (max_tokens 0) it is all: a token is drawn, since the pass that reads the prompt gives it, and not shown.
    """

    prompt: str | None
    prompt_token_ids: tuple[int, ...] | None
    messages: tuple[Mapping[str, str], ...] | None
    sampling: Mapping[str, object]
    return_token_ids: bool = False
    echo: bool = False
    scores_only: bool = False
    echoed: Echo | None = None

    @property
    def top_logprobs(self) -> int:
        """How many of the likeliest tokens the answer shows beside each drawn one."""
        wanted = self.sampling.get("logprobs", 0)
        return wanted if isinstance(wanted, int) else 0


def parse_body(body: Mapping[str, object], chat: bool) -> BatchBody:
    """Reads a body. Raises RequestError naming the field, what it holds and what it may hold."""
    given = {name: value for name, value in body.items() if value is not None and name not in _LABELS}
    return_token_ids = read_boolean("return_token_ids", given.pop("return_token_ids", False))
    question = given.pop("messages" if chat else "prompt", None)
    echo = False if chat else read_boolean("echo", given.pop("echo", False))
    scores_only = echo and type(given.get("max_tokens")) is int and given["max_tokens"] == 0
    if scores_only:
        given["max_tokens"] = 1
    if "response_format" in given and "structured_outputs" in given:
        raise RequestError("response_format and structured_outputs both say what form the answer has; leave one out")
    sampling = _read_logprobs(given, chat)
    if echo and "logprobs" in sampling:
        sampling["prompt_logprobs"] = sampling["logprobs"]
    for name, value in given.items():
        if name in _SAMPLING:
            field, read = _SAMPLING[name]
            sampling[field] = read(name, value)
        elif name not in _NEUTRAL or value not in _NEUTRAL[name]:
            raise RequestError(_refusal(name, value))
    _check_sampling(sampling)
    if chat:
        return BatchBody(None, None, _read_messages(question), sampling, return_token_ids)
    prompt = _read_prompt(question)
    if isinstance(prompt, str):
        return BatchBody(prompt, None, None, sampling, return_token_ids, echo, scores_only)
    return BatchBody(None, prompt, None, sampling, return_token_ids, echo, scores_only)


def _refusal(name: str, value: object) -> str:
    if name in _NEUTRAL:
        return f"{name} {value!r:.60} is not supported and would change the answer; leave it out"
    if name in ("prompt", "messages"):
        return f"{name} does not belong to this url; /v1/completions takes prompt, /v1/chat/completions messages"
    return f"unknown field {name!r:.60}; leave it out"


def _check_sampling(sampling: Mapping[str, object]) -> None:
    """Values that make no sense are found here, before a model is loaded."""
    choices = sampling.get("n")
    if isinstance(choices, int) and choices > MAX_CHOICES:
        raise RequestError(f"n must be at most {MAX_CHOICES}, got {choices}; ask in several rows")
    try:
        values: dict[str, Any] = {"max_tokens": None, **sampling}  # SamplingParams checks what they are
        params = SamplingParams(**values)
    except RequestError:
        raise
    except UsageError as error:
        raise RequestError(str(error)) from error
    if (params.logprobs or 0) > MAX_LOGPROBS:
        raise RequestError(f"logprobs must be at most {MAX_LOGPROBS}, got {params.logprobs}")


def _read_logprobs(given: dict[str, object], chat: bool) -> dict[str, object]:
    """`logprobs` is a number for completions, a switch with `top_logprobs` beside it for chats."""
    if not chat:
        return {"logprobs": read_whole("logprobs", given.pop("logprobs"))} if "logprobs" in given else {}
    wanted = read_boolean("logprobs", given.pop("logprobs", False))
    top = read_whole("top_logprobs", given.pop("top_logprobs", 0))
    if top and not wanted:
        raise RequestError(f"top_logprobs {top} needs logprobs true beside it")
    return {"logprobs": top} if wanted else {}


def _read_prompt(prompt: object) -> str | tuple[int, ...]:
    """A text or a list of token ids; OpenAI's list of one prompt is that prompt."""
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if prompt is None:
        raise RequestError("prompt is missing; write a text or a list of token ids")
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        raise RequestError(f"one prompt a row, got a list of {len(prompt)}; write a row for each")
    if isinstance(prompt, list) and all(isinstance(token, int) and not isinstance(token, bool) for token in prompt):
        if not prompt:
            raise RequestError("prompt is empty; write a text or a list of token ids")
        return tuple(prompt)
    return read_text("prompt", prompt)


def _read_messages(messages: object) -> tuple[Mapping[str, str], ...]:
    if not isinstance(messages, list) or not messages:
        raise RequestError("messages is missing; write a list of objects with role and content")
    return tuple(_read_message(index, message) for index, message in enumerate(messages))


def _read_message(index: int, message: object) -> Mapping[str, str]:
    where = f"messages[{index}]"
    if not isinstance(message, dict):
        raise RequestError(f"{where} must be an object with role and content, got {message!r:.60}")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in _ROLES:
        raise RequestError(f"{where}.role must be one of {', '.join(sorted(_ROLES))}, got {role!r:.60}")
    if isinstance(content, list):
        content = "".join(_read_part(f"{where}.content[{number}]", part) for number, part in enumerate(content))
    # Templates know the older name only; OpenAI says the two mean the same.
    return {"role": "system" if role == "developer" else role, "content": read_text(f"{where}.content", content)}


def _read_part(where: str, part: object) -> str:
    if not isinstance(part, dict) or part.get("type") != "text":
        kind = part.get("type") if isinstance(part, dict) else part
        raise RequestError(f"{where} must be of type text, got {kind!r:.60}; only text can be asked")
    return read_text(f"{where}.text", part.get("text"))


def _read_format(name: str, value: object) -> dict[str, object] | None:
    """As the fields of StructuredOutputsParams; None asks for text even where the job asks for another form."""
    form = read_response_format(value)
    return None if form is None else form.as_dict()


def _read_form(name: str, value: object) -> dict[str, object] | None:
    """The same, said in vLLM's way."""
    try:
        form = read_structured_outputs(value)
    except UsageError as error:
        raise RequestError(str(error)) from error
    return None if form is None else form.as_dict()


_SAMPLING: Mapping[str, tuple[str, Callable[[str, object], object]]] = {
    "n": ("n", read_whole),
    "max_tokens": ("max_tokens", read_whole),
    "max_completion_tokens": ("max_tokens", read_whole),
    "min_tokens": ("min_tokens", read_whole),
    "temperature": ("temperature", read_number),
    "top_p": ("top_p", read_number),
    "top_k": ("top_k", read_whole),
    "min_p": ("min_p", read_number),
    "seed": ("seed", read_whole),
    "stop": ("stop", read_texts),
    "stop_token_ids": ("stop_token_ids", read_ids),
    "ignore_eos": ("ignore_eos", read_boolean),
    "skip_special_tokens": ("skip_special_tokens", read_boolean),
    "include_stop_str_in_output": ("include_stop_str_in_output", read_boolean),
    "repetition_penalty": ("repetition_penalty", read_number),
    "presence_penalty": ("presence_penalty", read_number),
    "frequency_penalty": ("frequency_penalty", read_number),
    "logit_bias": ("logit_bias", read_object),
    "allowed_token_ids": ("allowed_token_ids", read_ids),
    "bad_words": ("bad_words", read_texts),
    "response_format": ("structured_outputs", _read_format),
    "structured_outputs": ("structured_outputs", _read_form),
}

# Fields that cannot be honoured, with the values at which they ask for nothing.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "prompt_logprobs": (),
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "early_stopping": (False,),
    "spaces_between_special_tokens": (True,),
    "truncate_prompt_tokens": (),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "reasoning_effort": (),
    "modalities": (["text"],),
}
