"""Prompts with what may follow them, as token ids: a text and its beginning are cut into tokens together.

lm-eval's rule: spaces that a prompt ends in belong to the continuation, and the continuation's tokens are those of the
whole less as many as the prompt alone has. A prompt without tokens is one begin token, or one end token where the
tokenizer has no begin token, since the first token of a text has nothing before it. Special tokens are those that
`generate` puts before a prompt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from windlass.engine.prompts import Prompt, Prompts, described, listed, read_prompt
from windlass.errors import RequestError, UsageError
from windlass.model.tokenizer import AnyTokenizer

Continuations = Prompt | Sequence[Prompt | Sequence[Prompt]]

A_CONTINUATION = 'a continuation must be a string or {"prompt_token_ids": [...]}, or several of them a list'


@dataclass(frozen=True, slots=True)
class Continued:
    """Prompt and continuation, `token_ids`, of which those from `first` on are the continuation's."""

    token_ids: tuple[int, ...]
    first: int


def read_continuations(prompts: Prompts, continuations: Any, tokenizer: AnyTokenizer) -> list[list[Continued]]:
    """For each prompt what may follow it: one continuation each, or several each.

    Of one prompt that is not in a list `continuations` are the prompt's own. Raises UsageError for anything else, and
    RequestError for a continuation that adds no token.
    """
    asked = listed(prompts)
    alone = isinstance(prompts, (str, Mapping))
    groups = [_several(continuations)] if alone else [_several(group) for group in _groups(continuations, len(asked))]
    return [
        [_continued(prompt, continuation, tokenizer) for continuation in group]
        for prompt, group in zip(asked, groups, strict=True)
    ]


def _groups(continuations: Any, count: int) -> Sequence[Any]:
    if isinstance(continuations, (str, bytes, Mapping)) or not isinstance(continuations, Sequence):
        raise UsageError(f"{A_CONTINUATION}, for each of {count} prompts, got {described(continuations)}")
    if len(continuations) != count:
        raise UsageError(
            f"{count} prompts were given with {len(continuations)} continuations; give one, or a list of several, "
            "a prompt"
        )
    return continuations


def _several(group: Any) -> Sequence[Any]:
    if isinstance(group, (str, Mapping)):
        return [group]
    if isinstance(group, bytes) or not isinstance(group, Sequence):
        raise UsageError(f"{A_CONTINUATION}, got {described(group)}")
    return group


def _continued(prompt: Any, continuation: Any, tokenizer: AnyTokenizer) -> Continued:
    context, added = _text(prompt), _text(continuation)
    if context is not None and added is not None:
        stripped = context.rstrip()
        whole, before = _ids(context + added, tokenizer), _ids(stripped, tokenizer)
        if not before:
            before = _nothing_before(tokenizer)
            whole = whole if whole[:1] == before else before + whole
    else:
        before = _ids(prompt, tokenizer)
        behind = _ids(continuation, tokenizer) if added is None else tuple(tokenizer.encode_plain(added))
        whole = before + behind
    if not before:
        raise RequestError("the prompt has 0 tokens; give at least 1, since the first of a text has nothing before it")
    if len(whole) <= len(before):
        raise RequestError(
            f"the continuation {str(continuation)[:40]!r} adds 0 tokens to its prompt of {len(before)}; give at least 1"
        )
    return Continued(whole, len(before))


def _text(prompt: Any) -> str | None:
    """The text of a prompt that is one."""
    text = prompt.get("prompt") if isinstance(prompt, Mapping) and "prompt_token_ids" not in prompt else prompt
    return text if isinstance(text, str) else None


def _ids(prompt: Any, tokenizer: AnyTokenizer) -> tuple[int, ...]:
    return read_prompt(prompt, tokenizer)[1]


def _nothing_before(tokenizer: AnyTokenizer) -> tuple[int, ...]:
    begin = tokenizer.bos_token_id
    return tokenizer.eos_token_ids[:1] if begin is None else (begin,)
