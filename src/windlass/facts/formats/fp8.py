"""FP8 checkpoints: numbers of 8 bits under a grid of scales (DeepSeek, Qwen and others; quant_method "fp8").

    X.weight            F8_E4M3 (N, K), or (E, N, K) for E experts
    X.weight_scale_inv  (ceil(N / 128), ceil(K / 128)), one scale a block of weight_block_size; or one a row, or one
                        in all. Some call it weight_scale. In spite of its name it is multiplied with.

Activations are not made 8 bits wide, as the publishers' kernels do: only weights are packed here.
"""

from collections.abc import Mapping

from windlass.errors import CheckpointError
from windlass.facts.checkpoint_facts import CheckpointFacts
from windlass.facts.formats.raw_layer import SCALE_DTYPES, RawLayer, stems_with, with_packed
from windlass.facts.packed_tensor import PackedTensor
from windlass.facts.packing import Packing
from windlass.facts.tensor_fact import TensorFact

FORMAT = "FP8"
CODES = ("F8_E4M3",)
# U8 holds the exponent of a power of two, as F8_E8M0 does.
SCALES = (*SCALE_DTYPES, "F8_E8M0", "U8")
SCALE_ENDINGS = ("_scale_inv", "_scale")


def packed_fp8(checkpoint: CheckpointFacts, settings: Mapping[str, object]) -> CheckpointFacts:
    """The checkpoint with one PackedTensor a quantised weight. Raises CheckpointError where tensors disagree."""
    block = block_size(checkpoint.folder, settings.get("weight_block_size"))
    scaled = stems_with(checkpoint, "_scale_inv")
    scaled += [f"{stem}.weight" for stem in stems_with(checkpoint, ".weight_scale")]
    stored = [name for name, fact in checkpoint.tensors.items() if fact.dtype in CODES]
    weights = dict.fromkeys(scaled + stored)
    return with_packed(checkpoint, FORMAT, weights, ("", *SCALE_ENDINGS), lambda layer: fp8_weight(layer, block))


def fp8_weight(layer: RawLayer, block: tuple[int, int] | None) -> PackedTensor:
    """The weight named `layer.stem`, whose numbers end in "" and scales in "_scale_inv" or "_scale".

    `block` is (rows, columns) that share a scale, where the config says so.
    """
    codes = layer.part("", CODES)
    if len(codes.shape) not in (2, 3):
        raise layer.disagrees(codes, "a shape of 2 or 3 sizes")
    scales = layer.part("_scale_inv" if "_scale_inv" in layer.facts else "_scale", SCALES)
    rows, columns = _shared(layer, codes, scales, block)
    packing = Packing("fp8", 8, columns, options=(("row_block", rows),))
    return PackedTensor(layer.stem, codes.shape, packing, (("codes", codes), ("scales", scales)))


def block_size(place: str, value: object) -> tuple[int, int] | None:
    """What a config says about the (rows, columns) that share a scale. Raises CheckpointError for nonsense."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(type(n) is int and n > 0 for n in value):
        raise CheckpointError(
            f"{place}: config.json has the block size {value!r} in its quantization_config, expected [rows, columns]; "
            "correct that value, or fetch the file again"
        )
    return value[0], value[1]


def _shared(layer: RawLayer, codes: TensorFact, scales: TensorFact, block: tuple[int, int] | None) -> tuple[int, int]:
    """How many (rows, columns) share a scale: the config's block where the scales are that many, else as they divide
    the matrix."""
    *experts, rows, columns = codes.shape
    grid = scale_grid(scales.shape, len(experts))
    if block is not None and (*experts, *_blocks(rows, columns, block)) == grid:
        return block
    down, across = grid[-2:]
    if grid[:-2] != tuple(experts) or not down or not across or rows % down or columns % across:
        blocks = f"{list(experts) + list(_blocks(rows, columns, block))}, " if block else ""
        raise layer.disagrees(scales, f"{blocks}one scale a row ({[*experts, rows, 1]}) or one in all")
    return rows // down, columns // across


def scale_grid(shape: tuple[int, ...], leading: int) -> tuple[int, ...]:
    """The shape of scales with rows and columns, behind `leading` sizes, where both may be left out."""
    return shape + (1,) * (leading + 2 - len(shape)) if shape != (1,) or leading else (1, 1)


def _blocks(rows: int, columns: int, block: tuple[int, int]) -> tuple[int, int]:
    return -(-rows // block[0]), -(-columns // block[1])
