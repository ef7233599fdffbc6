"""The lengths at which a twin is tried: both sides of every window, chunk and rotary threshold it has.

A trial reads a prompt and decodes DECODE_STEPS tokens, so a length just under a threshold also crosses it while
decoding.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PreTrainedConfig

DECODE_STEPS = 8
WINDOW_NAMES = re.compile(
    r".*(sliding_window|window_size|window_len|local_attention)|attention_chunk_size|floor_scale|.*n_floor"
    r"|index_topk|rel_extent"
)
SCALED_ROTARY = ("dynamic", "longrope", "yarn", "llama3")
SHORTEST, LONGEST = 3, 128


def thresholds(config: PreTrainedConfig) -> tuple[int, ...]:
    """Every length, in tokens and ascending, at which a model of this config starts to compute differently."""
    values = config.to_dict()
    found = set(_windows(values)) | set(rotary_thresholds(config))
    return tuple(sorted(limit for limit in found if SHORTEST < limit <= LONGEST))


def rotary_thresholds(config: PreTrainedConfig) -> tuple[int, ...]:
    """Those of the thresholds at which rotary tables change kind, in tokens and ascending."""
    values = config.to_dict()
    common = {name: values.get(own) for name, own in config.attribute_map.items()} | values
    rope = common.get("rope_parameters") or {}
    nested = [setting for setting in rope.values() if isinstance(setting, Mapping)]
    return tuple(sorted({limit for setting in nested or [rope] for limit in _rotary_limits(setting, common)}))


def trial_lengths(config: PreTrainedConfig) -> tuple[int, ...]:
    """Prompt lengths in tokens, ascending: short, just under, just over and well over each threshold."""
    lengths = {SHORTEST, 2 * DECODE_STEPS + 1}
    for limit in thresholds(config):
        lengths |= {max(1, limit - DECODE_STEPS - 2), limit - DECODE_STEPS // 2, limit + 1, 2 * limit + 3}
    room = _positions(config) - DECODE_STEPS
    return tuple(sorted(length for length in lengths if length <= min(room, LONGEST)))


def _windows(values: Mapping[str, Any]) -> Iterator[int]:
    for name, value in values.items():
        if WINDOW_NAMES.fullmatch(name) and type(value) is int:
            yield value


def _rotary_limits(setting: Mapping[str, Any], common: Mapping[str, Any]) -> Iterator[int]:
    kind = str(setting.get("rope_type"))
    if any(name in kind for name in SCALED_ROTARY):
        limit = setting.get("original_max_position_embeddings") or common.get("original_max_position_embeddings")
        yield int(limit or common.get("max_position_embeddings") or LONGEST)


def _positions(config: PreTrainedConfig) -> int:
    """Positions the model has; rotary ones do not end, so only a table of positions limits a trial."""
    values = config.to_dict()
    if values.get("rope_parameters"):
        return LONGEST + DECODE_STEPS
    common = {name: values.get(own) for name, own in config.attribute_map.items()} | values
    return int(common.get("max_position_embeddings") or LONGEST + DECODE_STEPS)
