"""Turns what a caller may pass as prompts into requests, and as messages into conversations.

Callers pass anything: whatever is no prompt is refused with what it is and what a prompt looks like.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from windlass.errors import RequestError, UsageError
from windlass.facts.plain_number import plain_whole
from windlass.facts.request import Request
from windlass.facts.sampling_params import SamplingParams
from windlass.model.tokenizer import AnyTokenizer

Prompt = str | Mapping[str, Any]
Prompts = Prompt | Sequence[Prompt]
Message = Mapping[str, Any]
Messages = Sequence[Message] | Sequence[Sequence[Message]]

A_PROMPT = 'a prompt must be a string or {"prompt_token_ids": [...]}'
A_MESSAGE = 'write each as {"role": "user", "content": "..."}'


def read_prompts(
    prompts: Prompts,
    sampling_params: SamplingParams | Sequence[SamplingParams] | None,
    default: SamplingParams,
    tokenizer: AnyTokenizer,
    numbers: Iterator[int],
) -> list[Request]:
    """One request a prompt; `{"prompt": "..."}` is the string alone, as in vLLM.

    Raises UsageError for a prompt or parameters of another kind, or if the numbers do not match, and RequestError for
    a prompt without tokens or with something that is no token id.
    """
    asked = listed(prompts)
    params = _params(sampling_params, default, len(asked))
    pairs = [(*read_prompt(prompt, tokenizer), chosen) for prompt, chosen in zip(asked, params, strict=True)]
    return [Request(str(next(numbers)), text, ids, chosen) for text, ids, chosen in pairs]


def read_conversations(messages: Messages) -> list[Sequence[Message]]:
    """One conversation or several, as several. Raises UsageError for anything else; the template may refuse more."""
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise UsageError(f"messages must be a list of messages, got {described(messages)}; {A_MESSAGE}")
    several = bool(messages) and all(isinstance(item, (list, tuple)) for item in messages)
    conversations: Any = list(messages) if several else [messages]
    for conversation in conversations:
        if not conversation:
            raise RequestError(f"a conversation has 0 messages; give at least one, {A_MESSAGE}")
        for place, message in enumerate(conversation):
            _check_message(place, message)
    return list(conversations)


def listed(prompts: Any) -> Sequence[Any]:
    """One prompt or several, as several. Raises UsageError for anything else."""
    if isinstance(prompts, (str, Mapping)):
        return [prompts]
    if isinstance(prompts, bytes) or not isinstance(prompts, Sequence):
        raise UsageError(f"{A_PROMPT}, or a list of these, got {described(prompts)}")
    return prompts


def _params(sampling_params: Any, default: SamplingParams, count: int) -> Sequence[SamplingParams]:
    if sampling_params is None or isinstance(sampling_params, SamplingParams):
        return [sampling_params or default] * count
    if isinstance(sampling_params, (str, bytes)) or not isinstance(sampling_params, Sequence):
        raise UsageError(
            f"sampling_params must be a SamplingParams or a list of them, got {described(sampling_params)}; "
            "write it as SamplingParams(max_tokens=32)"
        )
    for item in sampling_params:
        if not isinstance(item, SamplingParams):
            raise UsageError(
                f"sampling_params must hold SamplingParams only, got {described(item)} in it; "
                "write each as SamplingParams(max_tokens=32)"
            )
    if len(sampling_params) != count:
        raise UsageError(
            f"{count} prompts were given with {len(sampling_params)} sampling_params; give one, or one a prompt"
        )
    return sampling_params


def read_prompt(prompt: Any, tokenizer: AnyTokenizer) -> tuple[str | None, tuple[int, ...]]:
    """A prompt's text, if it is one, and its token ids. Raises UsageError for what is none."""
    if isinstance(prompt, Mapping) and "prompt_token_ids" in prompt:
        ids = prompt["prompt_token_ids"]
        if not isinstance(ids, (list, tuple, range)):
            raise UsageError(
                f"prompt_token_ids must be a list of whole numbers from 0, got {described(ids)}; write it as [1, 2, 3]"
            )
        return None, tuple(map(_plain_id, ids))
    text = prompt.get("prompt") if isinstance(prompt, Mapping) else prompt
    if not isinstance(text, str):
        raise UsageError(f"{A_PROMPT}, got {described(prompt)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"the prompt {text[:40]!r} holds {text[error.start]!r} at {error.start}, half of a character; take it out"
        ) from None
    return text, tuple(tokenizer.encode(text))


def _plain_id(value: Any) -> Any:
    """numpy's numbers as Python's; what is none stays as it is, for Request to refuse."""
    number = plain_whole(value)
    return value if number is None else number


def _check_message(place: int, message: Any) -> None:
    if not isinstance(message, Mapping):
        raise UsageError(f"message {place} is {described(message)}; {A_MESSAGE}")
    if not isinstance(message.get("role"), str):
        raise UsageError(f"message {place} has the role {message.get('role')!r:.60}, which is no string; {A_MESSAGE}")
    content = message.get("content")
    calls = "tool_calls" in message  # such a message may have no content
    if not isinstance(content, (str, list)) and not (content is None and calls):
        raise UsageError(f"message {place} has the content {content!r:.60}, which is no text; {A_MESSAGE}")


def described(value: object) -> str:
    """What a caller gave, in a few words."""
    return f"{type(value).__name__}: {str(value)[:80]}"
