"""How long a piece of work takes on a machine: its measured rates, corrected by what runs have shown, nothing else.

Every function gives seconds and is the smaller the faster the machine is, so that a forecast can only get better.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from windlass.errors import UsageError
from windlass.facts.compute_rates import ComputeRates
from windlass.facts.machine import Machine
from windlass.facts.packed_numbers import PackedNumbers
from windlass.facts.plan import Plan
from windlass.facts.rate_curve import RateCurve

# A read of a few rows of a table does not reach the disk's rate: so long it takes, with as many in flight as go well.
SMALL_READ_SECONDS = 100e-6
# Passes over the logits in float32 that drawing a token makes: finding the largest, or sorting and summing.
LOGITS_PASSES = 4
# Codes of so many bits are taken for int4 where their own packing was not measured, wider ones for int8.
MOST_BITS_OF_INT4 = 5
# A format that was not measured is taken for one of the same width, and failing that for any.
_ALIKE = {"bfloat16": ("float16",), "float16": ("bfloat16",)}


@dataclass(frozen=True, slots=True)
class Computing:
    """One place that computes in one format; `factor` corrects all its rates."""

    rates: ComputeRates
    matmul: RateCurve
    prefill: RateCurve
    decode: RateCurve
    factor: float
    packed: Mapping[str, RateCurve] = field(default_factory=dict)
    _seen: dict[tuple[str, float], float] = field(default_factory=dict, compare=False)

    def products(self, parameters: float, rows: float, together: float | None = None) -> float:
        """Seconds of multiplying `rows` rows with `parameters` weights, `together` rows at a time."""
        if not rows or not parameters:
            return 0.0
        return 2.0 * parameters * rows / self._rate("matmul", self.matmul, together or rows)

    def all_products(
        self, parameters: float, packed: Sequence[PackedNumbers], rows: float, together: float | None = None
    ) -> float:
        """As products, where `packed` of the parameters lie in fewer bits."""
        dense = parameters - sum(part.numbers for part in packed)
        return self.products(dense, rows, together) + sum(self.packed_products(part, rows, together) for part in packed)

    def packed_products(self, part: PackedNumbers, rows: float, together: float | None = None) -> float:
        """As products, with packed weights, by the rate of our own blocks of as many bits.

        No faster than dense weights allow at their best. Where it was not measured, as with dense weights, and no
        faster than memory gives the packed bytes.
        """
        curve = self.packed.get(part.name) or self.packed.get("int4" if part.bits <= MOST_BITS_OF_INT4 else "int8")
        if curve is None:
            walks = rows / (together or rows) if rows else 0.0
            return max(self.products(part.numbers, rows, together), self.copying(part.nbytes * walks))
        if not rows or not part.numbers:
            return 0.0
        best = self._rate("matmul", self.matmul, math.inf)
        return 2.0 * part.numbers * rows / min(best, self._rate(f"packed {part.name}", curve, together or rows))

    def prefill_attention(self, flops: float, tokens: float) -> float:
        """Seconds of causal attention within prompts of `tokens` tokens."""
        return flops / self._rate("prefill", self.prefill, tokens) if flops else 0.0

    def decode_attention(self, nbytes: float, sharing: float) -> float:
        """Seconds of attending to `nbytes` of keys and values, `sharing` query heads a key head."""
        return nbytes / self._rate("decode", self.decode, sharing) if nbytes else 0.0

    def copying(self, nbytes: float) -> float:
        """Seconds of moving `nbytes` of its memory."""
        return nbytes / (self.rates.memory_rate * self.factor) if nbytes else 0.0

    def rows(self, nbytes: float) -> float:
        """Seconds of norms, rotary tables, activations and residuals of a layer over `nbytes` of hidden rows."""
        return nbytes / (self.rates.row_rate * self.factor) if nbytes else 0.0

    @property
    def step(self) -> float:
        """Seconds a layer costs a micro-batch however small it is."""
        return self.rates.step_seconds / self.factor

    def _rate(self, name: str, curve: RateCurve, amount: float) -> float:
        rate = self._seen.get((name, amount))
        if rate is None:
            rate = self._seen[name, amount] = curve.at(amount) * self.factor
        return rate


@dataclass(frozen=True, slots=True)
class Pace:
    """A machine as one plan uses it. Rates in bytes/s; the link's are infinite where nothing crosses one."""

    computing: Computing
    host: Computing
    disk: float
    disk_write: float
    disk_depth: int
    upload: float
    download: float
    latency: float


def pace_of(machine: Machine, plan: Plan) -> Pace:
    """Raises UsageError where the machine lacks what the plan needs."""
    beside = plan.host is not None
    device, link = machine.device, machine.link
    if beside and (device is None or link is None):
        raise UsageError(
            f"the plan computes on {plan.device}, and the profile of {machine.name} knows of no device; plan with "
            "--device cpu, or measure it with `windlass doctor --fresh` where the device is"
        )
    needs_disk = plan.disk_bytes or plan.host_bill.expert_ring or plan.disk_pages
    if needs_disk and machine.disk.rate <= 0:
        raise UsageError(
            f"the plan reads from disk, and the profile of {machine.name} gives no rate for it; measure it with "
            "`windlass doctor --fresh`, or give one with --disk-rate 2GB/s"
        )
    correct = machine.corrections.get
    host = _computing(machine.host, plan.dtype, correct("host" if beside else "compute", 1.0))
    computing = _computing(device, plan.dtype, correct("compute", 1.0)) if beside and device is not None else host
    disk = correct("disk", 1.0)
    return Pace(
        computing=computing,
        host=host,
        disk=machine.disk.rate * disk or math.inf,
        disk_write=machine.disk_write * disk or math.inf,
        disk_depth=max(1, machine.disk.depth),
        upload=link.upload * correct("upload", 1.0) if beside and link is not None else math.inf,
        download=link.download * correct("download", 1.0) if beside and link is not None else math.inf,
        latency=link.latency if beside and link is not None else 0.0,
    )


def _computing(rates: ComputeRates, dtype: str, factor: float) -> Computing:
    return Computing(
        rates,
        _curve(rates, "matrix products", rates.matmul, dtype),
        _curve(rates, "prefill attention", rates.prefill_attention, dtype),
        _curve(rates, "decode attention", rates.decode_attention, dtype),
        factor,
        {name: curve for name, curve in rates.packed_matmul.items() if curve.best > 0},
    )


def _curve(rates: ComputeRates, what: str, curves: Mapping[str, RateCurve], dtype: str) -> RateCurve:
    for name in (dtype, *_ALIKE.get(dtype, ()), *curves):
        if name in curves and curves[name].best > 0:
            return curves[name]
    raise UsageError(
        f"the profile of {rates.name} gives no rate of {what} in {dtype}; measure it with `windlass doctor --fresh`"
    )
