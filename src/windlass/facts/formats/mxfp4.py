"""MXFP4 checkpoints of gpt-oss: experts whose numbers of 4 bits share an exponent by 32.

A parameter X of E experts, which transformers has as (E, K, N) and multiplies from the right, is stored as

    X_blocks  U8 (E, N, K / 32, 16)  two numbers (E2M1) a byte, the low half first
    X_scales  U8 (E, N, K / 32)      exponents of two, with 127 added
"""

from collections.abc import Mapping

from windlass.facts.checkpoint_facts import CheckpointFacts
from windlass.facts.formats.raw_layer import RawLayer, stems_with, with_packed
from windlass.facts.packed_tensor import PackedTensor
from windlass.facts.packing import Packing

FORMAT = "MXFP4"
GROUP = 32
ENDINGS = ("_blocks", "_scales")


def packed_mxfp4(checkpoint: CheckpointFacts, settings: Mapping[str, object]) -> CheckpointFacts:
    """The checkpoint with one PackedTensor a parameter of experts. Raises CheckpointError where tensors disagree."""
    return with_packed(checkpoint, FORMAT, stems_with(checkpoint, *ENDINGS), ENDINGS, _experts)


def _experts(layer: RawLayer) -> PackedTensor:
    codes = layer.part("_blocks", ("U8",), sizes=4)
    experts, rows, groups, nbytes = codes.shape
    if nbytes != GROUP // 2:
        raise layer.disagrees(codes, f"{GROUP // 2} bytes in its last size")
    scales = layer.shaped("_scales", ("U8",), (experts, rows, groups))
    shape = (experts, rows, groups * GROUP)
    parts = (("codes", codes), ("scales", scales))
    return PackedTensor(layer.stem, shape, Packing("mxfp4", 4, GROUP), parts, transposed=True)
