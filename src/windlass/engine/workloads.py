"""What to plan for, when the work of a call is known: answers to generate, or passages to score."""

from collections.abc import Sequence

from windlass.engine.passage import Passage
from windlass.engine.sequence import Sequence as Answer
from windlass.facts.workload import Workload


def workload_of_answers(groups: Sequence[Sequence[Answer]]) -> Workload:
    """The longest prompt and the longest sequence; there is a group for each request, one at least."""
    prompt_len = max(len(answers[0].request.prompt_token_ids) for answers in groups)
    lens = tuple(answer.most_tokens for answers in groups for answer in answers)
    scored = any(answers[0].request.sampling_params.prompt_logprobs is not None for answers in groups)
    return Workload(len(lens), prompt_len, max(lens) - prompt_len + 1, scored=scored, reserved_lens=lens)


def workload_of_passages(passages: Sequence[Passage]) -> Workload:
    """The longest of them, of which there is one at least."""
    lens = tuple(len(passage.token_ids) for passage in passages)
    return Workload(len(lens), max(lens), 1, scored=True, reserved_lens=lens)
