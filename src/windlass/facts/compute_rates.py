"""How fast one place computes: the host's cores, or a device."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from windlass.facts.rate_curve import RateCurve


@dataclass(frozen=True, slots=True)
class ComputeRates:
    """Bytes, bytes/s, flops/s and seconds. Mappings go by dtype ("bfloat16", "float32").

    memory             bytes of its memory in all
    memory_rate        bytes/s that its memory is read at
    copy_rate          bytes/s that its memory is copied at, each byte counted once; 0.0 where it was not measured
    matmul             flops/s by rows, of weights that come from memory (so few rows are bound by reading them)
    packed_matmul      the same of weights packed as "int4" and "int8"; empty where it was not measured
    prefill_attention  flops/s of causal attention by tokens of the prompt; pairs that are not seen do not count
    decode_attention   bytes/s of keys and values by query heads that share a key head
    step_seconds       what a layer costs a micro-batch however small it is: interpreter, launches
    row_rate           bytes/s of hidden rows through a layer apart from products and attention: norms, rotary
                       tables, activations, residuals (a row's bytes are counted once a layer)
    """

    name: str
    memory: int
    memory_rate: float
    matmul: Mapping[str, RateCurve]
    prefill_attention: Mapping[str, RateCurve]
    decode_attention: Mapping[str, RateCurve]
    step_seconds: float
    row_rate: float
    copy_rate: float = 0.0
    packed_matmul: Mapping[str, RateCurve] = field(default_factory=dict)
