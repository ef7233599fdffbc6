"""The bytes that a job moves, before it has begun: what is read from disk and what is written there.

Reads are what `RunReport.bytes_read` counts: weights that are loaded once, slices that stream each pass, experts that
tokens want, rows of the embedding. Writes are full pages of keys and values that have their place on disk.
"""

import math
from dataclasses import dataclass

from windlass.facts.forecast import Forecast
from windlass.facts.model_facts import ModelFacts
from windlass.facts.piece import round_up
from windlass.facts.plan import Plan
from windlass.facts.workload import Workload
from windlass.planner.layer_work import slice_works


@dataclass(frozen=True, slots=True)
class JobBytes:
    """Bytes of a whole job."""

    loaded: float
    streamed: float
    experts: float
    embedding: float
    written: float

    @property
    def read(self) -> float:
        """From the checkpoint's files."""
        return self.loaded + self.streamed + self.experts + self.embedding


def job_bytes(model: ModelFacts, plan: Plan, workload: Workload, told: Forecast) -> JobBytes:
    """What a job of so many passes moves; `told` is the forecast of that plan for that work."""
    sizes = {source.key: sum(fact.nbytes for fact in source.tensors) for g in model.groups for source in g.sources}
    kept = plan.resident | plan.host_resident
    loaded = sum(sizes.get(key, 0) for key in kept)
    experts = embedding = 0.0
    for phase in (told.prefill, told.decode):
        if phase.passes:
            rows = phase.tokens / phase.passes
            experts += phase.passes * _expert_bytes(model, plan, rows)
            embedding += phase.passes * _embedding_bytes(model, kept, rows)
    passes = told.prefill.passes + told.decode.passes
    return JobBytes(loaded, passes * plan.disk_bytes, experts, embedding, _written(model, plan, workload))


def _expert_bytes(model: ModelFacts, plan: Plan, rows: float) -> float:
    """Of the experts that `rows` rows of one pass want, each fetched for each micro-batch."""
    width = min(rows, plan.micro_batch_tokens)
    works = [work.experts for work in slice_works(model, plan) if work.experts is not None]
    return rows / width * sum(work.distinct(width) * work.disk_bytes for work in works)


def _embedding_bytes(model: ModelFacts, kept: frozenset[str], rows: float) -> float:
    """Of the table's rows that `rows` tokens, drawn at random, look up in one pass."""
    group = next((group for group in model.groups if group.kind == "embedding"), None)
    if group is None or all(source.key in kept for source in group.sources):
        return 0.0
    vocabulary = max(1, model.vocab_size)
    distinct = vocabulary * (1.0 - math.pow(1.0 - 1.0 / vocabulary, rows))
    return min(float(sum(source.nbytes for source in group.sources)), distinct * round_up(model.row_bytes))


def _written(model: ModelFacts, plan: Plan, workload: Workload) -> float:
    """Keys and values of all tokens, as far as their pages lie on disk."""
    if not plan.disk_pages:
        return 0.0
    tokens = workload.num_prompts * workload.mean_prompt_len + workload.generated_tokens
    of_a_token = sum(work.cache_bytes for work in slice_works(model, plan))
    return tokens * of_a_token * plan.disk_pages / plan.num_pages
