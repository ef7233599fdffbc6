"""How much a service takes on at once, and what its plan is made for."""

from dataclasses import dataclass

from windlass.errors import UsageError
from windlass.facts.workload import Workload

LONGEST = 8192
"""Tokens of the longest sequence, where nobody says: keys and values of all that a model takes may fill a machine."""

# Of a sequence's tokens, those of the answer.
ANSWER_SHARE = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_num_seqs` sequences run at once, if their keys and values fit; `max_queue` questions may wait beside them.

    `max_model_len` is the longest prompt and answer together, None for what the model takes up to LONGEST. One sequence
    may always be as long; for the others the plan keeps room for `typical_len` tokens each. Raises UsageError.
    """

    max_num_seqs: int = 32
    max_queue: int = 256
    max_model_len: int | None = None
    typical_len: int = 2048

    def __post_init__(self) -> None:
        for name, value in (
            ("--max-num-seqs", self.max_num_seqs),
            ("--max-queue", self.max_queue),
            ("--max-model-len", self.max_model_len),
            ("typical_len", self.typical_len),
        ):
            if value is not None and value < 1:
                raise UsageError(f"{name} must be 1 or more, got {value}")

    def longest(self, model_len: int) -> int:
        """Tokens of the longest prompt and answer together, for a model that takes `model_len`."""
        return min(model_len, self.max_model_len or LONGEST)

    def workload(self, model_len: int) -> Workload:
        """What the plan is made for."""
        longest, count = self.longest(model_len), self.max_num_seqs
        answer, typical = max(1, longest // ANSWER_SHARE), min(self.typical_len, longest)
        gen_len = max(1, typical // ANSWER_SHARE)
        return Workload(
            count,
            max(1, longest - answer),
            answer,
            prompt_lens=(max(1, typical - gen_len),) * count,
            gen_lens=(gen_len,) * count,
            reserved_lens=(longest, *[typical] * (count - 1)),
        )
