"""The product that makes logits: the one large matrix that quantised models keep as it is.

R rows; H hidden size; V vocabulary, or a part of it.
"""

import torch
from torch import nn

from windlass.kernels.native.plain import PlainLibrary, plain_library, plain_product


def head_logits(head: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """hidden (1, R, H) through the head -> logits (1, R, V), as its own forward gives them.

    That forward runs, unless it is a plain linear layer's and our kernel reads the weight faster.
    """
    if type(head) is nn.Linear and head.bias is None:
        library = plain_library()
        if isinstance(library, PlainLibrary) and library.multiplies(hidden, head.weight):
            return plain_product(library, hidden, head.weight)
    logits: torch.Tensor = head(hidden)
    return logits
