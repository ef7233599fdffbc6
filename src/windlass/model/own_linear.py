"""The linear layers of a model, whose products are ours where that is faster; all else of them is transformers'."""

from collections.abc import Iterable

import torch
from torch import nn

from windlass.kernels.plain_linear import plain_linear


class OwnLinear(nn.Linear):
    """A linear layer that only multiplies in another way."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """input (..., K) -> (..., N)."""
        return plain_linear(input, self.weight, self.bias)


def multiply_ourselves(parts: Iterable[nn.Module]) -> None:
    """Every linear layer in these modules becomes one of ours; those with a forward of their own stay as they are."""
    for part in parts:
        for module in part.modules():
            if type(module) is nn.Linear:
                module.__class__ = OwnLinear
