"""Attention over the paged cache, registered with transformers: the one place that knows where a sequence begins.

T rows of a micro-batch; H query heads; Hk key heads; Dk, Dv sizes of keys and values.
"""

from typing import Any, Protocol

import torch
from transformers import AttentionInterface

from windlass.facts.attention_rule import AttentionRule
from windlass.model import mask_rule

ATTENTION = "windlass"
_CACHE = "windlass_cache"


class AttentionCache(Protocol):
    """What attention reads from: the paged cache, or a probe that only notes shapes."""

    def attend(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rule: AttentionRule,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """query (H, T, Dk), key (Hk, T, Dk), value (Hk, T, Dv) -> (T, H, Dv)."""
        ...


def connect_attention(layer: torch.nn.Module, cache: AttentionCache) -> None:
    """Tells every module of a layer which cache its attention works on."""
    for module in layer.modules():
        module.__dict__[_CACHE] = cache


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: mask_rule.MaskRule | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """query (1, H, T, Dk), key (1, Hk, T, Dk), value (1, Hk, T, Dv) -> (1, T, H, Dv).

    The new keys and values are in the cache already.
    """
    cache: AttentionCache = module.__dict__[_CACHE]
    rule = attention_rule(query, attention_mask, scaling, kwargs)
    return cache.attend(module, query[0], key[0], value[0], rule, kwargs.get("s_aux"))[None], None


def attention_rule(
    query: torch.Tensor, mask: mask_rule.MaskRule | None, scaling: float | None, kwargs: dict[str, Any]
) -> AttentionRule:
    """The rule of one call. What the mask says counts; the keyword `sliding_window` where there is no mask rule."""
    window, chunk = (mask.window, mask.chunk) if mask else (kwargs.get("sliding_window"), None)
    return AttentionRule(
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=window,
        chunk=chunk,
        softcap=kwargs.get("softcap"),
    )


AttentionInterface.register(ATTENTION, attend)
mask_rule.register(ATTENTION)
