"""The dtypes weights may come in and be computed in."""

import torch

from windlass.facts.choices import DTYPES, check_dtype
from windlass.memory.checkpoint import TORCH_DTYPES

COMPUTE_DTYPES: dict[str, torch.dtype] = {name: vars(torch)[name] for name in DTYPES}


def compute_dtype(asked: str, checkpoint: str) -> torch.dtype:
    """`asked` is "auto" or a name; "auto" follows `checkpoint`, the safetensors dtype of its weights.

    Raises UsageError.
    """
    if asked == "auto":
        found = TORCH_DTYPES[checkpoint]
        return found if found in COMPUTE_DTYPES.values() else torch.float32
    check_dtype(asked)
    return COMPUTE_DTYPES[asked]


def dtype_name(dtype: torch.dtype) -> str:
    """`torch.bfloat16` -> "bfloat16"."""
    return str(dtype).removeprefix("torch.")
