"""The files that a model's weights would have if somebody wrote them: each tensor alone, under transformers' name."""

from math import prod
from pathlib import Path

from windlass.facts.checkpoint_facts import CheckpointFacts
from windlass.facts.model_structure import ModelStructure
from windlass.facts.number_types import ITEM_BYTES, STORED_NAMES
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
