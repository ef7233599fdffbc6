"""Describes a model without loading it: a folder, a model on the hub, or a shape that needs no files at all.

Neither torch nor transformers is imported here. What only transformers knows is asked in another process, once.
"""

from functools import partial
from pathlib import Path

from windlass.facts.checkpoint_facts import CheckpointFacts, read_checkpoint
from windlass.facts.config_values import read_config_values
from windlass.facts.made_checkpoint import made_checkpoint
from windlass.facts.model_description import describe
from windlass.facts.model_facts import ModelFacts
from windlass.facts.number_types import computed_in
from windlass.facts.packed_checkpoint import packed_checkpoint
from windlass.facts.shape import Shape, shapes
from windlass.jobs.structures import structure_of_folder, structure_of_shape
from windlass.model.hub import local_folder
from windlass.model.hub_headers import remote_model


def describe_model(
    model: str | Path | Shape, revision: str | None = None, *, dtype: str = "auto", max_model_len: int | None = None
) -> ModelFacts:
    """The facts of `model`: a folder, the name of a known shape, a hub id at a `revision`, or a shape.

    `dtype` is what it would be computed in, "auto" for that of its weights. Raises ModelNotFound, CheckpointError,
    UnsupportedModel, and UsageError for choices that make no sense.
    """
    shape = model if isinstance(model, Shape) else _known_shape(model)
    if shape is not None:
        structure = structure_of_shape(shape)
        chosen = computed_in(shape.dtype if dtype == "auto" else dtype, "")
        made = made_checkpoint(structure, chosen, Path(shape.name))
        return describe(shape.name, structure, made, chosen, max_model_len).facts
    folder, checkpoint = _files(model, revision)
    structure = structure_of_folder(folder, checkpoint.tensors)
    return describe(str(model), structure, checkpoint, dtype, max_model_len).facts


def _known_shape(model: str | Path) -> Shape | None:
    """The shape of that name; a folder of the same name comes first."""
    return None if Path(model).is_dir() else shapes().get(str(model).lower())


def _files(model: str | Path, revision: str | None) -> tuple[Path, CheckpointFacts]:
    """(the folder of its config.json, its tensors)."""
    folder = local_folder(model, revision)
    if folder is not None:
        return folder, packed_checkpoint(folder, read_config_values(folder), partial(read_checkpoint, folder))
    remote = remote_model(str(model), revision)
    return remote.folder, packed_checkpoint(str(model), read_config_values(remote.folder), lambda: remote.checkpoint)
