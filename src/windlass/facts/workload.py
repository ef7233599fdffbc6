"""How much work a run is asked to do; the planner divides memory for it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Workload:
    """`num_prompts` sequences of at most `prompt_len` prompt tokens that each grow by at most `gen_len` tokens."""

    num_prompts: int = 1
    prompt_len: int = 512
    gen_len: int = 128

    @property
    def tokens_per_sequence(self) -> int:
        """Keys and values a sequence may need. The last token generated is never fed back."""
        return self.prompt_len + max(self.gen_len, 1) - 1
