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
class VerseResult:
    """The model in the box on a device too small for it. Bytes, bytes/s and seconds.

    `ours` and `resident` are the tokens of every prompt there and with all memory it wants; `comparisons` sets some of
    them beside those of transformers. `link_limit` is the rate of the link, `link_rate` what was carried over it.
    """

    budget: int
    weight_bytes: int
    cache_bytes: int
    streamed_bytes: int
    link_limit: float
    link_rate: float
    seconds_per_pass: float
    texts: Sequence[str]
    ours: Sequence[tuple[int, ...]]
    resident: Sequence[tuple[int, ...]]
    comparisons: Sequence[TokenComparison]

    @property
    def equal(self) -> bool:
        """Whether every token was that of the resident run, and of transformers where it was asked."""
        return list(self.ours) == list(self.resident) and all(each.equal for each in self.comparisons)

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "budget": self.budget,
            "weight_bytes": self.weight_bytes,
            "cache_bytes": self.cache_bytes,
            "streamed_bytes": self.streamed_bytes,
            "link_limit": self.link_limit,
            "link_rate": self.link_rate,
            "seconds_per_pass": self.seconds_per_pass,
            "texts": list(self.texts),
            "tokens": sum(map(len, self.ours)),
            "tokens_equal": self.equal,
        }


@dataclass(frozen=True, slots=True)
class DemoResult:
    """`benchmark` and `three_tiers` are what `windlass bench --json` wrote; bytes and bytes/s.

    On a CUDA device they are one run.
    """

    verse: VerseResult
    checkpoint_bytes: int
    benchmark: Mapping[str, object]
    three_tiers: Mapping[str, object]
    comparisons: Sequence[TokenComparison]

    @property
    def equal(self) -> bool:
        """Whether every token was that of transformers."""
        return self.verse.equal and all(each.equal for each in self.comparisons)

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "verse": self.verse.as_dict(),
            "checkpoint_bytes": self.checkpoint_bytes,
            "benchmark": dict(self.benchmark),
            "three_tiers": dict(self.three_tiers),
            "tokens_equal": self.equal,
            "tokens_compared": sum(len(each.theirs) for each in self.comparisons),
        }
