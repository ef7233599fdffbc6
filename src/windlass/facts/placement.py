"""Shares of bytes that somebody sets by hand, for experiments and for people who know FlexGen's flags."""

from dataclasses import dataclass

from windlass.errors import UsageError


@dataclass(frozen=True, slots=True)
class Placement:
    """Shares from 0 to 1 of weights, and of keys and values, on the device and in host memory; the rest is on disk."""

    weights_on_device: float
    weights_on_host: float
    cache_on_device: float
    cache_on_host: float

    def __post_init__(self) -> None:
        for what, here, there in (
            ("weights", self.weights_on_device, self.weights_on_host),
            ("keys and values", self.cache_on_device, self.cache_on_host),
        ):
            if not (0 <= here <= 1 and 0 <= there <= 1 and here + there <= 1 + 1e-9):
                raise UsageError(
                    f"{here:.0%} of the {what} on the device and {there:.0%} in host memory make no division; "
                    "both must be from 0 to 100 % and no more than 100 % together"
                )
