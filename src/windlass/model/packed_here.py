"""The packed pages of one layer where the model computes: all of them, or those that have a place there.

S sequences that decode; H query heads; Dk size of keys.
"""

from collections.abc import Callable, Sequence

import torch

from windlass.facts.attention_rule import AttentionRule
from windlass.kernels.attention import decode_sizes
from windlass.kernels.decode_attention import partial_decode
from windlass.kernels.decode_plan import full_reads
from windlass.kernels.packed_pages import PackedPages
from windlass.model.layer_store import Batch
from windlass.model.packed_store import Partial


class PackedHere:
    """All pages of a layer in one place."""

    def __init__(self, pages: PackedPages) -> None:
        self.pages = pages

    def put(self, pages: Sequence[int], records: torch.Tensor) -> None:
        """See FullPages."""
        self.pages.put(pages, records)

    def records(self, pages: Sequence[int]) -> torch.Tensor:
        """See FullPages."""
        return self.pages.records(pages)

    def begin(self, query: torch.Tensor, batch: Batch, rule: AttentionRule) -> Callable[[], list[Partial]]:
        """See FullPages. Nothing is begun here: the work is done when it is asked for."""
        plan = batch.here.decode_plan(rule, decode_sizes(query.shape[1], self.pages), full_reads)
        return lambda: [partial_decode(query, self.pages, plan, rule)] if plan.reads else []
