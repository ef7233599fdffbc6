"""The two batched products of attention, with scores that keep float32 precision whatever the dtype of the keys.

Legend: b matrices of the batch, r query rows, m keys, Dk and Dv sizes of keys and values.
"""

import torch

from windlass.kernels.backend import ProductChoice


def score_products(query: torch.Tensor, key: torch.Tensor, scaling: float, choice: ProductChoice) -> torch.Tensor:
    """query (b, r, Dk), key (b, Dk, m) -> `scaling * query @ key`, float32 (b, r, m)."""
    if choice.name != "paired":
        return torch.bmm(query.float(), key.float()).mul_(scaling)
    rounded = torch.baddbmm(query.new_empty(1, 1, 1), query, key, beta=0, alpha=scaling)
    # A 16-bit product rounds its float32 sums on the way out. The key is still in cache, so a second product, less
    # the first, costs little and gives what was rounded away.
    lost = torch.baddbmm(rounded, query, key, beta=-1, alpha=scaling)
    return rounded.float().add_(lost.float())


def value_products(weights: torch.Tensor, value: torch.Tensor, choice: ProductChoice) -> torch.Tensor:
    """weights float32 (b, r, m), value (b, m, Dv) -> float32 or the value's dtype (b, r, Dv)."""
    if choice.name != "paired":
        return torch.bmm(weights, value.float())
    return torch.bmm(weights.to(value.dtype), value)
