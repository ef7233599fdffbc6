"""The dtypes weights may come in and be computed in."""

import torch

from windlass.errors import UsageError
from windlass.memory.checkpoint import TORCH_DTYPES

COMPUTE_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def compute_dtype(asked: str, checkpoint: str) -> torch.dtype:
    """`asked` is "auto" or a name; "auto" follows `checkpoint`, the safetensors dtype of its weights."""
    if asked == "auto":
        found = TORCH_DTYPES[checkpoint]
        return found if found in COMPUTE_DTYPES.values() else torch.float32
    if asked not in COMPUTE_DTYPES:
        raise UsageError(f"dtype {asked!r} is not known; choose one of auto, {', '.join(COMPUTE_DTYPES)}")
    return COMPUTE_DTYPES[asked]


def dtype_name(dtype: torch.dtype) -> str:
    """`torch.bfloat16` -> "bfloat16"."""
    return str(dtype).removeprefix("torch.")
