"""The dtypes weights may come in and be computed in."""

import torch

from windlass.facts.number_types import computed_in

COMPUTE_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def compute_dtype(asked: str, checkpoint: str) -> torch.dtype:
    """`asked` is "auto" or a name; "auto" follows `checkpoint`, the safetensors dtype of its weights."""
    return COMPUTE_DTYPES[computed_in(asked, checkpoint)]


def dtype_name(dtype: torch.dtype) -> str:
    """`torch.bfloat16` -> "bfloat16"."""
    return str(dtype).removeprefix("torch.")
