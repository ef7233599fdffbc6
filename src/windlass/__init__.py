"""Windlass runs language models far larger than memory: the same tokens, inside a budget, at the slowest link's speed.

    from windlass import LLM, SamplingParams

Importing the package loads next to nothing: each name is fetched when it is first asked for, so that a command's help
is instant and Ctrl-C is heard from its first moment on.
"""

# Type checkers know it by its name; importing typing for it would cost half of what the package does.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from windlass.engine.llm import LLM
    from windlass.names import (
        BudgetError,
        CheckpointError,
        CompletionOutput,
        DeviceError,
        InternalError,
        JobError,
        ModelError,
        ModelNotFound,
        NotReady,
        QueueFull,
        RequestError,
        RequestOutput,
        SamplingParams,
        StorageError,
        StructuredOutputsParams,
        Unavailable,
        UnsupportedModel,
        UsageError,
        WindlassError,
    )

__version__ = "0.1.0"

__all__ = [
    "BudgetError",
    "CheckpointError",
    "CompletionOutput",
    "DeviceError",
    "InternalError",
    "JobError",
    "LLM",
    "ModelError",
    "ModelNotFound",
    "NotReady",
    "QueueFull",
    "RequestError",
    "RequestOutput",
    "SamplingParams",
    "StorageError",
    "StructuredOutputsParams",
    "Unavailable",
    "UnsupportedModel",
    "UsageError",
    "WindlassError",
    "__version__",
]


def __getattr__(name: str) -> object:
    """The names that cost an import (PEP 562): `LLM` brings torch, the others a few small modules."""
    if name == "LLM":
        from windlass.engine.llm import LLM

        return LLM
    if name in __all__:
        from windlass import names

        return getattr(names, name)
    raise AttributeError(f"module 'windlass' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return __all__
