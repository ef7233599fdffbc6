"""Whether this machine's CUDA device runs our own kernels, and why not, decided once.

Triton is imported here and nowhere else, when a device first asks: it takes a second, and machines without a device
need not have it.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch

from windlass.kernels.cuda.guard import Guard
from windlass.kernels.native.compiler import Missing

LEAST_CAPABILITY = (8, 0)
"""Of the device: older ones have no bfloat16 products."""


@dataclass(frozen=True, slots=True)
class DeviceKernels:
    """`launchers` is windlass.kernels.cuda.launchers, `version` Triton's; `says` is for people."""

    launchers: ModuleType
    guard: Guard
    version: str
    says: str


@cache
def device_kernels() -> DeviceKernels | Missing:
    """The kernels for the CUDA devices of this machine."""
    reason = _why_not()
    if reason is not None:
        return Missing(reason)
    return load_kernels()


def device_backend() -> str:
    """What multiplies packed weights and attends on a device, and why, for people."""
    found = device_kernels()
    return found.says if isinstance(found, DeviceKernels) else f"plain torch, since {found.reason}"


def load_kernels() -> DeviceKernels:
    """Imports Triton and the kernels, whatever the machine; tests ask for them where there is only an interpreter."""
    import triton

    from windlass.kernels.cuda import launchers

    return DeviceKernels(
        launchers, Guard(launchers.FAILURES), triton.__version__, f"Triton {triton.__version__} kernels"
    )


def _why_not() -> str | None:
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if torch.version.hip is not None:
        return "the kernels are for NVIDIA's devices, and this torch is built for AMD's"
    oldest = min(torch.cuda.get_device_capability(number) for number in range(torch.cuda.device_count()))
    if oldest < LEAST_CAPABILITY:
        return f"a device has compute capability {oldest[0]}.{oldest[1]}, and the kernels need 8.0"
    if find_spec("triton") is None:
        return "triton is not installed; pip install 'windlass[gpu]'"
    return None
