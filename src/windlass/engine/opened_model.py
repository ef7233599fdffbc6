"""A model opened but not loaded: its config, structure and checkpoint headers read, no weight touched yet."""

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from windlass.engine.made_model import MadeModel, made_folder
from windlass.engine.rehearsal import Rehearsal
from windlass.engine.target import HOST, Target
from windlass.engine.unwritten_files import UnwrittenFiles
from windlass.errors import CheckpointError
from windlass.facts.cache_format import AS_COMPUTED, CacheFormat
from windlass.facts.checkpoint_facts import CheckpointFacts, read_checkpoint
from windlass.facts.config_values import read_config_values
from windlass.facts.generation_defaults import GenerationDefaults
from windlass.facts.gguf_checkpoint import gguf_checkpoint
from windlass.facts.gguf_config import config_of
from windlass.facts.gguf_model import GgufModel, is_gguf, read_gguf
from windlass.facts.made_checkpoint import made_packed
from windlass.facts.model_description import describe, longest_sequence
from windlass.facts.model_facts import ModelFacts
from windlass.facts.packed_checkpoint import packed_checkpoint
from windlass.facts.packed_tensor import PackedTensor
from windlass.facts.shape import Shape
from windlass.facts.weight_group import WeightGroup
from windlass.kernels.drawn_blocks import drawn_blocks
from windlass.kernels.native.compiler import Missing
from windlass.kernels.native.product import product_library
from windlass.kernels.packed_product import prepare_products
from windlass.kernels.quantiser import PACKINGS
from windlass.memory.made_weights import MadeWeights
from windlass.model.conductor import Seat
from windlass.model.config_file import config_of_values, plain_config, read_config
from windlass.model.dtypes import compute_dtype, dtype_name
from windlass.model.generation_defaults import read_generation_defaults
from windlass.model.gguf_tokenizer import gguf_tokenizer
from windlass.model.lending import Slot
from windlass.model.multiplied import packed_names
from windlass.model.own_linear import multiply_ourselves
from windlass.model.parameter_map import ParameterMap, Renaming
from windlass.model.rotary import RotaryStandIn
from windlass.model.shape_checkpoint import shape_checkpoint, shape_config, spread_of
from windlass.model.shrink import FAILURES
from windlass.model.slots import slots_by_source
from windlass.model.structure import structure_of
from windlass.model.text_config import known_positions, text_config_of
from windlass.model.tokenizer import NoTokenizer, Tokenizer
from windlass.model.zoo import LiftedModel, build, lift

