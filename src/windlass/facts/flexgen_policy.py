"""FlexGen's policy as its command line has it, so that a published setting can be run here as it was written.

Sheng et al., ICML 2023; the flags are those of its `flex_opt.py`. What each becomes here says planner/flexgen.py.
"""

from dataclasses import dataclass

from windlass.errors import UsageError
from windlass.facts.placement import Placement

Percent = tuple[int, int, int, int, int, int]

PAIRS = ("weights", "keys and values", "activations")
# FlexGen's own defaults.
GPU_BATCH_SIZE, NUM_GPU_BATCHES = 4, 1


@dataclass(frozen=True, slots=True)
class FlexGenPolicy:
    """`percent` gives, on the device and in host memory, the weights, the keys and values, the activations.

    What a pair leaves of 100 lies on disk; None leaves the placement to the planner. `num_gpu_batches` batches of
    `gpu_batch_size` sequences are a block. `sep_layer` and `overlap` are None where nobody said.
    Raises UsageError for a policy that makes no sense, or that asks for what does not exist here.
    """

    percent: Percent | None = None
    gpu_batch_size: int = GPU_BATCH_SIZE
    num_gpu_batches: int = NUM_GPU_BATCHES
    cpu_cache_compute: bool = False
    compress_weight: bool = False
    compress_cache: bool = False
    sep_layer: bool | None = None
    overlap: bool | None = None

    def __post_init__(self) -> None:
        for flag, value in (("gpu-batch-size", self.gpu_batch_size), ("num-gpu-batches", self.num_gpu_batches)):
            if value < 1:
                raise UsageError(f"--{flag} must be 1 or more, got {value}")
        if self.percent is not None:
            _check_percent(self.percent)
        for flag, asked, instead in (
            ("compress-weight", self.compress_weight, "--quantization int4 (with MODEL, not --shape)"),
            ("compress-cache", self.compress_cache, "--kv-cache-dtype int4"),
        ):
            if asked:
                raise UsageError(f"--{flag} is FlexGen's own packing and not made here; give {instead} in its place")

    @property
    def block_size(self) -> int:
        """Sequences in the model at once: FlexGen's effective batch."""
        return self.gpu_batch_size * self.num_gpu_batches

    @property
    def placement(self) -> Placement | None:
        """The shares of weights and of keys and values; activations have no choice here."""
        if self.percent is None:
            return None
        weights_device, weights_host, cache_device, cache_host, *_ = self.percent
        return Placement(weights_device / 100, weights_host / 100, cache_device / 100, cache_host / 100)


def _check_percent(percent: Percent) -> None:
    if len(percent) != 2 * len(PAIRS):
        raise UsageError(f"--percent takes six numbers, got {len(percent)}; write it as --percent 20 80 0 100 100 0")
    for what, here, there in zip(PAIRS, percent[::2], percent[1::2], strict=True):
        if here < 0 or there < 0 or here + there > 100:
            raise UsageError(
                f"--percent gives {here} and {there} % of the {what} to the device and to host memory; both must be "
                "from 0 to 100 and no more than 100 together, what is missing lies on disk"
            )
