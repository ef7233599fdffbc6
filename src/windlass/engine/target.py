"""What computes: the host alone, a CUDA device, or a simulated one; chosen once from what the caller named."""

from dataclasses import dataclass

import torch

from windlass.errors import DeviceError, UsageError
from windlass.facts.choices import DEVICES, check_device
from windlass.facts.plan import Plan
from windlass.facts.simulated_device import SimulatedDevice, parse_simulated_device
from windlass.memory.accelerator import Accelerator
from windlass.memory.cuda_accelerator import CudaAccelerator
from windlass.memory.simulated_accelerator import SimulatedAccelerator


@dataclass(frozen=True, slots=True)
class Target:
    """`device` is torch's. `simulated` is set where an accelerator is only pretended."""

    device: torch.device
    simulated: SimulatedDevice | None = None

    @property
    def name(self) -> str:
        """As people write it."""
        return "sim" if self.simulated else str(self.device)

    @property
    def beside_host(self) -> bool:
        """Whether it has memory of its own beside the host's."""
        return self.simulated is not None or self.device.type != "cpu"

    @property
    def delay(self) -> float:
        """Most seconds that work on the host is held up at random, for tests."""
        return self.simulated.delay if self.simulated else 0.0

    @property
    def seed(self) -> int:
        """Of such delays."""
        return self.simulated.seed if self.simulated else 0


HOST = Target(torch.device("cpu"))


def choose_target(asked: str, gpu_memory: int | None) -> Target:
    """ "auto" is the first CUDA device, if there is one, else the CPU. Raises DeviceError and UsageError."""
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    check_device(asked, gpu_memory is not None)
    if asked.split(":")[0] == "sim":
        return Target(torch.device("cpu"), parse_simulated_device(asked))
    return HOST if asked == "cpu" else Target(_cuda(asked))


def accelerator_for(target: Target, plan: Plan) -> Accelerator | None:
    """The accelerator to run a plan on, or None where the host computes by itself."""
    if target.simulated is not None:
        bill = plan.memory
        return SimulatedAccelerator(target.simulated, bill.budget - bill.base)
    return CudaAccelerator(target.device) if target.device.type == "cuda" else None


def _cuda(asked: str) -> torch.device:
    if not torch.cuda.is_available():
        raise DeviceError(
            f"device {asked!r} was asked for, and torch {torch.__version__} sees no CUDA device; use --device cpu, "
            "or install a CUDA build of torch and a driver that suits it"
        )
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise UsageError(f"device {asked!r} is not known; use {DEVICES}") from error
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise DeviceError(f"{asked} was asked for, this machine has {torch.cuda.device_count()} CUDA device(s)")
    return torch.device("cuda", device.index or 0)
