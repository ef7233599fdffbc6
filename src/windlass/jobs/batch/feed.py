"""Hands the questions of an input to the engine one by one, as long as they fit what it was loaded for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from windlass.facts.workload import Workload
from windlass.jobs.batch.ask import Ask
from windlass.jobs.prompt_lengths import KnownBeginnings

KNOWN_LENS = 4000
"""So many rows say enough of how long rows are."""


class Feed:
    """Iterates once over what one call of the engine may take; `left` is the window that it did not, if any.

    `total` is about how many rows there are. Whoever is `closed` gets no more.
    """

    def __init__(
        self, windows: Iterator[list[Ask]], total: int | None, max_model_len: int, closed: Callable[[], bool]
    ) -> None:
        self._windows, self._total, self._limit, self._closed = windows, total, max_model_len, closed
        self.left: list[Ask] | None = next(self._windows, None)

    def skip_empty(self) -> bool:
        """Goes on to the next window with a question; tells whether there is one."""
        while self.left is not None and not self.left and not self._closed():
            self.left = next(self._windows, None)
        return bool(self.left) and not self._closed()

    def workload(self, before: Workload | None) -> Workload:
        """What the window that is left needs, and no less than `before`."""
        assert self.left
        needed = workload_of(self.left, self._limit)
        # A row may want several answers, and those that are not read yet are taken to want as many.
        expected = round((self._total or 0) * needed.num_prompts / len(self.left))
        needed = replace(needed, num_prompts=max(needed.num_prompts, expected))
        if before is None:
            return needed
        if self._holds(before, needed) and needed.num_prompts <= before.num_prompts:
            return before
        prompt_len = max(before.prompt_len, needed.prompt_len)
        gen_len = min(max(before.gen_len, needed.gen_len), self._limit - prompt_len)
        return Workload(
            max(before.num_prompts, needed.num_prompts),
            prompt_len,
            gen_len,
            (before.prompt_lens + needed.prompt_lens)[-KNOWN_LENS:],
            scored=before.scored or needed.scored,
            reserved_lens=(before.reserved_lens + needed.reserved_lens)[-KNOWN_LENS:],
            gen_lens=(before.gen_lens + needed.gen_lens)[-KNOWN_LENS:],
            shared_lens=(before.shared_lens + needed.shared_lens)[-KNOWN_LENS:],
        )

    def within(self, workload: Workload) -> Iterator[Ask]:
        """Questions up to the first window that needs more room than the workload has."""
        while self.left is not None and not self._closed():
            if self.left and not self._holds(workload, workload_of(self.left, self._limit)):
                return
            window, self.left = self.left, None
            for ask in window:
                if self._closed():
                    return
                yield ask
            self.left = next(self._windows, None)

    def _holds(self, workload: Workload, needed: Workload) -> bool:
        """Whether a model that was loaded for one has room for the other; at its full length it has for all."""
        if needed.scored and not workload.scored:
            return False
        full = workload.prompt_len + workload.gen_len >= self._limit
        return needed.prompt_len <= workload.prompt_len and (full or needed.gen_len <= workload.gen_len)


def workload_of(asks: Sequence[Ask], max_model_len: int) -> Workload:
    """The longest prompt and the longest answer of some questions, as far as both fit a sequence of the model.

    Of each is told, answer by answer, how long it may become and how much of its prompt will have been read before:
    what an earlier prompt begins with too, and the whole of it for further answers.
    """
    known, lens, shared, answers = KnownBeginnings(), list[int](), list[int](), list[int]()
    for ask in asks:
        prompt, params = ask.question.prompt_token_ids, ask.question.params
        lens += [len(prompt)] * params.n
        shared += [min(known.add(prompt), len(prompt) - 1), *[len(prompt)] * (params.n - 1)]
        answers += [min(params.max_tokens or max_model_len, max_model_len - len(prompt))] * params.n
    longest = max(lens)
    return Workload(
        len(lens),
        longest,
        min(max(answers), max_model_len - longest),
        tuple(lens),
        scored=any(ask.question.params.prompt_logprobs is not None for ask in asks),
        reserved_lens=tuple(length + more - 1 for length, more in zip(lens, answers, strict=True)),
        gen_lens=tuple(answers),
        shared_lens=tuple(shared),
    )
