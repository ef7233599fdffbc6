"""Models and machines that exist only as facts: what plans and forecasts are made of, without a checkpoint or torch."""

from dataclasses import replace

from windlass.facts.attention_shape import AttentionShape
from windlass.facts.cache_shape import CacheShape
from windlass.facts.compute_rates import ComputeRates
from windlass.facts.disk_profile import DiskProfile
from windlass.facts.link import Link
from windlass.facts.machine import Machine
from windlass.facts.model_facts import ModelFacts
from windlass.facts.parameter_source import ParameterSource
from windlass.facts.rate_curve import RateCurve
from windlass.facts.tensor_fact import TensorFact
from windlass.facts.weight_group import WeightGroup
from windlass.planner.search import Demands
from windlass.units import GIB, MIB


class Sources:
    """Hands out tensors of one file, one behind the other."""

    def __init__(self, itemsize: int) -> None:
        self.itemsize, self.offset = itemsize, 0

    def matrix(self, name: str, rows: int, columns: int, expert: int | None = None) -> ParameterSource:
        nbytes = rows * columns * self.itemsize
        fact = TensorFact(f"{name}#{expert}", "BF16", (rows, columns), "/model.safetensors", self.offset, nbytes)
        self.offset += nbytes
        return ParameterSource(name, (fact,), nbytes, True, expert)


def decoder(
    layers: int = 8,
    hidden: int = 512,
    heads: int = 8,
    kv_heads: int = 4,
    inner: int = 2048,
    vocab: int = 4096,
    experts: int = 0,
    wanted: int = 2,
    window: int | None = None,
) -> ModelFacts:
    """A decoder of those sizes in bfloat16, its head not tied; with `experts` its feed-forward is that many."""
    made, dim = Sources(2), hidden // heads
    groups = [WeightGroup("outer", "outer", (made.matrix("norm", 1, hidden),))]
    groups.append(WeightGroup("embedding", "embedding", (made.matrix("embedding", vocab, hidden),)))
    for layer in range(layers):
        at = f"layers.{layer}"
        sources = [
            made.matrix(f"{at}.q", hidden, hidden),
            made.matrix(f"{at}.k", kv_heads * dim, hidden),
            made.matrix(f"{at}.v", kv_heads * dim, hidden),
            made.matrix(f"{at}.o", hidden, hidden),
        ]
        if not experts:
            sources += [made.matrix(f"{at}.up", inner, hidden), made.matrix(f"{at}.down", hidden, inner)]
        groups.append(WeightGroup(f"layer {layer}", "layer", tuple(sources), layer))
        for expert in range(experts):
            own = tuple(made.matrix(f"{at}.{part}", inner, hidden, expert) for part in ("up", "gate", "down"))
            groups.append(WeightGroup(f"layer {layer} expert {expert}", "expert", own, layer, expert))
    groups.append(WeightGroup("head", "head", (made.matrix("head", vocab, hidden),)))
    cache = tuple((layer, CacheShape(kv_heads, dim, kv_heads, dim)) for layer in range(layers))
    attention = tuple((layer, AttentionShape(heads, dim, dim, window)) for layer in range(layers))
    sizes = ("bfloat16", 2, layers, hidden, vocab, 1 << 20)
    return ModelFacts("toy", "llama", *sizes, tuple(groups), cache, attention, wanted if experts else 0)


def opt_175b() -> ModelFacts:
    """The sizes of table 1 of the OPT paper, without biases."""
    return decoder(layers=96, hidden=12288, heads=96, kv_heads=96, inner=49152, vocab=50272)


def rates(
    name: str, memory: int, memory_rate: float, flops: float, step: float = 40e-6, attention: float = 0.6
) -> ComputeRates:
    """A place whose products reach `flops` once there are enough rows, reading weights at `memory_rate` before."""
    few = memory_rate  # 2 flops a parameter of 2 bytes
    curve = RateCurve(tuple((rows, min(flops, rows * few)) for rows in (1, 4, 16, 64, 256, 1024, 4096)))
    flat = RateCurve(((1, memory_rate * attention), (8, memory_rate * attention)))
    prompts = RateCurve(((64, flops / 4), (1024, flops / 2)))
    return ComputeRates(
        name,
        memory,
        memory_rate,
        {"bfloat16": curve},
        {"bfloat16": prompts},
        {"bfloat16": flat},
        step,
        memory_rate / 4,
        packed_matmul={"int4": RateCurve(((1, 2 * few), (64, flops / 2), (4096, flops)))},
    )


def laptop(disk: float = 2.5e9, memory_rate: float = 20e9, flops: float = 150e9) -> Machine:
    """Two cores and a disk."""
    return Machine(
        "laptop",
        "2026-01-01",
        2,
        rates("2 cores", 16 * GIB, memory_rate, flops),
        DiskProfile(disk, 2 * MIB, 4, True, "set by hand"),
        disk / 2,
        400 * MIB,
    )


def workstation(upload: float = 12e9, disk: float = 2e9, flops: float = 40e12) -> Machine:
    """A card of 16 GiB on a slow bus, beside a host with much memory."""
    return replace(
        laptop(disk, 80e9, 1e12),
        name="workstation",
        device=rates("a card", 16 * GIB, 300e9, flops, 60e-6),
        link=Link(upload, upload, 1.6 * upload, upload / 3, upload / 3),
    )


def demands(budget: int, block_size: int = 0, width: int = 512, device: str = "cpu") -> Demands:
    """What a process with next to nothing loaded asks for, on the host alone."""
    return Demands(budget, 100 * MIB, 10 * MIB, width, 1.0, 64, device, block_size)


def beside_host(budget: int, host: int, block_size: int = 0, offload: int = 0) -> Demands:
    """The same with a device."""
    asked = demands(budget, block_size, device="cuda")
    return replace(asked, host_budget=host, host_base=100 * MIB, offload=offload, plain_row=True)
