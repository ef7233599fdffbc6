"""What a layer costs apart from its products and its attention, measured on decoder layers that our engine runs.

Two made-up models of Llama's kind: one so narrow that a step costs only what is fixed (interpreter, lending, launches),
one of ordinary width whose norms, rotary tables, activations and residuals pass over many rows.

Legend: T rows of a micro-batch; H query heads; Hk key heads; D size of a head.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from windlass.engine.engine import Engine
from windlass.engine.opened_model import made_files, open_model
from windlass.engine.row import RowSpan
from windlass.engine.target import Target
from windlass.facts.attention_rule import AttentionRule
from windlass.facts.disk_profile import DiskProfile
from windlass.facts.shape import Shape
from windlass.facts.workload import Workload
from windlass.kernels.page_store import PAGE_TOKENS
from windlass.memory.timing import finish, undisturbed
from windlass.model.attention import connect_attention
from windlass.model.conductor import Conductor
from windlass.model.dtypes import dtype_name
from windlass.model.kvcache import KVCache
from windlass.planner.search import Demands, search
from windlass.units import GIB, MIB

NARROW, WIDE = 64, 2048
ROWS = 512
SEQUENCES = 8
NO_DISK = DiskProfile(0.0, MIB, 4, True, "made weights stay in memory")


@dataclass(frozen=True, slots=True)
class LayerRates:
    """Seconds a layer costs a micro-batch of a few rows, and bytes/s of hidden rows through it; see ComputeRates."""

    step_seconds: float
    row_rate: float


class Stopwatch:
    """Seconds between `start` and `stop`, added up. A device has ended its work at both."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self._device, self._began = device, 0.0

    def start(self) -> None:
        """Begins a stretch."""
        finish(self._device)
        self._began = time.perf_counter()

    def stop(self) -> None:
        """Ends it."""
        finish(self._device)
        self.seconds += time.perf_counter() - self._began


class TimedLayers:
    """Conducts by another and notes what each layer took, micro-batches and lending and all."""

    def __init__(self, conductor: Conductor, device: torch.device) -> None:
        self._conductor, self._device = conductor, device
        self.seconds: list[float] = []

    def layer(
        self, index: int, layer: nn.Module, row: torch.Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """See Conductor."""
        watch = Stopwatch(self._device)
        watch.start()
        result = self._conductor.layer(index, layer, row, args, kwargs)
        watch.stop()
        self.seconds.append(watch.seconds)
        return result

    def embed(self, embedding: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        """See Conductor."""
        return self._conductor.embed(embedding, ids)

    def head(self, head: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        """See Conductor."""
        return self._conductor.head(head, hidden)

    def announce_experts(self, layer: int, experts: tuple[int, ...]) -> None:
        """See Conductor."""
        self._conductor.announce_experts(layer, experts)

    def expert(self, layer: int, expert: int) -> Mapping[str, torch.Tensor]:
        """See Conductor."""
        return self._conductor.expert(layer, expert)


class TimedAttention:
    """Attends by the cache, against a stopwatch."""

    def __init__(self, cache: KVCache, watch: Stopwatch) -> None:
        self._cache, self._watch = cache, watch

    def attend(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rule: AttentionRule,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """See KVCache: query (H, T, D), key and value (Hk, T, D) -> (T, H, D)."""
        self._watch.start()
        out = self._cache.attend(module, query, key, value, rule, sinks)
        self._watch.stop()
        return out


def measure_layers(
    target: Target, dtype: torch.dtype, width: int = WIDE, rows: int = ROWS, passes: int = 6
) -> LayerRates:
    """Both figures over `passes` passes after one that does not count. Takes a second or two on a CPU."""
    step = _step_seconds(target, dtype, passes)
    return LayerRates(step, rows * width * dtype.itemsize / max(_row_seconds(target, dtype, width, rows, passes), 1e-6))


def _step_seconds(target: Target, dtype: torch.dtype, passes: int) -> float:
    """Of a narrow layer on one token of each of a few sequences."""
    with _engine(_shape(NARROW, layers=4), target, dtype, SEQUENCES, PAGE_TOKENS) as engine:
        timed = TimedLayers(engine.runner, target.device)
        engine.opened.seat.conductor = timed
        _run(engine, [RowSpan(number, [1] * 16, 0, 16, 1) for number in range(SEQUENCES)])
        _run(engine, [RowSpan(number, [1], 16, 17, 1) for number in range(SEQUENCES)])
        timed.seconds.clear()
        for length in range(17, 17 + 3 * passes):
            _run(engine, [RowSpan(number, [1], length, length + 1, 1) for number in range(SEQUENCES)])
        return undisturbed(timed.seconds)


def _row_seconds(target: Target, dtype: torch.dtype, width: int, rows: int, passes: int) -> float:
    """Of one layer on a prompt of `rows` tokens, less its products and its attention."""
    with _engine(_shape(width, layers=1), target, dtype, 1, rows) as engine:
        watch = Stopwatch(target.device)
        timed = TimedLayers(engine.runner, target.device)
        engine.opened.seat.conductor = timed
        (part,) = engine.opened.lifted.layers
        connect_attention(part.module, TimedAttention(engine.cache, watch))
        found = []
        with _products_timed(part.module, watch):
            for _ in range(passes + 1):
                timed.seconds.clear()
                watch.seconds = 0.0
                _run(engine, [RowSpan(0, [1] * rows, 0, rows, 1)])
                found.append(sum(timed.seconds) - watch.seconds)
        return undisturbed(found[1:])


@contextmanager
def _products_timed(layer: nn.Module, watch: Stopwatch) -> Iterator[None]:
    """Every linear layer inside runs against the stopwatch."""
    hooks = []
    for module in layer.modules():
        if isinstance(module, nn.Linear):
            hooks.append(module.register_forward_pre_hook(lambda *_: watch.start()))
            hooks.append(module.register_forward_hook(lambda *_: watch.stop()))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _engine(shape: Shape, target: Target, dtype: torch.dtype, sequences: int, tokens: int) -> Iterator[Engine]:
    """A made model, all of it in memory, with pages for `sequences` of `tokens` tokens and micro-batches of as many."""
    opened = open_model(made_files(shape, dtype_name(dtype), None), shape.name, dtype_name(dtype), None, target)
    demands = Demands(
        GIB, 0, 0, max(sequences, tokens), 1.0, PAGE_TOKENS, target.name,
        host_budget=GIB if target.beside_host else None, block_size=sequences,
    )  # fmt: skip
    plan = search(opened.facts, Workload(sequences, tokens, 1), demands)
    engine = Engine(opened, plan, NO_DISK, lambda done, total, seconds: None)
    try:
        for number in range(sequences):
            engine.cache.table.reserve(number, tokens)
        yield engine
    finally:
        engine.close()


def _run(engine: Engine, spans: Sequence[RowSpan]) -> None:
    for _ in engine.runner.run_pass(spans):
        pass


def _shape(width: int, layers: int) -> Shape:
    """Llama's kind in Llama 3's proportions."""
    heads = max(4, width // 128)
    config = {
        "hidden_size": width,
        "intermediate_size": width * 7 // 2,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 4),
        "vocab_size": 128,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    }
    return Shape("layer", "llama", "bfloat16", 0, "no model", config)
