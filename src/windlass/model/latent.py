"""Attention over latents (MLA): keys and values are rebuilt by the module's own `expand_kv`, a piece at a time.

The cache holds the compressed latent and the rotary key of each token, as transformers' modules give them to
`update` (DeepSeek-V2, section 2.1). Expanded they are tens of times larger, so never all at once.

T rows; H heads; n rows of a span; m tokens of a piece; Dk, Dv sizes of expanded keys and values.
"""

from typing import Any

import torch

from windlass.errors import UnsupportedModel
from windlass.facts.attention_rule import AttentionRule
from windlass.kernels.partial_results import combine
from windlass.kernels.span_attention import finish, partial_attention
from windlass.kernels.token_span import TokenSpan
from windlass.model.layer_store import Batch, LayerStore
from windlass.units import MIB

# Expanded keys and values of a piece stay near this many bytes.
PIECE_BYTES = 16 * MIB


def latent_attention(
    module: Any,
    query: torch.Tensor,
    store: LayerStore,
    batch: Batch,
    rule: AttentionRule,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """query (H, T, Dk) over the latents in `store` -> (T, H, Dv)."""
    outputs = []
    for span in batch.spans:
        rows = query[:, span.row : span.row + span.length]
        out, log_sum = _span(module, rows, store, span, rule)
        outputs.append(finish(out, log_sum, sinks).to(query.dtype).transpose(0, 1))
    return torch.cat(outputs)


def _span(
    module: Any, query: torch.Tensor, store: LayerStore, span: TokenSpan, rule: AttentionRule
) -> tuple[torch.Tensor, torch.Tensor]:
    """query (H, n, Dk) of one sequence -> out (H, n, Dv) and log-sum-exp (H, n), over all its pieces."""
    heads, _, dim = query.shape
    piece = max(16, PIECE_BYTES // (2 * heads * dim * query.element_size()))
    result = None
    for start in range(rule.first_visible(span.context), span.total, piece):
        stop = min(start + piece, span.total)
        key, value = _expand(module, *store.read(span, stop, start))
        partial = partial_attention(query, key, value, span.context, rule, start)
        result = partial if result is None else combine(result, partial)
    assert result is not None, "a span always sees itself"
    return result


def _expand(module: Any, latent: torch.Tensor, rotary: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """latent (1, m, rank) and rotary (1, m, Dr) -> key (H, m, Dk) and value (H, m, Dv)."""
    try:
        key, value = module.expand_kv(latent[None], rotary[None])
    except AttributeError:
        raise UnsupportedModel(
            f"{type(module).__name__} caches something else than it attends to and has no expand_kv to rebuild it"
        ) from None
    return key[0], value[0]
