"""What a layer may see, read off the mask function transformers would have filled a mask with.

No mask is ever filled here: at 65,536 tokens it would take four gigabytes. transformers hands the mask builder a
function of two positions; asking it about a few positions tells a causal mask from a window and from chunks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.masking_utils import AttentionMaskInterface, causal_mask_function

# Far beyond any window or chunk, and exact in float32.
_FAR = 1 << 22


@dataclass(frozen=True, slots=True)
class MaskRule:
    """Passed through the model in place of a mask: a sliding `window`, or `chunk`s, over a causal mask."""

    window: int | None = None
    chunk: int | None = None

    def __getitem__(self, rows: tuple[slice, ...]) -> "MaskRule":
        """The rule of some of a mask's rows is the rule of all."""
        return self


def read_mask_rule(*args: Any, mask_function: Callable[..., Any] | None = None, **kwargs: Any) -> MaskRule | None:
    """Registered as the mask builder of our attention: None for a plain causal mask, else its rule."""
    if mask_function is None or mask_function is causal_mask_function:
        return None
    first = _first_visible(mask_function, _FAR)
    if first == 0:
        return None
    if _first_visible(mask_function, _FAR + 1) == first + 1:
        return MaskRule(window=_FAR - first + 1)
    later = _next_start(mask_function, first)
    return MaskRule(chunk=later - first)


def _sees(mask_function: Callable[..., Any], query: int, key: int) -> bool:
    zero = torch.tensor(0)
    return bool(mask_function(zero, zero, torch.tensor(query), torch.tensor(key)))


def _first_visible(mask_function: Callable[..., Any], query: int) -> int:
    """The earliest key `query` sees, by bisection: what it sees is one run that ends at itself."""
    low, high = 0, query
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _sees(mask_function, query, middle) else (middle + 1, high)
    return low


def _next_start(mask_function: Callable[..., Any], first: int) -> int:
    """The next position after `_FAR` whose own first visible key is not `first`: where the next chunk begins."""
    low, high = _FAR, 2 * _FAR
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if _first_visible(mask_function, middle) == first else (low, middle)
    return low


def register(name: str) -> None:
    """Makes `read_mask_rule` the mask builder of the attention implementation `name`."""
    AttentionMaskInterface.register(name, read_mask_rule)
