"""Windlass runs language models far larger than memory: the same tokens, inside a budget, at the slowest link's speed.

    from windlass import LLM, SamplingParams

Importing the package loads no torch: `LLM` is fetched when first asked for, so that a command's help is instant.
"""

from typing import TYPE_CHECKING

from windlass.errors import (
    BudgetError,
    CheckpointError,
    DeviceError,
    ModelError,
    ModelNotFound,
    RequestError,
    StorageError,
    UnsupportedModel,
    UsageError,
    WindlassError,
)
from windlass.facts.completion import CompletionOutput, RequestOutput
from windlass.facts.sampling_params import SamplingParams

if TYPE_CHECKING:
    from windlass.engine.llm import LLM

__version__ = "0.1.0"

__all__ = [
    "BudgetError",
    "CheckpointError",
    "CompletionOutput",
    "DeviceError",
    "LLM",
    "ModelError",
    "ModelNotFound",
    "RequestError",
    "RequestOutput",
    "SamplingParams",
    "StorageError",
    "UnsupportedModel",
    "UsageError",
    "WindlassError",
    "__version__",
]


def __getattr__(name: str) -> object:
    """The names that cost an import of torch (PEP 562)."""
    if name == "LLM":
        from windlass.engine.llm import LLM

        return LLM
    raise AttributeError(f"module 'windlass' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, `LLM` included before it is loaded."""
    return __all__
