"""Checkpoints that `windlass quantize` wrote: packed matrices keep their names and are tensors of blocks.

The blocks are described in kernels/encodings/blocks.py.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from windlass.errors import CheckpointError, UnsupportedModel
from windlass.facts.checkpoint_facts import CheckpointFacts
from windlass.facts.packed_tensor import PackedTensor
from windlass.facts.packing import Packing
from windlass.facts.tensor_fact import TensorFact

FORMAT = 1
ROWS, COLUMNS = 16, 64
"""Of a block."""
BLOCK_BYTES = {4: 576, 8: 1088}
"""By bits of a code."""


def own_packing(bits: int) -> Packing:
    """The packing whose codes have 4 or 8 bits."""
    return Packing(f"int{bits}", bits=bits, group=COLUMNS, row_step=ROWS)


def blocks_shape(shape: tuple[int, ...], bits: int) -> tuple[int, ...]:
    """Of the bytes of a tensor (N, K) or (E, N, K): (..., blocks along N, blocks along K, bytes of one)."""
    *experts, rows, columns = shape
    return (*experts, -(-rows // ROWS), -(-columns // COLUMNS), BLOCK_BYTES[bits])


def own_checkpoint(checkpoint: CheckpointFacts, settings: Mapping[str, Any]) -> CheckpointFacts:
    """Tensors of bytes are packed matrices. Raises UnsupportedModel for another format, CheckpointError for sizes."""
    bits = settings.get("bits")
    if settings.get("format") != FORMAT or bits not in BLOCK_BYTES or settings.get("group_size") != COLUMNS:
        raise UnsupportedModel(
            f"{checkpoint.folder} is quantised by Windlass in format {settings.get('format')!r} with {bits!r} bits in "
            f"groups of {settings.get('group_size')!r}; this version reads format {FORMAT} with 4 or 8 bits in groups "
            f"of {COLUMNS}: update Windlass, or quantise the model again"
        )
    shapes = settings.get("shapes") or {}
    tensors = {
        name: _packed(fact, int(bits), shapes.get(name))
        if fact.dtype == "U8" and isinstance(fact, TensorFact)
        else fact
        for name, fact in checkpoint.tensors.items()
    }
    return replace(checkpoint, tensors=tensors)


def _packed(fact: TensorFact, bits: int, shape: Any) -> PackedTensor:
    """`shape` (N, K) is set where the blocks are padded."""
    if len(fact.shape) not in (3, 4) or fact.shape[-1] != BLOCK_BYTES[bits]:
        raise CheckpointError(
            f"{fact.file}: tensor {fact.name} of bytes has shape {list(fact.shape)}; blocks of {bits} bits have the "
            f"last dimension {BLOCK_BYTES[bits]}: quantise the model again"
        )
    rows, columns = fact.shape[-3] * ROWS, fact.shape[-2] * COLUMNS
    if shape is not None:
        if not (
            isinstance(shape, list)
            and len(shape) == 2
            and _pads(shape[0], rows, ROWS)
            and _pads(shape[1], columns, COLUMNS)
        ):
            raise CheckpointError(
                f"{fact.file}: config.json gives the shape {shape!r} for {fact.name}, whose blocks hold {rows} rows "
                f"and {columns} columns: quantise the model again"
            )
        rows, columns = shape
    return PackedTensor(fact.name, (*fact.shape[:-3], rows, columns), own_packing(bits), (("blocks", fact),))


def _pads(true: Any, padded: int, step: int) -> bool:
    return isinstance(true, int) and 0 < true <= padded < true + step
