"""The public names that load no torch, in one place to be fetched from when they are first asked for."""

from windlass.errors import (
    BudgetError,
    CheckpointError,
    DeviceError,
    InternalError,
    JobError,
    ModelError,
    ModelNotFound,
    NotReady,
    QueueFull,
    RequestError,
    StorageError,
    Unavailable,
    UnsupportedModel,
    UsageError,
    WindlassError,
)
from windlass.facts.completion import CompletionOutput, RequestOutput
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.structured_outputs import StructuredOutputsParams

__all__ = [
    "BudgetError",
    "CheckpointError",
    "CompletionOutput",
    "DeviceError",
    "InternalError",
    "JobError",
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
]
