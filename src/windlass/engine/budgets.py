"""What a run may use: which device, how much memory of it and of the host, measured after everything has loaded."""

import torch

from windlass.engine.opened_model import OpenedModel
from windlass.engine.rehearsal import Rehearsal
from windlass.errors import BudgetError, DeviceError, UsageError
from windlass.facts.plan import Plan
from windlass.facts.workload import Workload
from windlass.kernels.page_store import PAGE_TOKENS
from windlass.memory.process_memory import available_bytes, resident_bytes, return_free_memory
from windlass.planner.search import Demands
from windlass.units import MIB, format_size

# Without a budget this share of what is free is used.
SHARE_OF_FREE = 0.9
# Wide enough for matrix products to reach their best rate, narrow enough for its temporaries to stay near the cache.
MICRO_BATCH_TOKENS = 1024
# On a CUDA device the host only stages: resident weights pass through one buffer of this size.
STAGING = 300 * MIB


def choose_device(asked: str, gpu_memory: int | None) -> torch.device:
    """ "auto" is the first CUDA device, if there is one, else the CPU. Raises DeviceError and UsageError."""
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    if asked != "cpu" and asked.split(":")[0] != "cuda":
        raise UsageError(f"device {asked!r} is not known; use auto, cpu, cuda or cuda:0")
    if asked == "cpu":
        if gpu_memory is not None:
            raise UsageError("--gpu-memory has no effect on the CPU; leave it out, or use --device cuda")
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceError(
            f"device {asked!r} was asked for, and torch {torch.__version__} sees no CUDA device; use --device cpu, "
            "or install a CUDA build of torch and a driver that suits it"
        )
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise UsageError(f"device {asked!r} is not known; use auto, cpu, cuda or cuda:0") from error
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise DeviceError(f"{asked} was asked for, this machine has {torch.cuda.device_count()} CUDA device(s)")
    return torch.device("cuda", device.index or 0)


def demands(
    opened: OpenedModel,
    workload: Workload,
    host_memory: int | None,
    gpu_memory: int | None,
    micro_batch_tokens: int | None,
    block_size: int,
) -> Demands:
    """Measures what a micro-batch takes and what the process holds already."""
    most = max(workload.num_prompts, workload.num_prompts * workload.prompt_len)
    micro_batch = micro_batch_tokens or min(MICRO_BATCH_TOKENS, most)
    rehearsal = Rehearsal(opened.lifted, opened.seat, opened.dtype, opened.device)
    activations = rehearsal.activation_bytes(micro_batch, dict(opened.facts.cache_shapes))
    base, free = _held_and_free(opened.device)
    asked = host_memory if opened.device.type == "cpu" else gpu_memory
    return Demands(
        budget=asked or base + int(SHARE_OF_FREE * free),
        base=base,
        activations=activations,
        micro_batch_tokens=micro_batch,
        rows_held=opened.rows_held,
        page_tokens=PAGE_TOKENS,
        device=str(opened.device),
        block_size=block_size,
    )


def check_host(plan: Plan, host_memory: int | None) -> None:
    """On a device the host holds the process, the ring and the staging. Raises BudgetError if they do not fit."""
    budget = host_memory or resident_bytes() + int(SHARE_OF_FREE * available_bytes())
    needed = resident_bytes() + plan.memory.ring + plan.memory.expert_ring + STAGING
    if needed > budget:
        raise BudgetError(
            f"{plan.model} needs {format_size(needed)} of host memory to pass its weights through, the budget is "
            f"{format_size(budget)}: {format_size(needed - budget)} are missing; use "
            f"--host-memory {-(-needed // MIB)}MiB"
        )


def _held_and_free(device: torch.device) -> tuple[int, int]:
    """Bytes of the device's memory that this process (or, on a GPU, anyone) holds, and bytes that are free."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(device)
        return total - free, free
    return_free_memory()
    return resident_bytes(), available_bytes()
