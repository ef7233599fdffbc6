"""GPTQ checkpoints as AutoGPTQ and GPTQModel write them, in the layouts "gptq" and "gptq_v2".

A layer (N, K) of b bits (2, 3, 4 or 8) has, for G groups:

    qweight  I32 (K b / 32, N)  codes, a stream of bits down each column
    qzeros   I32 (G, N b / 32)  zero points, a stream of bits along each row; "gptq" stores each less one
    scales   F16 (G, N)
    g_idx    I32 (K)            the group of each column of K; may lack where groups follow each other

number = scale * (code - zero point). Whether quantisation was symmetric changes nothing here: zero points are stored
in either case. See kernels/encodings/gptq.py.
"""

from collections.abc import Mapping

from windlass.facts.checkpoint_facts import CheckpointFacts
from windlass.facts.formats.raw_layer import SCALE_DTYPES, RawLayer, stems_with, with_packed
from windlass.facts.formats.settings import whole, word
from windlass.facts.formats.unread import variant_not_read
from windlass.facts.packed_tensor import PackedTensor
from windlass.facts.packing import Packing

FORMAT = "GPTQ"
ENDINGS = (".qweight", ".qzeros", ".scales", ".g_idx")
WORD_BITS = 32
BITS = (2, 3, 4, 8)
# What is added to a stored zero point.
ZERO_SHIFTS = {"gptq": 1, "gptq_v2": 0}


def packed_gptq(checkpoint: CheckpointFacts, settings: Mapping[str, object]) -> CheckpointFacts:
    """The checkpoint with one PackedTensor a quantised layer.

    Raises UnsupportedModel for other layouts (marlin, ...) and widths, CheckpointError where tensors disagree.
    """
    place = checkpoint.folder
    layout = word(settings, ("checkpoint_format", "format"), "gptq")
    if settings.get("is_marlin_format"):
        layout = "marlin"
    if layout not in ZERO_SHIFTS:
        raise variant_not_read(place, FORMAT, f"layout {layout!r}", f"the layouts {', '.join(ZERO_SHIFTS)}")
    bits = whole(place, settings, ("bits",), 4)
    if bits not in BITS:
        raise variant_not_read(place, FORMAT, f"{bits} bits", "2, 3, 4 and 8 bits")
    group = whole(place, settings, ("group_size",), 128)
    found, shift = stems_with(checkpoint, ".qweight", ".qzeros"), ZERO_SHIFTS[layout]
    return with_packed(checkpoint, FORMAT, found, ENDINGS, lambda layer: _layer(layer, bits, group, shift))


def _layer(layer: RawLayer, bits: int, group_size: int, zero_shift: int) -> PackedTensor:
    codes = layer.part(".qweight", ("I32",), sizes=2)
    rows, columns = codes.shape[1], codes.shape[0] * WORD_BITS // bits
    group = group_size if group_size > 0 else columns
    if codes.shape[0] * WORD_BITS % bits or rows * bits % WORD_BITS:
        raise layer.disagrees(codes, f"sizes that hold whole numbers of {bits} bits")
    # The last group may be short.
    groups = -(-columns // group)
    parts = {
        "codes": codes,
        "zeros": layer.shaped(".qzeros", ("I32",), (groups, rows * bits // WORD_BITS)),
        "scales": layer.shaped(".scales", SCALE_DTYPES, (groups, rows)),
    }
    if ".g_idx" in layer.facts:
        parts["groups"] = layer.shaped(".g_idx", ("I32", "I64"), (columns,))
    return layer.packed((rows, columns), Packing("gptq", bits, group, options=(("zero_shift", zero_shift),)), **parts)
