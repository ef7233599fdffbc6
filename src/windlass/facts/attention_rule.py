"""Which earlier positions a query sees and how its scores are shaped: all that one attention layer adds to
`softmax(q·k)·v`. A layer's config is turned into this once, and the kernels know nothing else about the model.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AttentionRule:
    """Causal attention, narrowed by a window or a chunk, its scores scaled and perhaps soft-capped."""

    scaling: float
    window: int | None = None
    """A query sees keys with `query_position - key_position < window`."""
    chunk: int | None = None
    """A query sees keys with `key_position // chunk == query_position // chunk`."""
    softcap: float | None = None
    """Scaled scores become `tanh(score / softcap) * softcap`."""

    def first_visible(self, query_position: int) -> int:
        """The earliest key position that a query at `query_position` sees; it sees all from there to itself."""
        first = 0
        if self.window is not None:
            first = max(first, query_position - self.window + 1)
        if self.chunk is not None:
            first = max(first, query_position // self.chunk * self.chunk)
        return first
