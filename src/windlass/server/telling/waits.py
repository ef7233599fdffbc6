"""How long clients wait for their tokens, counted for Prometheus."""

from prometheus_client import CollectorRegistry, Histogram

# A pass over a model on disk takes seconds, one that fits milliseconds.
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 150, 600)


class Waits:
    """May be told from any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._first = Histogram(
            "windlass_time_to_first_token_seconds", "From a question to the first token of its answer.",
            registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        self._between = Histogram(
            "windlass_time_between_tokens_seconds", "From a pass that drew for a question to the next.",
            registry=registry, buckets=_SECONDS,
        )  # fmt: skip

    def first(self, seconds: float) -> None:
        """A first token came."""
        self._first.observe(seconds)

    def between(self, seconds: float) -> None:
        """Another token came."""
        self._between.observe(seconds)
