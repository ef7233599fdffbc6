"""How well a model foretells a text, with its error bar, and how much better or worse than another."""

import math
from dataclasses import dataclass

from windlass.facts.cluster_mean import ClusterMean, cluster_mean
from windlass.facts.text_window import LLAMA_CPP, Windowing
from windlass.units import format_seconds


@dataclass(frozen=True, slots=True)
class WindowScore:
    """`tokens` scored tokens of a window cost `nats` together."""

    tokens: int
    nats: float


@dataclass(frozen=True, slots=True)
class Perplexity:
    """One model on one text. `windowing` has context and stride settled; `scores` go by window.

    The text has `text_bytes` bytes and `text_tokens` tokens, all windows of it together; `fingerprint` tells one cut
    into tokens from another. `read_tokens` went through the model in `passes` passes and `seconds`.
    """

    model: str
    windowing: Windowing
    scores: tuple[WindowScore, ...]
    text_bytes: int
    text_tokens: int
    fingerprint: str
    read_tokens: int
    passes: int
    seconds: float

    @property
    def tokens(self) -> int:
        """Tokens that were scored."""
        return sum(score.tokens for score in self.scores)

    @property
    def nats(self) -> ClusterMean:
        """Nats a token. Windows are the clusters: tokens of one share their subject and their context."""
        return cluster_mean([score.nats for score in self.scores], [score.tokens for score in self.scores])

    @property
    def perplexity(self) -> float:
        """The exponential of the nats a token; infinite where that is beyond what a number holds."""
        return _exp(self.nats.mean)

    @property
    def perplexity_error(self) -> float | None:
        """Its standard error, to first order."""
        error = self.nats.error
        return None if error is None else self.perplexity * error

    @property
    def bytes_a_token(self) -> float:
        """Of the whole text."""
        return self.text_bytes / self.text_tokens

    @property
    def bits_a_byte(self) -> float:
        """Comparable between models that cut the text differently; scored tokens are taken to be of the mean length."""
        return self.nats.mean / math.log(2) / self.bytes_a_token

    @property
    def tokens_per_second(self) -> float:
        """Tokens read, over all windows; tokens that two windows read count twice."""
        return self.read_tokens / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        nats = self.nats
        return {
            "model": self.model,
            "perplexity": _plain(self.perplexity),
            "perplexity_error": _plain(self.perplexity_error),
            "nats_per_token": _plain(nats.mean),
            "nats_per_token_error": _plain(nats.error),
            "bits_per_byte": _plain(self.bits_a_byte),
            "tokens": self.tokens,
            "windows": len(self.scores),
            "convention": self.windowing.convention,
            "context": self.windowing.context,
            "stride": self.windowing.stride or self.windowing.context,
            "text_bytes": self.text_bytes,
            "text_tokens": self.text_tokens,
            "passes": self.passes,
            "seconds": self.seconds,
            "tokens_per_second": self.tokens_per_second,
            "window_tokens": [score.tokens for score in self.scores],
            "window_nats": [_plain(score.nats) for score in self.scores],
        }

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"text        {self.text_bytes:,} bytes, {self.text_tokens:,} tokens ({self.bytes_a_token:.2f} bytes each)",
            f"windows     {_described(self.windowing, len(self.scores), self.text_tokens)}",
            f"perplexity  {_with_error(self.perplexity, self.perplexity_error)} over {self.tokens:,} tokens",
            f"            {_with_error(*_parts(self.nats))} nats a token, {self.bits_a_byte:.4f} bits a byte",
            f"speed       {self.tokens_per_second:.4g} tok/s, {self.passes} pass{'es' * (self.passes != 1)} over the "
            f"weights in {format_seconds(self.seconds)}",
        ]


@dataclass(frozen=True, slots=True)
class PerplexityComparison:
    """`model` beside `against`, window by window: what both find hard falls out, so that the error bar is small."""

    model: Perplexity
    against: Perplexity

    @property
    def difference(self) -> ClusterMean | None:
        """Nats a token by which `model` is worse; None where the two cut the text into different tokens."""
        if self.model.fingerprint != self.against.fingerprint:
            return None
        pairs = list(zip(self.model.scores, self.against.scores, strict=True))
        return cluster_mean([mine.nats - theirs.nats for mine, theirs in pairs], [mine.tokens for mine, _ in pairs])

    def as_dict(self) -> dict[str, object]:
        """For `--json`: the model's own, with the other and the difference beside."""
        found = self.difference
        told = None
        if found is not None:
            told = {
                "nats_per_token": _plain(found.mean),
                "nats_per_token_error": _plain(found.error),
                "perplexity_ratio": _plain(_exp(found.mean)),
            }
        return self.model.as_dict() | {"against": self.against.as_dict(), "difference": told}

    def lines(self) -> list[str]:
        """For people."""
        other, found = self.against, self.difference
        lines = [
            *self.model.lines(),
            f"against     {other.model}: perplexity {_with_error(other.perplexity, other.perplexity_error)}, "
            f"{_with_error(*_parts(other.nats))} nats a token, {other.bits_a_byte:.4f} bits a byte",
        ]
        if found is None:
            return [*lines, "difference  not told: the two cut the text into different tokens; compare bits a byte"]
        return [
            *lines,
            f"difference  {_with_error(found.mean, found.error, sign='+')} nats a token, perplexity times "
            f"{_exp(found.mean):.4f}, paired over {len(other.scores)} windows",
        ]


def _parts(mean: ClusterMean) -> tuple[float, float | None]:
    return mean.mean, mean.error


def _with_error(value: float, error: float | None, sign: str = "") -> str:
    """`5.8231 +/- 0.0412`: two digits of the error, and as many of the value as they leave sense to."""
    if error is None:
        return f"{value:{sign}.4f} (one window shows no error)"
    if not (0 < error < math.inf):
        return f"{value:{sign}.4f} +/- {error:.4g}"
    digits = min(8, max(2, 1 - math.floor(math.log10(error))))
    return f"{value:{sign}.{digits}f} +/- {error:.{digits}f}"


def _described(windowing: Windowing, count: int, tokens: int) -> str:
    size = min(windowing.context or tokens, tokens)
    if windowing.convention == LLAMA_CPP:
        return f"{count} of {size} tokens, scored behind the middle, as llama.cpp does"
    if windowing.stride and windowing.stride < (windowing.context or 0):
        return f"{count} of {size} tokens, one every {windowing.stride}, as transformers' guide does"
    return f"{count} of {size} tokens, the first of each not scored, as transformers' guide does"


def _exp(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf


def _plain(value: float | None) -> float | None:
    """JSON has no infinity."""
    return value if value is not None and math.isfinite(value) else None
