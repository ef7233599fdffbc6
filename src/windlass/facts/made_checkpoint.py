"""The files that a model's weights would have if somebody wrote them: each tensor alone, under transformers' name."""

from collections.abc import Iterable
from dataclasses import replace
from math import prod
from pathlib import Path

from windlass.facts.checkpoint_facts import CheckpointFacts
from windlass.facts.model_structure import ModelStructure
from windlass.facts.number_types import ITEM_BYTES, STORED_NAMES
from windlass.facts.own_checkpoint import blocks_shape, own_packing
from windlass.facts.packed_tensor import PackedTensor
from windlass.facts.tensor_fact import TensorFact

# The data begins at a block of the disk, behind a header that is padded up to there.
HEADER_BYTES = 4096


def made_fact(folder: Path, name: str, dtype: str, shape: tuple[int, ...], nbytes: int) -> TensorFact:
    """Where tensor `name` lies once it is written: alone in a safetensors file of `folder`."""
    return TensorFact(name, dtype, shape, str(folder / f"{name}.safetensors"), HEADER_BYTES, nbytes)


def made_checkpoint(structure: ModelStructure, dtype: str, folder: Path) -> CheckpointFacts:
    """The tensors of a model that computes in `dtype`, as they would lie in `folder`; tied ones once.

    Experts lie as the model holds them, one tensor for all of a layer, so that none has to be merged.
    """
    tensors = {}
    for name, shape in structure.every_parameter().items():
        own = shape.computed_in(dtype)
        nbytes = prod(shape.shape) * ITEM_BYTES[own]
        tensors[name] = made_fact(folder, name, STORED_NAMES[own], shape.shape, nbytes)
    return CheckpointFacts(str(folder), tensors)


def made_packed(checkpoint: CheckpointFacts, packed: Iterable[str], bits: int) -> CheckpointFacts:
    """A made checkpoint with the matrices of the names `packed` in blocks of `bits` bits, computed in the same dtype.

    They are what `windlass quantize` would make of them, but that each still lies alone in its file.
    """
    tensors = dict(checkpoint.tensors)
    for name in packed:
        shape = tensors[name].shape
        stored = blocks_shape(shape, bits)
        blocks = made_fact(Path(checkpoint.folder), name, "U8", stored, prod(stored))
        tensors[name] = PackedTensor(name, shape, own_packing(bits), (("blocks", blocks),))
    return replace(checkpoint, tensors=tensors, stated_dtype=checkpoint.weights_dtype)
