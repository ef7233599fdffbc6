"""How many tokens a request took."""

from collections.abc import Iterable

from pydantic import BaseModel

from windlass.facts.completion import RequestOutput


class Usage(BaseModel):
    """What was read and what was generated, shown or not."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


def usage_of(outputs: Iterable[RequestOutput], scores_only: bool = False) -> Usage:
    """Of all the prompts of a request. With `scores_only` the token that a prompt gave was not asked for."""
    prompts = answers = 0
    for output in outputs:
        prompts += len(output.prompt_token_ids)
        answers += 0 if scores_only else sum(len(choice.token_ids) for choice in output.outputs)
    return Usage(prompt_tokens=prompts, completion_tokens=answers, total_tokens=prompts + answers)
