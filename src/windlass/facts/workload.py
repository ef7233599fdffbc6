"""How much work a run is asked to do; the planner divides memory for it."""

import math
from dataclasses import dataclass

UNEVEN = 1.15
"""A block of some sequences may hold longer ones than the mean of all, by so much."""


@dataclass(frozen=True, slots=True)
class Workload:
    """`num_prompts` sequences of at most `prompt_len` prompt tokens that each grow by at most `gen_len` tokens.

    What is known of them one by one, in the order they come, of all or of some that the others are like: `prompt_lens`
    are the lengths of the prompts, none over `prompt_len`; `gen_lens` those of the answers; `shared_lens` how many
    tokens of a prompt an earlier one begins with too, which need not be read again (the whole prompt, where it is
    another answer to the same one). No sequence is longer than `prompt_len` and `gen_len` together. `mean_gen_len` is
    how long answers become on average where some end before `gen_len` and `gen_lens` is empty. Memory is divided for
    the most, time is forecast for what is expected. `reserved_lens` are the tokens that each sequence may come to: a
    block of unequal ones then gets the pages that so many of them take. With `scored` the logits of every token of the
    prompts are wanted, not those of the last alone.
    """

    num_prompts: int = 1
    prompt_len: int = 512
    gen_len: int = 128
    prompt_lens: tuple[int, ...] = ()
    mean_gen_len: float | None = None
    scored: bool = False
    reserved_lens: tuple[int, ...] = ()
    gen_lens: tuple[int, ...] = ()
    shared_lens: tuple[int, ...] = ()

    @property
    def tokens_per_sequence(self) -> int:
        """Keys and values a sequence may need. The last token generated is never fed back."""
        return self.prompt_len + max(self.gen_len, 1) - 1

    def pages(self, sequences: int, page_tokens: int) -> int:
        """Pages of keys and values for so many sequences at a time.

        Each takes as many as the longest, unless their lengths are known: then all together take their sum, and some of
        them as many as the mean says and a little more, for at least the longest. Who finds no page waits.
        """
        longest = -(-self.tokens_per_sequence // page_tokens)
        if not self.reserved_lens:
            return sequences * longest
        each = sorted((-(-length // page_tokens) for length in self.reserved_lens), reverse=True)
        if sequences < len(each):
            expected = math.ceil(sequences * sum(each) / len(each) * UNEVEN)
            return max(longest, min(sum(each[:sequences]), expected))
        return max(longest, sum(each) + (sequences - len(each)) * longest)

    @property
    def mean_prompt_len(self) -> float:
        """Tokens of a prompt, on average."""
        return sum(self.prompt_lens) / len(self.prompt_lens) if self.prompt_lens else float(max(1, self.prompt_len))

    @property
    def generated_tokens(self) -> float:
        """New tokens of all sequences together, as expected."""
        if self.gen_lens:
            return sum(self.gen_lens) / len(self.gen_lens) * self.num_prompts
        return self.num_prompts * (self.gen_len if self.mean_gen_len is None else min(self.mean_gen_len, self.gen_len))

    def still_running(self, step: float) -> float:
        """The share of the sequences that want a token after `step` tokens of theirs, from 1 down to 0.

        Answers end so that their mean is `mean_gen_len`: (1 - step / most) to the power that gives it, since nothing
        more is known of how they are spread. Without a mean nothing ends early.
        """
        if self._power == 0.0:
            return 1.0
        return math.pow(max(0.0, 1.0 - step / self.gen_len), self._power)

    def answer_len(self, share: float) -> int:
        """Tokens of an answer, where `share` (0 to 1) of all answers are shorter: the inverse of `still_running`."""
        if self._power == 0.0:
            return max(1, self.gen_len)
        return max(1, math.ceil(self.gen_len * (1.0 - math.pow(1.0 - share, 1.0 / self._power))))

    @property
    def _power(self) -> float:
        if self.mean_gen_len is None or self.mean_gen_len >= self.gen_len:
            return 0.0
        return self.gen_len / max(1.0, self.mean_gen_len) - 1.0

    def mean_attended(self, window: int | None) -> float:
        """Tokens that a prompt's token attends to on average, itself among them, `window` at most.

        Only tokens that are read count: not what a prompt shares with an earlier one.
        """
        lens = self.prompt_lens or (max(1, self.prompt_len),)
        shared = self.shared_lens or (0,) * len(lens)
        pairs = sum(_pairs(length, window) - _pairs(known, window) for length, known in zip(lens, shared, strict=True))
        return pairs / max(1, sum(lens) - sum(shared))


def _pairs(length: int, window: int | None) -> float:
    """Pairs of a token and one that it attends to, within a prompt of `length` tokens."""
    if window is None or length <= window:
        return length * (length + 1) / 2
    return window * (window + 1) / 2 + (length - window) * window
