"""Describes a model as it would be with packed weights. What is packed only transformers knows, so it is imported."""

from pathlib import Path

from windlass.errors import UsageError
from windlass.facts.checkpoint_facts import CheckpointFacts
from windlass.facts.made_checkpoint import made_checkpoint, made_packed
from windlass.facts.model_description import describe
from windlass.facts.model_facts import ModelFacts
from windlass.facts.model_structure import ModelStructure
from windlass.facts.number_types import computed_in
from windlass.facts.packed_tensor import PackedTensor
from windlass.facts.packed_view import packed_view
from windlass.facts.shape import Shape
from windlass.jobs.model_description import known_shape, model_files
from windlass.jobs.structures import structure_of_folder, structure_of_shape
from windlass.kernels.quantiser import PACKINGS
from windlass.model.config_file import read_config
from windlass.model.multiplied import packed_names
from windlass.model.shape_checkpoint import shape_config
from windlass.model.text_config import text_config_of


def describe_packed(model: str | Path | Shape, to: str, revision: str | None, *, dtype: str = "auto") -> ModelFacts:
    """The facts of `model`, as `describe_model`, once its weights are packed as `to`.

    Raises UsageError for a model whose weights are packed already, and what `describe_model` raises.
    """
    shape = model if isinstance(model, Shape) else known_shape(model)
    if shape is not None:
        structure, config = structure_of_shape(shape), shape_config(shape)
        checkpoint = made_checkpoint(structure, computed_in(shape.dtype if dtype == "auto" else dtype, ""), Path("."))
        name = shape.name
    else:
        folder, checkpoint = model_files(str(model), revision)
        structure, config = structure_of_folder(folder, checkpoint.tensors), text_config_of(read_config(folder))
        name = str(model)
    plain = checkpoint.plain
    if len(plain) < len(checkpoint.tensors):
        return _as_it_is(name, structure, checkpoint, to, dtype)
    in_blocks = packed_view if shape is None else made_packed
    packed = in_blocks(checkpoint, packed_names(config, plain), PACKINGS[to].bits)
    return describe(name, structure, packed, dtype).facts


def _as_it_is(
    name: str, structure: ModelStructure, checkpoint: CheckpointFacts, to: str, dtype: str
) -> ModelFacts:  # fmt: skip
    """Of a model that is packed so already."""
    found = next(fact.packing.name for fact in checkpoint.tensors.values() if isinstance(fact, PackedTensor))
    if found != to:
        raise UsageError(f"{name} is packed already, as {found}; leave --quantization {to} out to plan for it as it is")
    return describe(name, structure, checkpoint, dtype).facts
