"""An accelerator that is not there: what `device="sim"` pretends, so that everything but kernels is tried anywhere."""

from dataclasses import dataclass, fields, replace

from windlass.errors import UsageError
from windlass.units import parse_rate, parse_seconds


@dataclass(frozen=True, slots=True)
class SimulatedDevice:
    """`rate` bytes/s each way over the link, and `latency` seconds before each copy arrives.

    `delay` is the most seconds that each copy and each piece of work on the host may be held up at random, drawn from
    `seed`. With `poison` device memory that holds nothing valid reads as NaN, so that a missing wait is a wrong token.
    """

    rate: float = 16e9
    latency: float = 10e-6
    delay: float = 0.0
    seed: int = 0
    poison: bool = True


def parse_simulated_device(text: str) -> SimulatedDevice:
    """`sim`, or `sim:rate=2GB/s,latency=20us,delay=1ms,seed=3,poison=off`. Raises UsageError."""
    _, _, settings = text.partition(":")
    device = SimulatedDevice()
    for setting in filter(None, settings.split(",")):
        name, _, value = setting.partition("=")
        device = _with(device, name.strip(), value.strip(), text)
    return device


def _with(device: SimulatedDevice, name: str, value: str, text: str) -> SimulatedDevice:
    if name == "rate":
        return replace(device, rate=parse_rate(value))
    if name == "latency":
        return replace(device, latency=parse_seconds(value))
    if name == "delay":
        return replace(device, delay=parse_seconds(value))
    if name == "seed" and value.isascii() and value.isdigit():
        return replace(device, seed=int(value))
    if name == "poison" and value in ("on", "off"):
        return replace(device, poison=value == "on")
    known = ", ".join(field.name for field in fields(SimulatedDevice))
    raise UsageError(
        f"device {text!r} sets {name!r} to {value!r}, which makes no sense; a simulated device has {known}, "
        "as in sim:rate=2GB/s,latency=20us,delay=1ms,seed=3,poison=off"
    )
