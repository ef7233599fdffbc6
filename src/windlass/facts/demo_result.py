"""What the demonstration showed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenComparison:
    """One prompt's tokens, ours beside those of transformers."""

    prompt_len: int
    ours: tuple[int, ...]
    theirs: tuple[int, ...]

    @property
    def equal(self) -> bool:
        """Token for token."""
        return self.ours == self.theirs

    def line(self) -> str:
        """`prompt of 5 tokens   24 of 24 tokens equal`, or where they part."""
        same = next((i for i, pair in enumerate(zip(self.ours, self.theirs, strict=False)) if pair[0] != pair[1]), None)
        if self.equal:
            return f"prompt of {self.prompt_len:>3} tokens: {len(self.ours)} of {len(self.theirs)} equal"
        first = min(len(self.ours), len(self.theirs)) if same is None else same
        return f"prompt of {self.prompt_len:>3} tokens: different from token {first} on"


@dataclass(frozen=True, slots=True)
class DemoResult:
    """`benchmark` is what `windlass bench --json` wrote; bytes and bytes/s."""

    checkpoint_bytes: int
    benchmark: Mapping[str, object]
    comparisons: Sequence[TokenComparison]

    @property
    def equal(self) -> bool:
        """Whether every token was that of transformers."""
        return all(each.equal for each in self.comparisons)

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "checkpoint_bytes": self.checkpoint_bytes,
            "benchmark": dict(self.benchmark),
            "tokens_equal": self.equal,
            "tokens_compared": sum(len(each.theirs) for each in self.comparisons),
        }
