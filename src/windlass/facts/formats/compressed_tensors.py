"""compressed-tensors checkpoints, as llm-compressor writes them: "pack-quantized", "int-quantized", "float-quantized".

A layer (N, K) has, for G groups along K (1 where a row has one scale):

    weight_packed      I32 (N, ceil(K b / 32))  pack-quantized: codes of b bits (4 or 8), each with 2^(b-1) added
    weight             I8 or F8_E4M3 (N, K)     int-quantized, float-quantized
    weight_scale       (N, G), or (1), or a grid of blocks
    weight_zero_point  asymmetric only: I8 (N, G), or I32 (ceil(N b / 32), G), packed down as the codes are along a row
    weight_g_idx       I32 (K): the group of each column, where groups do not follow each other
    weight_shape       [N, K] as numbers in the file, which the other shapes give too

number = scale * (code - zero point). Activations are not quantised here, whatever the config says of them: only
weights are packed.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from windlass.facts.checkpoint_facts import CheckpointFacts
from windlass.facts.formats.fp8 import SCALES, block_size, fp8_weight
from windlass.facts.formats.raw_layer import SCALE_DTYPES, RawLayer, stems_with, with_packed
from windlass.facts.formats.settings import whole, word
from windlass.facts.formats.unread import variant_not_read
from windlass.facts.packed_tensor import PackedTensor
from windlass.facts.packing import Packing

FORMAT = "compressed-tensors"
READ = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "dense")
PACKED_BITS = (4, 8)
WORD_BITS = 32
ENDINGS = (
    ".weight_packed", ".weight", ".weight_scale", ".weight_zero_point", ".weight_g_idx", ".weight_shape",
)  # fmt: skip


def packed_compressed(checkpoint: CheckpointFacts, settings: Mapping[str, object]) -> CheckpointFacts:
    """The checkpoint with one PackedTensor a quantised layer.

    Raises UnsupportedModel for other formats (nvfp4, marlin, sparse) and widths, CheckpointError where tensors
    disagree.
    """
    place = checkpoint.folder
    groups = _config_groups(place, settings)
    found = stems_with(checkpoint, ".weight_packed", ".weight_scale")
    return with_packed(
        checkpoint, FORMAT, found, ENDINGS, lambda layer: _weight(layer, _weight_settings(groups, layer.stem), place)
    )


def _config_groups(place: str, settings: Mapping[str, object]) -> Sequence[Mapping[str, Any]]:
    """The groups of layers that are quantised alike, all of formats that are read."""
    named = settings.get("config_groups")
    groups = [group for group in named.values() if isinstance(group, dict)] if isinstance(named, dict) else []
    overall = word(settings, ("format",), "dense")
    for format in (overall, *(word(group, ("format",), overall) for group in groups)):
        if format not in (*READ, "mixed-precision"):
            raise variant_not_read(place, FORMAT, f"format {format!r}", f"the formats {', '.join(READ)}")
    sparse = settings.get("sparsity_config")
    sparsity = word(sparse, ("format",), "dense") if isinstance(sparse, dict) else "dense"
    if sparsity != "dense":
        raise variant_not_read(place, FORMAT, f"sparsity {sparsity!r}", "dense weights")
    return groups


def _weight_settings(groups: Sequence[Mapping[str, Any]], stem: str) -> Mapping[str, object]:
    """The settings of a layer's weights: of the group that names it, else of one for all linear layers."""
    named = [group for group in groups if any(_names(target, stem) for target in _targets(group))]
    general = [group for group in groups if any("." not in t and not t.startswith("re:") for t in _targets(group))]
    weights = next((group.get("weights") for group in named + general), None)
    return weights if isinstance(weights, dict) else {}


def _targets(group: Mapping[str, Any]) -> list[str]:
    targets = group.get("targets")
    return [str(target) for target in targets] if isinstance(targets, list) else []


def _names(target: str, stem: str) -> bool:
    if not target.startswith("re:"):
        return target == stem
    try:
        return re.match(target[3:], stem) is not None
    except re.error:
        return False


def _weight(layer: RawLayer, weights: Mapping[str, object], place: str) -> PackedTensor:
    if ".weight_packed" in layer.facts:
        return _packed_words(layer, weights, place)
    codes = layer.part(".weight", ("I8", "F8_E4M3"), sizes=2)
    if codes.dtype == "I8":
        return _int8(layer)
    scales = layer.part(".weight_scale", SCALES)
    named = RawLayer(FORMAT, codes.name, {"": codes, "_scale": scales})
    return fp8_weight(named, block_size(place, weights.get("block_structure")))


def _packed_words(layer: RawLayer, weights: Mapping[str, object], place: str) -> PackedTensor:
    bits = whole(place, weights, ("num_bits",), 4)
    if bits not in PACKED_BITS or word(weights, ("type",), "int") != "int":
        kind = word(weights, ("type",), "int")
        raise variant_not_read(place, FORMAT, f"{bits} bits of type {kind!r} in words", "4 and 8 bits of type 'int'")
    words = layer.part(".weight_packed", ("I32",), sizes=2)
    scales = layer.part(".weight_scale", SCALE_DTYPES, sizes=2)
    rows, groups = words.shape[0], scales.shape[1]
    columns = words.shape[1] * WORD_BITS // bits
    size = whole(place, weights, ("group_size",), -1)
    group = size if size > 0 else columns
    if scales.shape[0] != rows or -(-columns // group) != groups:
        raise layer.disagrees(scales, f"{[rows, -(-columns // group)]}")
    parts = {"codes": words, "scales": scales}
    return _with_zeros(layer, parts, (rows, columns), Packing("packed-int", bits, group))


def _int8(layer: RawLayer) -> PackedTensor:
    codes, scales = layer.facts[".weight"], layer.part(".weight_scale", SCALE_DTYPES)
    rows, columns = codes.shape
    groups = scales.shape[-1] if len(scales.shape) == 2 else 1
    if scales.shape not in ((), (1,), (1, 1), (rows,), (rows, groups)) or columns % max(groups, 1):
        raise layer.disagrees(scales, f"one scale a row ({[rows, 1]}), or groups that divide {columns} columns")
    parts = {"codes": codes, "scales": scales}
    return _with_zeros(layer, parts, (rows, columns), Packing("plain-int", 8, columns // max(groups, 1)))


def _with_zeros(layer: RawLayer, parts: dict[str, Any], shape: tuple[int, int], packing: Packing) -> PackedTensor:
    """With the zero points and the order of groups, where the layer has them."""
    scales = parts["scales"]
    if ".weight_zero_point" in layer.facts:
        packed = (-(-shape[0] * packing.bits // WORD_BITS), scales.shape[-1] if scales.shape else 1)
        zeros = layer.part(".weight_zero_point", ("I8", "I32") if packing.name == "packed-int" else ("I8",))
        expected = scales.shape if zeros.dtype == "I8" else packed
        if zeros.shape != expected:
            raise layer.disagrees(zeros, f"{list(expected)}")
        parts["zeros"] = zeros
    if ".weight_g_idx" in layer.facts:
        parts["groups"] = layer.shaped(".weight_g_idx", ("I32", "I64"), (shape[1],))
    return layer.packed(shape, packing, **parts)
