"""How attention multiplies, chosen once with its reason, so that `doctor` can say it and tests can override it."""

from dataclasses import dataclass
from typing import Literal

import torch


@dataclass(frozen=True, slots=True)
class ProductChoice:
    """`exact` products keep the dtype's own float32 accumulation, `paired` correct a 16-bit result by a second product,
    `widened` convert each block of keys and values to float32 first."""

    name: Literal["exact", "paired", "widened"]
    reason: str


def choose_products(dtype: torch.dtype, device: torch.device) -> ProductChoice:
    """The fastest way that keeps scores in float32 for keys and values of `dtype` on `device`."""
    if dtype == torch.float32:
        return ProductChoice("exact", "float32 products round once, nothing to correct")
    if device.type != "cpu":
        return ProductChoice("paired", f"{device.type} has 16-bit matrix units; a second product restores the scores")
    if dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return ProductChoice("paired", "oneDNN multiplies bfloat16 here; a second product restores the scores")
    if dtype == torch.float16 and torch.ops.mkldnn._is_mkldnn_fp16_supported():
        return ProductChoice("paired", "oneDNN multiplies float16 here; a second product restores the scores")
    return ProductChoice("widened", f"this processor has no {dtype} products; blocks are converted to float32 in cache")
