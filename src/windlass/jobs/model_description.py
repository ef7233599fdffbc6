"""Describes a model without loading it: a folder, a model on the hub, or a shape that needs no files at all.

Neither torch nor transformers is imported here. What only transformers knows is asked in another process, once.
"""

from functools import partial
from pathlib import Path

from windlass.errors import UsageError
from windlass.facts.checkpoint_facts import CheckpointFacts, read_checkpoint
from windlass.facts.config_values import read_config_values
from windlass.facts.gguf_checkpoint import gguf_checkpoint
from windlass.facts.gguf_config import config_of
from windlass.facts.gguf_model import read_gguf
from windlass.facts.made_checkpoint import made_checkpoint
from windlass.facts.model_description import describe
from windlass.facts.model_facts import ModelFacts
from windlass.facts.model_structure import ModelStructure
from windlass.facts.number_types import computed_in
from windlass.facts.packed_checkpoint import packed_checkpoint
from windlass.facts.shape import Shape, shapes
from windlass.jobs.structures import structure_of_folder, structure_of_shape, structure_of_values
from windlass.model.hub import local_model
from windlass.model.hub_gguf import hub_gguf
from windlass.model.hub_headers import remote_model


def describe_model(
    model: str | Path | Shape, revision: str | None = None, *, dtype: str = "auto", max_model_len: int | None = None
) -> ModelFacts:
    """The facts of `model`: a folder, the name of a known shape, a hub id at a `revision`, or a shape.

    `dtype` is what it would be computed in, "auto" for that of its weights. Raises ModelNotFound, CheckpointError,
    UnsupportedModel, and UsageError for choices that make no sense.
    """
    if isinstance(model, Shape):
        return _described(model, dtype, max_model_len)
    shape = known_shape(model)
    if shape is not None:
        return _described(shape, dtype, max_model_len)
    checkpoint, structure = _files(model, revision)
    return describe(str(model), structure, checkpoint, dtype, max_model_len).facts


def known_shape(model: str | Path) -> Shape | None:
    """The shape of that name; a folder of the same name comes first."""
    return None if Path(model).is_dir() else shapes().get(str(model).lower())


def model_files(model: str | Path, revision: str | None) -> tuple[Path, CheckpointFacts]:
    """(the folder of its config.json, its tensors), of a folder or a model on the hub. Raises UsageError for GGUF."""
    found = local_model(model, revision)
    if found is None and hub_gguf(model) is not None:
        raise UsageError(
            f"{model} is a GGUF file on the hub, and only one that is on this machine can be planned for; fetch it "
            f"with `hf download` and give its path"
        )
    if found is None:
        remote = remote_model(str(model), revision)
        found, read = remote.folder, lambda: remote.checkpoint
    elif found.is_file():
        raise UsageError(f"{found} is a GGUF file, which runs as it is; leave --quantization out")
    else:
        read = partial(read_checkpoint, found)
    place = found if Path(model).is_dir() else str(model)
    return found, packed_checkpoint(place, read_config_values(found), read)


def _described(shape: Shape, dtype: str, max_model_len: int | None) -> ModelFacts:
    structure = structure_of_shape(shape)
    chosen = computed_in(shape.dtype if dtype == "auto" else dtype, "")
    made = made_checkpoint(structure, chosen, Path(shape.name))
    return describe(shape.name, structure, made, chosen, max_model_len).facts


def _files(model: str | Path, revision: str | None) -> tuple[CheckpointFacts, ModelStructure]:
    """Its tensors, and what transformers says of its config."""
    found = local_model(model, revision)
    if found is not None and found.is_file():
        return _gguf_file(found)
    folder, checkpoint = model_files(model, revision)
    return checkpoint, structure_of_folder(folder, checkpoint.tensors)


def _gguf_file(file: Path) -> tuple[CheckpointFacts, ModelStructure]:
    gguf = read_gguf(file)
    config = config_of(gguf)
    checkpoint = gguf_checkpoint(gguf, config)
    return checkpoint, structure_of_values(config, checkpoint.tensors)
