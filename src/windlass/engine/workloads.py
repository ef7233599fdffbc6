"""What to plan for, when the work of a call is known: answers to generate, or passages to score."""

from collections.abc import Sequence

from windlass.engine.passage import Passage
from windlass.engine.sequence import Sequence as Answer
from windlass.facts.workload import Workload


def workload_of_answers(groups: Sequence[Sequence[Answer]]) -> Workload:
    """The longest prompt and the longest sequence; there is a group for each request, one at least."""
    prompt_len = max(len(answers[0].request.prompt_token_ids) for answers in groups)
    longest = max(answers[0].most_tokens for answers in groups)
    scored = any(answers[0].request.sampling_params.prompt_logprobs is not None for answers in groups)
    return Workload(sum(map(len, groups)), prompt_len, longest - prompt_len + 1, scored=scored)


def workload_of_passages(passages: Sequence[Passage]) -> Workload:
    """The longest of them, of which there is one at least."""
    return Workload(len(passages), max(len(passage.token_ids) for passage in passages), 1, scored=True)
