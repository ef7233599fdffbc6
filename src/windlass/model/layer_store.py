"""What the KV cache keeps of one layer, wherever it lies, and the plain case: all pages where the model computes.

T rows of a micro-batch, m tokens of one sequence; H query heads; Hk, Hv heads and Dk, Dv sizes of keys and values.
"""

from dataclasses import dataclass
from typing import Protocol

import torch

from windlass.facts.attention_rule import AttentionRule
from windlass.kernels.attention import paged_attention
from windlass.kernels.attention_batch import AttentionBatch
from windlass.kernels.page_store import PageStore
from windlass.kernels.token_span import TokenSpan


@dataclass(frozen=True, slots=True)
class Batch:
    """What attention must know of a micro-batch, as the pages of each memory see it.

    `here` are those where the model computes, `host` those in host memory beside a device, `disk` those on disk; None
    where there are none. `turn` numbers the micro-batches of a pass.
    """

    here: AttentionBatch
    host: AttentionBatch | None = None
    disk: AttentionBatch | None = None
    turn: int = 0

    @property
    def spans(self) -> tuple[TokenSpan, ...]:
        """Every sequence's share, by rows."""
        return self.here.spans

    @property
    def prefill_spans(self) -> tuple[TokenSpan, ...]:
        """Those of more than one row."""
        return self.here.prefill_spans


class LayerStore(Protocol):
    """Keys and values of one layer."""

    def write(self, batch: Batch, key: torch.Tensor, value: torch.Tensor) -> None:
        """Stores the new tokens' key (Hk, T, Dk) and value (Hv, T, Dv)."""
        ...

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        batch: Batch,
        rule: AttentionRule,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """query (H, T, Dk) over what is stored -> (T, H, Dv).

        `key` (Hk, T, Dk) and `value` (Hk, T, Dv) are the new tokens', stored already; a layer that shares another's
        store brings none of them.
        """
        ...

    def read(self, span: TokenSpan, stop: int, start: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens start .. stop of the span's sequence -> copies key (Hk, m, Dk), value (Hv, m, Dv) to compute."""
        ...

    def copy_page(self, source: int, target: int, places: tuple[int, int] | None = None) -> None:
        """Copies a whole page. Where full pages are packed, one that is not full lies in `places`, from and to."""
        ...


class PlainStore:
    """All pages of a layer in one place."""

    def __init__(self, pages: PageStore) -> None:
        self.pages = pages

    def write(self, batch: Batch, key: torch.Tensor, value: torch.Tensor) -> None:
        """See LayerStore."""
        self.pages.write(batch.here, key, value)

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        batch: Batch,
        rule: AttentionRule,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """See LayerStore."""
        return paged_attention(query, self.pages, batch.here, rule, sinks)

    def read(self, span: TokenSpan, stop: int, start: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """See LayerStore."""
        return self.pages.read(span.pages, stop, start)

    def copy_page(self, source: int, target: int, places: tuple[int, int] | None = None) -> None:
        """See LayerStore."""
        self.pages.keys[target].copy_(self.pages.keys[source])
        self.pages.values[target].copy_(self.pages.values[source])
