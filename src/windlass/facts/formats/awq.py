"""AWQ checkpoints in the layout "gemm", as AutoAWQ writes them.

A layer (N, K) has, for G groups along K:

    qweight  I32 (K, N / 8)  codes of 4 bits, eight columns of N to a word
    qzeros   I32 (G, N / 8)  zero points, packed alike
    scales   F16 (G, N)

number = scale * (code - zero point). See kernels/encodings/awq.py for the order of bits.
"""

from collections.abc import Mapping

from windlass.facts.checkpoint_facts import CheckpointFacts
from windlass.facts.formats.raw_layer import SCALE_DTYPES, RawLayer, stems_with, with_packed
from windlass.facts.formats.settings import whole, word
from windlass.facts.formats.unread import variant_not_read
from windlass.facts.packed_tensor import PackedTensor
from windlass.facts.packing import Packing

FORMAT = "AWQ"
ENDINGS = (".qweight", ".qzeros", ".scales")
PER_WORD = 8


def packed_awq(checkpoint: CheckpointFacts, settings: Mapping[str, object]) -> CheckpointFacts:
    """The checkpoint with one PackedTensor a quantised layer.

    Raises UnsupportedModel for other layouts (gemv, marlin, ...) and widths, CheckpointError where tensors disagree.
    """
    place = checkpoint.folder
    layout = word(settings, ("version", "format", "checkpoint_format"), "gemm")
    if layout != "gemm" or word(settings, ("backend",), "") == "llm-awq":
        raise variant_not_read(place, FORMAT, f"layout {layout!r}", "the layout 'gemm'")
    bits = whole(place, settings, ("bits", "w_bit"), 4)
    if bits != 4:
        raise variant_not_read(place, FORMAT, f"{bits} bits", "4 bits")
    group = whole(place, settings, ("group_size", "q_group_size"), 128)
    found = stems_with(checkpoint, ".qweight", ".qzeros")
    return with_packed(checkpoint, FORMAT, found, ENDINGS, lambda layer: _layer(layer, group))


def _layer(layer: RawLayer, group_size: int) -> PackedTensor:
    codes = layer.part(".qweight", ("I32",), sizes=2)
    columns, rows = codes.shape[0], codes.shape[1] * PER_WORD
    group = group_size if group_size > 0 else columns
    if columns % group:
        raise layer.disagrees(codes, f"a multiple of group_size={group} in its first size")
    zeros = layer.shaped(".qzeros", ("I32",), (columns // group, rows // PER_WORD))
    scales = layer.shaped(".scales", SCALE_DTYPES, (columns // group, rows))
    return layer.packed((rows, columns), Packing("awq", 4, group), codes=codes, zeros=zeros, scales=scales)
