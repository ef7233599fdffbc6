"""Which tensors of a checkpoint `windlass quantize` packs. This is the whole rule, and the only place it is written.

Packed: matrices inside decoder layers that a linear layer or an expert multiplies activations with, row by row. Kept as
they are: the embedding and the head (they decide between tokens), norms, biases, convolutions and whatever else has
fewer than two dimensions or another use; routers, since a token sent to another expert is no small error; matrices
stored the other way round (GPT-2's Conv1D, the experts of gpt-oss), whose rows are inputs and not outputs; and what is
so small that packing would hardly shrink it.
"""

import re
from typing import Literal

Use = Literal["linear", "expert", "other"]
"""How a parameter is used: F.linear(x, weight) of a linear layer, of one expert of many, or in another way."""

LEAST_ROWS, LEAST_COLUMNS = 16, 32

_ROUTER = re.compile(r"(^|[._])(router|shared_expert_gate|gate)(\.|$)")


def is_packed(parameter: str, use: Use, shape: tuple[int, ...], layers: str) -> bool:
    """Whether a tensor of `shape`, (N, K) or (E, N, K), that makes the model's `parameter` is packed.

    `layers` is the name of the list of decoder layers.
    """
    if use == "other" or len(shape) not in (2, 3) or (len(shape) == 3 and use != "expert"):
        return False
    if not parameter.startswith(f"{layers}.") or _ROUTER.search(parameter):
        return False
    return shape[-2] >= LEAST_ROWS and shape[-1] >= LEAST_COLUMNS
