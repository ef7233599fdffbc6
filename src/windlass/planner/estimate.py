"""Demands of a run that has not begun, on a machine that may be elsewhere: estimated where a run would measure.

A run rehearses a micro-batch and knows what it takes; here a row of activations is counted instead. Of the layer's
temporaries alive at once there are about eight as wide as the hidden state (the row and its norm, queries, keys, values
and the result of attention, the residual) and three as wide as the feed-forward's inside (gate, up and their product).
"""

from dataclasses import dataclass

from windlass.errors import UsageError
from windlass.facts.footprint import Footprint
from windlass.facts.machine import Machine
from windlass.facts.model_facts import ModelFacts
from windlass.facts.workload import Workload
from windlass.planner.defaults import MICRO_BATCH_TOKENS, SHARE_OF_FREE
from windlass.planner.rule import Demands
from windlass.units import MIB

HIDDEN_ROWS, INNER_ROWS = 8, 3
# What torch's allocator and libraries add to the temporaries themselves.
LEAST_ACTIVATIONS = 16 * MIB
# A CUDA context and its kernels; a run measures it.
DEVICE_CONTEXT = 500 * MIB
PAGE_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """What somebody asked for: bytes, None or 0 where nothing was said. `on_host` computes there, device or not.

    `footprint` is what a run on this machine was measured to hold, where that is known.
    """

    host_memory: int | None = None
    gpu_memory: int | None = None
    offload: int = 0
    block_size: int = 0
    micro_batch_tokens: int | None = None
    on_host: bool = False
    footprint: Footprint | None = None


def estimated_demands(model: ModelFacts, workload: Workload, machine: Machine, limits: Limits) -> Demands:
    """What `model` asks of `machine`. Raises UsageError for a limit that has no effect there."""
    beside = machine.device is not None and not limits.on_host
    if limits.gpu_memory is not None and not beside:
        why = "--device cpu computes on the host" if limits.on_host else f"{machine.name} has no device"
        raise UsageError(f"--gpu-memory has no effect: {why}; leave it out, or name a device as in --machine rtx3090")
    seen, width = limits.footprint, micro_batch_width(workload, limits)
    base = seen.process_bytes if seen is not None else machine.process_bytes
    host = _budget("--host-memory", limits.host_memory, machine.host.memory, base)
    device = 0
    if beside and machine.device is not None:
        device = _budget("--gpu-memory", limits.gpu_memory, machine.device.memory, DEVICE_CONTEXT)
    return Demands(
        budget=device if beside else host,
        base=DEVICE_CONTEXT if beside else base,
        activations=activation_bytes(model, width) if seen is None else seen.activations * width // seen.width,
        micro_batch_tokens=width,
        rows_held=1.0 if seen is None else seen.rows_held,
        page_tokens=PAGE_TOKENS,
        device="cuda:0" if beside else "cpu",
        block_size=limits.block_size,
        host_budget=host if beside else None,
        host_base=base if beside else 0,
        offload=limits.offload,
        plain_row=beside,
        width_fixed=limits.micro_batch_tokens is not None,
    )


def micro_batch_width(workload: Workload, limits: Limits) -> int:
    """Tokens of a micro-batch to begin with, as a run has them."""
    return limits.micro_batch_tokens or min(MICRO_BATCH_TOKENS, max(1, workload.num_prompts * workload.prompt_len))


def activation_bytes(model: ModelFacts, rows: int) -> int:
    """Bytes that `rows` rows take within a layer, beside its weights and the row itself."""
    inside = max(
        (max(shape, default=0) for g in model.groups if g.kind in ("layer", "expert") for s in g.sources
         for shape in s.shapes if len(shape) > 1),
        default=model.hidden_size,
    )  # fmt: skip
    row = (HIDDEN_ROWS * model.hidden_size + INNER_ROWS * inside) * model.itemsize
    return max(LEAST_ACTIVATIONS, rows * row)


def _budget(flag: str, asked: int | None, there: int, held: int) -> int:
    """The budget of a memory of `there` bytes. Raises UsageError for more than there is."""
    if asked is not None and asked > there:
        raise UsageError(f"{flag} {asked // MIB}MiB is more than the machine has, {there // MIB}MiB; ask for less")
    return asked if asked is not None else held + int(SHARE_OF_FREE * max(0, there - held))
