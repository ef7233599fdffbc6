"""Where the bytes are: every memory with what the plan gives to whom, and how much of that is in use."""

from dataclasses import dataclass
from typing import Literal

from windlass.engine.block_state import BlockState
from windlass.facts.model_facts import ModelFacts
from windlass.facts.plan import MemoryBill, Plan

PartKind = Literal["process", "weights", "kv_cache", "buffers", "free"]


@dataclass(frozen=True, slots=True)
class TierPart:
    """`bytes` that the plan gives, of which `used` hold something now."""

    kind: PartKind
    bytes: int
    used: int


@dataclass(frozen=True, slots=True)
class Tier:
    """One memory: "host", "device" or "disk". `budget` is in bytes; on disk it is what lies there."""

    name: str
    budget: int
    parts: tuple[TierPart, ...]


def tiers(plan: Plan, facts: ModelFacts, state: BlockState | None) -> tuple[Tier, ...]:
    """Of a plan, the one where the model computes last but for the disk; without a `state` no page is in use."""
    page = facts.cache_page_bytes(plan.page_tokens)
    pages = (state.device_pages, state.host_pages, state.disk_pages) if state else (0, 0, 0)
    if plan.host is None:
        found = [_tier("host", plan.memory, (pages[0] + pages[1]) * page)]
    else:
        found = [_tier("host", plan.host, pages[1] * page), _tier("device", plan.memory, pages[0] * page)]
    on_disk = (
        TierPart("weights", plan.disk_bytes, plan.disk_bytes),
        TierPart("kv_cache", plan.disk_pages * page, pages[2] * page),
    )
    total = sum(part.bytes for part in on_disk)
    return (*found, Tier("disk", total, on_disk)) if total else tuple(found)


def _tier(name: str, bill: MemoryBill, cache_used: int) -> Tier:
    buffers = bill.ring + bill.expert_ring + bill.row + bill.activations + bill.scratch + bill.conversions
    return Tier(
        name,
        bill.budget,
        (
            TierPart("process", bill.base, bill.base),
            TierPart("weights", bill.resident, bill.resident),
            TierPart("kv_cache", bill.cache, min(bill.cache, cache_used)),
            TierPart("buffers", buffers, buffers),
            TierPart("free", max(0, bill.spare), 0),
        ),
    )
