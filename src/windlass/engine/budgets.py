"""How much memory a run may use, of the host and of a device, measured after everything has loaded."""

from pathlib import Path

import torch

from windlass.engine.opened_model import OpenedModel
from windlass.engine.rehearsal import Rehearsal
from windlass.facts.workload import Workload
from windlass.kernels.page_store import PAGE_TOKENS
from windlass.memory.page_file import free_bytes
from windlass.memory.process_memory import available_bytes, resident_bytes, return_free_memory
from windlass.planner.defaults import MICRO_BATCH_TOKENS, SHARE_OF_FREE
from windlass.planner.search import Demands
from windlass.units import MIB

# A context with its kernels takes 0.5 to 0.7 GiB of a device.
MOST_CONTEXT_BYTES = 768 * MIB


def demands(
    opened: OpenedModel,
    workload: Workload,
    host_memory: int | None,
    gpu_memory: int | None,
    micro_batch_tokens: int | None,
    block_size: int,
    offload_dir: Path | None,
) -> Demands:
    """Measures what a micro-batch takes and what the process holds already."""
    most = max(workload.num_prompts, workload.num_prompts * workload.prompt_len)
    micro_batch = micro_batch_tokens or min(MICRO_BATCH_TOKENS, most)
    rehearsal = Rehearsal(opened.lifted, opened.seat, opened.dtype, opened.device)
    activations = rehearsal.activation_bytes(micro_batch, dict(opened.facts.cache_shapes), opened.facts.cache_format)
    return_free_memory()
    held = resident_bytes()
    # No budget is larger than what the machine, or the process's control group, really has.
    most_host = held + available_bytes()
    host_budget = min(host_memory or held + int(SHARE_OF_FREE * available_bytes()), most_host)
    budget, base = host_budget, held
    if opened.target.beside_host:
        budget, base = device_budget(opened, gpu_memory)
        if opened.target.simulated is not None:
            # What the device pretends to hold is taken from the same memory.
            host_budget = min(host_budget, most_host - budget)
    return Demands(
        budget=budget,
        base=base,
        activations=activations,
        micro_batch_tokens=micro_batch,
        rows_held=opened.rows_scored if workload.scored else opened.rows_held,
        page_tokens=PAGE_TOKENS,
        device=opened.target.name,
        block_size=block_size,
        host_budget=host_budget if opened.target.beside_host else None,
        host_base=held,
        # Scored rows are all where the model computes when the layers are done.
        plain_row=opened.target.beside_host and opened.plain_row and not workload.scored,
        offload=free_bytes(offload_dir) if offload_dir is not None else 0,
    )


def device_budget(opened: OpenedModel, asked: int | None) -> tuple[int, int]:
    """The device's budget, and what this process holds of its memory already: its context and torch's blocks.

    A device tells what is taken and not by whom. More than a context takes belongs to other processes: it lessens what
    there is, and is no part of this budget.
    """
    if opened.target.simulated is not None:
        assert asked is not None, "a simulated device is given its memory"
        return asked, 0
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(opened.device)
    held = min(total - free, torch.cuda.memory_reserved(opened.device) + MOST_CONTEXT_BYTES)
    return min(asked or held + int(SHARE_OF_FREE * free), held + free), held
