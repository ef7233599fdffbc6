"""Where weights and keys and values go beside a device, as a linear program: no memory over its budget, and the time
of a decode pass as short as its busiest lane allows.

FlexGen's formulation (ICML 2023, section 4.3), with what it leaves out: the host attends while the link and the device
work, so nothing is added that goes on side by side; and a byte of keys and values on disk is read each pass. The answer
is a share; what is made of it is exact to a tensor and a page, and is priced by the forecast like any other plan.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

from windlass.facts.model_facts import ModelFacts
from windlass.facts.plan import Plan
from windlass.facts.workload import Workload
from windlass.planner.layer_work import SliceWork
from windlass.planner.pace import Pace


@dataclass(frozen=True, slots=True)
class Balance:
    """Shares of the keys and values on the device and on the host; the rest is on disk."""

    device: float
    host: float


@dataclass(frozen=True, slots=True)
class Rooms:
    """Bytes that weights and keys and values may share in each memory, and those that the offload folder has."""

    device: int
    host: int
    offload: int


def balanced(
    model: ModelFacts, workload: Workload, plan: Plan, pace: Pace, works: tuple[SliceWork, ...], rooms: Rooms
) -> Balance | None:
    """The best shares for a block as large as `plan`'s, or None where nothing fits.

    The unknowns are the shares of weights on device and host, those of keys and values, and the seconds of a pass.
    """
    weights = float(sum(work.weight_bytes for work in works))
    capacity = float(plan.num_pages * model.cache_page_bytes(plan.page_tokens))
    attended = workload.mean_prompt_len + workload.gen_len / 2
    near = sum(_attention(work, plan.block_size * attended, pace, True) for work in works)
    far = sum(_attention(work, plan.block_size * attended, pace, False) for work in works)
    read = plan.block_size * attended * sum(work.attended_bytes for work in works) / pace.disk
    rows = min(plan.block_size, plan.micro_batch_tokens)
    steps = -(-plan.block_size // rows)
    products = sum(pace.computing.products(work.parameters, rows) + pace.computing.step for work in works) * steps
    disk, up = weights / pace.disk, weights / pace.upload
    # Rows of A x <= b over x = (weights on device, on host, keys and values on device, on host, seconds).
    table = [
        ([-disk, -disk, -read, -read, -1.0], -disk - read),
        ([-up, 0.0, 0.0, 0.0, -1.0], -up),
        ([0.0, 0.0, near, 0.0, -1.0], -products),
        ([0.0, 0.0, -far, 0.0, -1.0], -far),
        ([weights, 0.0, capacity, 0.0, 0.0], float(max(0, rooms.device))),
        ([0.0, weights, 0.0, capacity, 0.0], float(max(0, rooms.host))),
        ([0.0, 0.0, -capacity, -capacity, 0.0], float(rooms.offload) - capacity),
        ([1.0, 1.0, 0.0, 0.0, 0.0], 1.0),
        ([0.0, 0.0, 1.0, 1.0, 0.0], 1.0),
    ]
    answer = linprog(
        c=np.array([0.0, 0.0, 0.0, 0.0, 1.0]),
        A_ub=np.array([row for row, _ in table]),
        b_ub=np.array([limit for _, limit in table]),
        bounds=[(0.0, 1.0)] * 4 + [(0.0, None)],
        method="highs",
    )
    return Balance(float(answer.x[2]), float(answer.x[3])) if answer.success else None


def _attention(work: SliceWork, tokens: float, pace: Pace, here: bool) -> float:
    """Seconds of a layer's decode attention to `tokens` tokens, all on one side."""
    if work.attention is not None and work.attention.window is not None:
        tokens = min(tokens, float(work.attention.window) * max(1.0, tokens))
    where = pace.computing if here else pace.host
    return where.decode_attention(tokens * work.attended_bytes, work.sharing)
