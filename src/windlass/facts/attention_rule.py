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
    full_pages: int | None = None
    """A query sees keys of those pages, of so many tokens, that are full once its own token is stored."""
    open_page: int | None = None
    """A query sees keys of the other page: the one that is not full yet once its own token is stored."""

    def first_visible(self, query_position: int) -> int:
        """The earliest key position that a query at `query_position` may see; it sees all up to `visible_stop`."""
        first = 0
        if self.window is not None:
            first = max(first, query_position - self.window + 1)
        if self.chunk is not None:
            first = max(first, query_position // self.chunk * self.chunk)
        if self.open_page is not None:
            first = max(first, (query_position + 1) // self.open_page * self.open_page)
        return first

    def visible_stop(self, query_position: int) -> int:
        """The position behind the last key that a query at `query_position` sees."""
        stop = query_position + 1
        return stop if self.full_pages is None else stop // self.full_pages * self.full_pages
