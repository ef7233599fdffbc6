"""Which bytes of which checkpoint file make which parameter.

Tensors are renamed as transformers would; a parameter that transformers builds out of several (experts merged from a
list of modules, fused projections) keeps the pattern of the converter that builds it. Experts are cut out again, one
slice an expert, so that one can be read alone.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from windlass.errors import CheckpointError, UnsupportedModel
from windlass.facts.checkpoint_facts import CheckpointFacts
from windlass.facts.model_structure import ModelStructure, ParameterShape
from windlass.facts.number_types import ITEM_BYTES, TORCH_NAMES, is_floating
from windlass.facts.packed_tensor import PackedTensor
from windlass.facts.parameter_source import ParameterSource
from windlass.facts.tensor_fact import TensorFact
from windlass.facts.tensor_name import Destination, natural

_LAYER = re.compile(r"(.+?)\.(\d+)\.(.+)")


Stored = TensorFact | PackedTensor


@dataclass(frozen=True, slots=True)
class ParameterSources:
    """Sources by key, in the order of the model. `patterns` gives, for a source that transformers' converter builds or
    that is cut from what it builds, the converter's source pattern of each of its tensors in order."""

    sources: Mapping[str, ParameterSource]
    patterns: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Gathered:
    """Tensors for one parameter, collected while the checkpoint's names are walked."""

    parts: int
    by_pattern: dict[str, list[Stored]] = field(default_factory=dict)

    @property
    def facts(self) -> list[Stored]:
        return [fact for facts in self.by_pattern.values() for fact in facts]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One parameter as it is computed with."""

    shape: ParameterShape
    dtype: str

    @property
    def nbytes(self) -> int:
        return prod(self.shape.shape) * ITEM_BYTES[self.dtype]

    def fits(self, fact: Stored) -> bool:
        """Whether the bytes of `fact` may be used as they lie: packed ones where a product takes them so."""
        if isinstance(fact, PackedTensor):
            return len(fact.shape) > 1 and not fact.shift and fact.packing.bits < 8 * ITEM_BYTES[self.dtype]
        return TORCH_NAMES.get(fact.dtype) == self.dtype and fact.offset % ITEM_BYTES[self.dtype] == 0


def parameter_sources(
    structure: ModelStructure, checkpoint: CheckpointFacts, dtype: str, renamed: Callable[[str], Destination]
) -> ParameterSources:
    """Finds the tensors of every parameter and persistent buffer of a model that computes in `dtype`.

    `renamed` tells where a tensor of the checkpoint goes. Raises CheckpointError for a parameter without tensors, for a
    shape that disagrees, and for layers and biases that the model does not have.
    """
    wanted = {name: _Wanted(shape, shape.computed_in(dtype)) for name, shape in structure.every_parameter().items()}
    plain, gathered = _match(structure, checkpoint, wanted, renamed)
    sources: dict[str, ParameterSource] = {}
    patterns: dict[str, tuple[str, ...]] = {}
    for name, parameter in wanted.items():
        if name in plain:
            found = _plain_sources(parameter, plain[name])
        elif name in gathered:
            pieces = _gathered_sources(parameter, gathered[name])
            found = [source for source, _ in pieces]
            patterns |= {source.key: names for source, names in pieces}
        else:
            raise CheckpointError(_missing(name, checkpoint))
        sources |= {source.key: source for source in found}
    for shape in structure.embedding:
        _check_rows(sources[structure.tied.get(shape.name, shape.name)])
    return ParameterSources(sources, patterns)


def _match(
    structure: ModelStructure,
    checkpoint: CheckpointFacts,
    wanted: Mapping[str, _Wanted],
    renamed: Callable[[str], Destination],
) -> tuple[dict[str, Stored], dict[str, _Gathered]]:
    """The tensors by the parameter they are, and those that make one together. What is no part of the model is looked
    at: a vision tower or a stored rotary table may be, a layer may not."""
    plain: dict[str, Stored] = {}
    gathered: dict[str, _Gathered] = {}
    strays: dict[str, Stored] = {}
    for key in sorted(checkpoint.tensors, key=natural):
        to, fact = renamed(key), checkpoint.tensors[key]
        if to.parameter not in wanted:
            strays[to.parameter] = fact
        elif to.pattern is None:
            plain[to.parameter] = fact
        else:
            entry = gathered.setdefault(to.parameter, _Gathered(to.parts))
            entry.by_pattern.setdefault(to.pattern, []).append(fact)
    strays = {name: fact for name, fact in strays.items() if not _is_empty_bias(name, plain)}
    _refuse_strays(structure, wanted, strays)
    return plain, gathered


def _is_empty_bias(name: str, plain: Mapping[str, Stored]) -> bool:
    """Whether a bias stands beside a weight that AutoGPTQ packed: it wrote zeros for layers that have none."""
    beside = plain.get(f"{name.removesuffix('bias')}weight") if name.endswith(".bias") else None
    return isinstance(beside, PackedTensor) and beside.packing.name == "gptq"


def _refuse_strays(structure: ModelStructure, wanted: Mapping[str, _Wanted], strays: Mapping[str, Stored]) -> None:
    """Raises CheckpointError where a config leaves out layers or biases that were trained: the answers would be wrong.

    Other tensors without a parameter change nothing. Layers that only guess further tokens are announced in the config.
    """
    ignored = re.compile(structure.ignored or "(?!)")
    layers = {split[0] for name in wanted if (split := _split_at_layer(name))}
    insides = {split[1] for name in wanted if (split := _split_at_layer(name))}
    guessing = structure.config.get("num_nextn_predict_layers")
    for name, fact in strays.items():
        layer, inside = _split_at_layer(name) or ("", "")
        is_layer = inside in insides and layer not in layers and not guessing
        is_bias = name.endswith(".bias") and f"{name.removesuffix('bias')}weight" in wanted
        if (is_layer or is_bias) and not ignored.search(name):
            raise CheckpointError(
                f"{fact.file}: tensor {fact.name} with shape {list(fact.shape)} has no place in the model that "
                f"config.json describes ({len(layers)} layers); the weights and the config are not of the same model"
            )


def _split_at_layer(name: str) -> tuple[str, str] | None:
    """`model.layers.3.mlp.up_proj.weight` -> (`model.layers.3`, `model.layers mlp.up_proj.weight`)."""
    match = _LAYER.fullmatch(name)
    return (f"{match[1]}.{match[2]}", f"{match[1]} {match[3]}") if match else None


def _source(
    parameter: _Wanted, facts: Sequence[Stored], nbytes: int, direct: bool, expert: int | None = None
) -> ParameterSource:
    """The source of `facts`: `nbytes` in the compute dtype, unless it is lent packed."""
    packed = tuple(fact for fact in facts if isinstance(fact, PackedTensor))
    if not packed:
        plain = tuple(fact for fact in facts if isinstance(fact, TensorFact))
        return ParameterSource(parameter.shape.name, plain, nbytes, direct, expert)
    if len(packed) < len(facts):
        raise UnsupportedModel(
            f"{packed[0].file}: {parameter.shape.name} is made of {len(facts)} tensors of which {len(packed)} are "
            f"packed ({packed[0].dtype}) and the others are not; choose a checkpoint that packs all of them or none"
        )
    tensors = tuple(fact for each in packed for fact in each.facts)
    nbytes = sum(each.nbytes for each in packed) if direct else nbytes
    return ParameterSource(parameter.shape.name, tensors, nbytes, direct, expert, packed=packed)


def _plain_sources(parameter: _Wanted, fact: Stored) -> list[ParameterSource]:
    _check_shape(parameter, fact)
    # An expert's matrices are cut out; its biases travel with the layer, alone they would cost a seek each.
    if parameter.shape.experts and len(parameter.shape.shape) > 2:
        return _cut_plain(parameter, fact)
    return [_source(parameter, [fact], parameter.nbytes, parameter.fits(fact))]


def _cut_plain(parameter: _Wanted, whole: Stored) -> list[ParameterSource]:
    """One source an expert out of a tensor whose first dimension counts the experts."""
    experts, direct = parameter.shape.experts, parameter.fits(whole)
    nbytes = parameter.nbytes // experts
    if isinstance(whole, PackedTensor):
        return [_source(parameter, [whole.expert(expert)], nbytes, direct, expert) for expert in range(experts)]
    step = whole.nbytes // experts
    cuts = []
    for expert in range(experts):
        fact = replace(
            whole,
            name=f"{whole.name}#{expert}",
            shape=whole.shape[1:],
            offset=whole.offset + expert * step,
            nbytes=step,
        )
        cuts.append(_source(parameter, [fact], nbytes, direct, expert))
    return cuts


def _gathered_sources(parameter: _Wanted, entry: _Gathered) -> list[tuple[ParameterSource, tuple[str, ...]]]:
    _check_size(parameter, entry)
    if parameter.shape.experts:
        return _cut_gathered(parameter, entry)
    facts = [(pattern, fact) for pattern, tensors in entry.by_pattern.items() for fact in tensors]
    stored, inner = [fact for _, fact in facts], parameter.shape.shape
    source = _source(parameter, stored, parameter.nbytes, _stacks(parameter, stored, inner))
    return [(source, tuple(pattern for pattern, _ in facts))]


def _stacks(parameter: _Wanted, facts: Sequence[Stored], shape: tuple[int, ...]) -> bool:
    """Whether packed matrices, one above the other, are the parameter (or an expert's share of it) of `shape`."""
    if not all(isinstance(fact, PackedTensor) and parameter.fits(fact) for fact in facts):
        return False
    columns = {fact.shape[1:] for fact in facts}
    return columns == {shape[1:]} and sum(fact.shape[0] for fact in facts) == shape[0]


def _cut_gathered(parameter: _Wanted, entry: _Gathered) -> list[tuple[ParameterSource, tuple[str, ...]]]:
    """One source an expert out of tensors that each belong to one expert (they come in natural order of names)."""
    name, experts = parameter.shape.name, parameter.shape.experts
    for pattern, tensors in entry.by_pattern.items():
        if len(tensors) != experts:
            raise CheckpointError(
                f"{name} needs {experts} tensors like {pattern!r}, the checkpoint holds {len(tensors)}; "
                "download the checkpoint again or check config.json"
            )
    patterns, inner = tuple(entry.by_pattern), parameter.shape.shape[1:]
    cuts = []
    for expert in range(experts):
        facts = tuple(entry.by_pattern[pattern][expert] for pattern in patterns)
        alone = len(facts) == 1 and facts[0].shape == inner and parameter.fits(facts[0])
        direct = alone or _stacks(parameter, facts, inner)
        cuts.append((_source(parameter, facts, parameter.nbytes // experts, direct, expert), patterns))
    return cuts


def _check_shape(parameter: _Wanted, fact: Stored) -> None:
    if isinstance(fact, TensorFact) and "float" in parameter.dtype and not is_floating(fact.dtype):
        raise CheckpointError(
            f"{fact.file}: tensor {fact.name} is stored as {fact.dtype}, the model has floating-point numbers there; "
            "these weights are quantised in a way config.json does not tell: choose the float16 or bfloat16 checkpoint"
        )
    expected = parameter.shape.shape
    found = fact.parameter_shape if isinstance(fact, PackedTensor) else fact.shape
    if found != expected:
        raise CheckpointError(
            f"{fact.file}: tensor {fact.name} has shape {list(found)}, config.json asks for {list(expected)}; "
            "the weights and the config are not of the same model"
        )


def _check_rows(embedding: ParameterSource) -> None:
    """Single rows of an embedding are read from disk."""
    for packed in embedding.packed:
        if len(packed.parts) > 1:
            raise UnsupportedModel(
                f"{packed.file}: the embedding {embedding.parameter} is packed as {packed.dtype} in several tensors, "
                "of which single rows cannot be read; choose a checkpoint that leaves the embedding as it is"
            )


def _check_size(parameter: _Wanted, entry: _Gathered) -> None:
    """Conversions move numbers about but neither add nor drop any."""
    facts, shape = entry.facts, parameter.shape.shape
    found = sum(prod(fact.shape) for fact in facts)
    if entry.parts == 1 and found != prod(shape):
        raise CheckpointError(
            f"{facts[0].file}: {len(facts)} tensors like {facts[0].name} with shape {list(facts[0].shape)} hold "
            f"{found:,} numbers, {parameter.shape.name} has {prod(shape):,} (shape {list(shape)}) by config.json; the "
            "checkpoint is incomplete, or the weights and the config are not of the same model"
        )


def _missing(name: str, checkpoint: CheckpointFacts) -> str:
    leaf = name.rsplit(".", 2)[-2:]
    near = [key for key in checkpoint.tensors if key.endswith(".".join(leaf))][:3]
    hint = f"; the nearest names are {', '.join(near)}" if near else ""
    return (
        f"{checkpoint.folder}: no tensor for parameter {name} among {len(checkpoint.tensors)} in the checkpoint{hint}; "
        "the checkpoint is incomplete or of another architecture"
    )