LOG = logging.getLogger("windlass")


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """Everything about a model but its weights' bytes. `seat` is where a conductor of its forward sits down.

    `rows_held` and `rows_scored` are Rehearsal.rows_held. `folder` is where its weights lie, or would: `made` is set
    where their files need not be there.
    """

    folder: Path
    facts: ModelFacts
    config: PreTrainedConfig
    dtype: torch.dtype
    target: Target
    lifted: LiftedModel
    seat: Seat
    parameters: ParameterMap
    groups: tuple[WeightGroup, ...]
    slots: dict[str, list[Slot]]
    tokenizer: Tokenizer | NoTokenizer
    defaults: GenerationDefaults
    rows_held: float
    rows_scored: float
    read_again_beyond: int | None
    narrows_late: bool
    plain_row: bool
    made: UnwrittenFiles | None = None

    @property
    def shares_prefixes(self) -> bool:
        """Whether what is stored of a prompt's beginning is the same whatever follows.

        Where rotary tables depend on the length of the whole (dynamic, longrope) it is not, but for models that read
        again what was stored for a shorter length: places.py shares beyond it.
        """
        modules = self.lifted.decoder.real.modules()
        depends = any(module.length_dependent for module in modules if isinstance(module, RotaryStandIn))
        return not depends or self.read_again_beyond is not None

    @property
    def device(self) -> torch.device:
        """Where torch computes."""
        return self.target.device


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What the files of a model say of themselves, read and checked: the whole config, and every header.

    `folder` is that of its files; where `gguf` is set, its file. `made` speaks for files of weights that need not be
    there; they would be in `weights_folder`, if that is set.
    """

    folder: Path
    config: PreTrainedConfig
    checkpoint: CheckpointFacts
    made: UnwrittenFiles | None = None
    gguf: GgufModel | None = None
    weights_folder: Path | None = None

    @property
    def config_file(self) -> Path:
        """What the config comes from."""
        return self.folder if self.gguf else self.folder / "config.json"

    def tokenizer(self) -> Tokenizer | NoTokenizer:
        """Reads it. Raises CheckpointError for a damaged one."""
        return gguf_tokenizer(self.gguf) if self.gguf else Tokenizer.load(self.folder)

    @property
    def text_config(self) -> PreTrainedConfig:
        """The config of the part that writes text."""
        return text_config_of(self.config)


def read_files(folder: Path) -> ModelFiles:
    """Reads the config and the headers of the weights in a folder, or those of a GGUF file, which is quick.

    Raises CheckpointError for files that are missing, cut short or broken, UnsupportedModel for a type that
    transformers lacks and for quantised weights.
    """
    if is_gguf(folder):
        model = read_gguf(folder)
        values = config_of(model)
        config = config_of_values(model.path, values)
        return ModelFiles(model.path, config, gguf_checkpoint(model, values), gguf=model)
    config = read_config(folder)
    checkpoint = packed_checkpoint(folder, read_config_values(folder), partial(read_checkpoint, folder))
    if any(isinstance(tensor, PackedTensor) for tensor in checkpoint.tensors.values()):
        prepare_products()  # a compiler may run, so before the budget's memory is taken
    return ModelFiles(folder, plain_config(config), checkpoint)


def made_files(shape: Shape, dtype: str, offload_dir: Path | None, to: str | None = None) -> ModelFiles:
    """The files that a shape's checkpoint would have, in `dtype` ("auto" is the published one); none is written.

    `to` is what `windlass quantize` would have packed it as. Raises UsageError for a dtype that is not known and for a
    folder that is missing.
    """
    config = shape_config(shape)
    folder = made_folder(shape, offload_dir)
    checkpoint = shape_checkpoint(config, compute_dtype(shape.dtype if dtype == "auto" else dtype, ""), folder)
    if to is not None:
        checkpoint = made_packed(checkpoint, packed_names(config, checkpoint.plain), PACKINGS[to].bits)
        prepare_products()  # see read_files
    weights = MadeWeights(checkpoint.tensors.values(), spread_of(config), draw=drawn_blocks)
    return ModelFiles(folder, config, checkpoint, MadeModel(shape, offload_dir, folder, weights, to))


def check_choices(files: ModelFiles, dtype: str, max_model_len: int | None) -> None:
    """What open_model would find wrong with its arguments, at once. Raises UsageError."""
    compute_dtype(dtype, files.checkpoint.weights_dtype)
    longest_sequence(known_positions(files.text_config), max_model_len)


def warn_of_unheeded(opened: OpenedModel, name: str | Path | Shape) -> None:
    """Says what the model named so asks for that does not happen here."""
    for setting in opened.defaults.unheeded:
        LOG.warning("generation_config.json of %s asks for %s, which is not applied here", name, setting)


def _warn_of_unpacking(files: ModelFiles) -> None:
    """Says that packed weights will be slow where no kernel multiplies them as they lie."""
    if not any(isinstance(tensor, PackedTensor) for tensor in files.checkpoint.tensors.values()):
        return
    library = product_library()  # a compiler may run, so before the budget's memory is taken
    if isinstance(library, Missing):
        LOG.warning(
            "packed weights are unpacked by plain torch in every pass, which may be slower than bfloat16, since %s",
            library.reason,
        )


def open_model(
    files: ModelFiles,
    name: str,
    dtype: str,
    max_model_len: int | None,
    target: Target = HOST,
    cache_format: CacheFormat = AS_COMPUTED,
) -> OpenedModel:
    """Opens a model for a target. `dtype` is "auto" or a name, `cache_format` how keys and values will be kept.

    Raises CheckpointError, UnsupportedModel or UsageError, always before a weight is read.
    """
    folder, config, checkpoint = files.folder, files.text_config, files.checkpoint
    chosen = compute_dtype(dtype, checkpoint.weights_dtype)
    try:
        model = build(config, chosen, target.device)
    except FAILURES as error:
        raise CheckpointError(
            f"{files.config_file} makes no sense to transformers: {type(error).__name__}: {error}; correct that "
            "value, or fetch the file again"
        ) from error
    seat = Seat()
    lifted = lift(model, seat)
    structure = structure_of(lifted, chosen)
    if target.device.type == "cpu":
        multiply_ourselves(part.module for part in (*lifted.layers, lifted.head))
        _warn_of_unpacking(files)
    renaming = Renaming(model, structure.every_parameter())
    rehearsal = Rehearsal(lifted, seat, chosen, target.device)
    description = describe(
        name,
        structure,
        checkpoint,
        dtype_name(chosen),
        max_model_len,
        renamed=renaming.destination,
        stored=lambda: tuple(sorted(rehearsal.cache_shapes().items())),
    )
    facts, tokenizer = replace(description.facts, cache_format=cache_format), files.tokenizer()
    return OpenedModel(
        folder=files.weights_folder or folder,
        facts=facts,
        config=config,
        dtype=chosen,
        target=target,
        lifted=lifted,
        seat=seat,
        parameters=renaming.map(description.parameters),
        groups=facts.groups,
        slots=slots_by_source(lifted, facts.groups),
        tokenizer=tokenizer,
        defaults=read_generation_defaults(folder, files.config.to_dict(), tokenizer.eos_token_ids),
        rows_held=rehearsal.rows_held(),
        rows_scored=rehearsal.rows_held(scored=True),
        read_again_beyond=_read_again_beyond(model),
        narrows_late=rehearsal.narrows_late,
        plain_row=rehearsal.plain_row and not rehearsal.narrows_late,
        made=files.made,
    )


def _read_again_beyond(model: PreTrainedModel) -> int | None:
    """The length beyond which a sequence's keys and values hold no more and it must be read anew, or None.

    Some models with two sets of rotary frequencies (longrope) say so in their `prepare_inputs_for_generation`: what
    was stored with the short set is dropped when the sequence outgrows it. Others of them keep it.
    """
    overrides = "prepare_inputs_for_generation" in vars(type(model))
    length = model.config.to_dict().get("original_max_position_embeddings")
    return int(length) if overrides and length and rope_type_of(model.config) == "longrope" else None


def rope_type_of(config: PreTrainedConfig) -> str:
    """The kind of rotary positions a config asks for."""
    rope = config.to_dict().get("rope_parameters") or {}
    return str(rope.get("rope_type", "default"))
