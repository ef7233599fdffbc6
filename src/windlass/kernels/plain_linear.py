"""Products with matrices as a checkpoint has them: by the native kernel where a few rows want them, else by torch.

Legend: N outputs, K inputs.
"""

import torch
import torch.nn.functional as F

from windlass.kernels.native.plain import PlainLibrary, plain_library, plain_product


def plain_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x (..., K) times the transpose of the weight (N, K), plus the bias (N,) -> (..., N), as F.linear.

    Nothing here asks where the weight came from: resident or streamed, the same rows are multiplied in the same way.
    """
    library = plain_library()
    if isinstance(library, PlainLibrary) and library.multiplies(x, weight, bias):
        return plain_product(library, x, weight, bias)
    return F.linear(x, weight, bias)
