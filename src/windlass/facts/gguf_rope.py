"""Rotary positions as a GGUF file describes them, as transformers' rope parameters.

Llama 3's stretched frequencies are stored as what came out, a tensor of divisors; transformers has what they were
computed from. The published settings are recognised by the divisors that they give. Others become `longrope` with the
same divisors for every length, which is what a tensor of divisors means.
"""

import math
import struct
from typing import Any

from windlass.errors import CheckpointError, UnsupportedModel
from windlass.facts.gguf_model import GgufModel

_LOW, _HIGH, _ORIGINAL = 1.0, 4.0, 8192
"""low_freq_factor, high_freq_factor and original_max_position_embeddings of every Llama 3 that was published."""

_MOST_DIVISORS = 4096
_LARGEST_FLOAT32 = 3e38


def rope_parameters(model: GgufModel, head_dim: int) -> dict[str, Any]:
    """Raises UnsupportedModel for a kind of stretching that is not known, CheckpointError for values of no sense."""
    kind = model.architecture
    rope: dict[str, Any] = {
        "rope_type": "default",
        "rope_theta": decimal(model.positive(f"{kind}.rope.freq_base", 1e4)),
    }
    rotated = model.whole(f"{kind}.rope.dimension_count", head_dim)
    if rotated != head_dim:
        rope["partial_rotary_factor"] = rotated / head_dim
    if "rope_freqs.weight" in model.tensors:
        return rope | _by_divisors(model, rope["rope_theta"], rotated)
    if "rope_factors_long.weight" in model.tensors:
        return rope | _by_two_sets(model)
    return rope | _by_formula(model)


def _by_formula(model: GgufModel) -> dict[str, Any]:
    kind = f"{model.architecture}.rope.scaling"
    key = f"{kind}.factor" if f"{kind}.factor" in model.metadata else f"{model.architecture}.rope.scale_linear"
    if not model.number(key, 0.0):  # some files say 0 for none
        return {}
    factor = decimal(model.positive(key))
    name = model.text(f"{kind}.type", "linear")
    if name == "none" or factor == 1:
        return {}
    if name == "linear":
        return {"rope_type": "linear", "factor": factor}
    if name != "yarn":
        raise UnsupportedModel(
            f"{model.path} stretches rotary positions by {name!r}, which is not read yet (linear, yarn, Llama 3's and "
            f"longrope are); choose the model's safetensors checkpoint"
        )
    rope: dict[str, Any] = {"rope_type": "yarn", "factor": factor}
    context = model.whole(f"{model.architecture}.context_length", 0)
    rope["original_max_position_embeddings"] = model.whole(f"{kind}.original_context_length", int(context / factor))
    for theirs, ours in (("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")):
        if f"{kind}.{theirs}" in model.metadata:
            rope[ours] = decimal(model.positive(f"{kind}.{theirs}"))
    attention = decimal(model.positive(f"{kind}.attn_factor", 1.0))
    if attention != 1:
        rope["attention_factor"] = attention * (0.1 * math.log(factor) + 1)
    return rope


def _by_divisors(model: GgufModel, theta: float, rotated: int) -> dict[str, Any]:
    divisors = _floats(model, "rope_freqs.weight", rotated // 2)
    factor = decimal(max(divisors))
    expected = _llama3_divisors(theta, rotated, factor)
    if all(math.isclose(one, other, rel_tol=1e-4) for one, other in zip(divisors, expected, strict=True)):
        return {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": _LOW,
            "high_freq_factor": _HIGH,
            "original_max_position_embeddings": _ORIGINAL,
        }
    return {
        "rope_type": "longrope",
        "short_factor": divisors,
        "long_factor": divisors,
        "attention_factor": 1.0,
        "original_max_position_embeddings": model.whole(f"{model.architecture}.context_length"),
    }


def _llama3_divisors(theta: float, rotated: int, factor: float) -> list[float]:
    """By what each frequency is divided: low ones by `factor`, high ones not at all, those between in between."""
    divisors = []
    for pair in range(rotated // 2):
        turns = _ORIGINAL / (2 * math.pi * theta ** (2 * pair / rotated))  # over the original context
        kept = min(1.0, max(0.0, (turns - _LOW) / (_HIGH - _LOW)))
        divisors.append(1 / ((1 - kept) / factor + kept))
    return divisors


def _by_two_sets(model: GgufModel) -> dict[str, Any]:
    kind = f"{model.architecture}.rope"
    rotated = model.whole(f"{kind}.dimension_count")
    rope: dict[str, Any] = {
        "rope_type": "longrope",
        "short_factor": _floats(model, "rope_factors_short.weight", rotated // 2),
        "long_factor": _floats(model, "rope_factors_long.weight", rotated // 2),
        "original_max_position_embeddings": model.whole(f"{kind}.scaling.original_context_length"),
    }
    if f"{kind}.scaling.attn_factor" in model.metadata:
        rope["attention_factor"] = decimal(model.positive(f"{kind}.scaling.attn_factor"))
    return rope


def decimal(value: float) -> float:
    """The number that a maker wrote, of the float32 that was stored: 1e-06, not 9.999999974752427e-07."""
    if not abs(value) < _LARGEST_FLOAT32:
        return value
    shorter = (float(f"{value:.{digits}g}") for digits in range(6, 10))
    return next((short for short in shorter if struct.pack("<f", short) == struct.pack("<f", value)), value)


def _floats(model: GgufModel, name: str, count: int) -> list[float]:
    """The numbers of a small tensor. Raises CheckpointError where it is missing or they are not `count` float32."""
    fact = model.tensors.get(name)
    if fact is None:
        raise CheckpointError(f"{model.path} lacks the tensor {name}; fetch another file of the model")
    if fact.dtype != "F32" or fact.shape != (count,) or count > _MOST_DIVISORS:
        raise CheckpointError(
            f"{fact.file}: tensor {fact.name} is {fact.dtype} of shape {list(fact.shape)}, expected F32 of "
            f"[{count}]; fetch another file of the model"
        )
    try:
        with open(fact.file, "rb") as file:
            file.seek(fact.offset)
            values = struct.unpack(f"<{count}f", file.read(fact.nbytes))
    except (OSError, struct.error) as error:
        raise CheckpointError(f"{fact.file} cannot be read: {error}; fetch the file again") from error
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise CheckpointError(f"{fact.file}: tensor {fact.name} holds numbers that are not positive; fetch it again")
    return [decimal(value) for value in values]
