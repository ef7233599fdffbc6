"""Which checkpoint tensors make which parameter, by transformers' own table of renamings and merges.

The table (`transformers.conversion_mapping`) is followed, not copied: keys are renamed by its renamings, and a
parameter that transformers builds out of several tensors (experts merged from a list of modules, fused projections)
keeps the converter that builds it. Experts are cut out again, one slice an expert, so that one can be read alone.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import torch
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from windlass.errors import CheckpointError
from windlass.facts.checkpoint_facts import CheckpointFacts
from windlass.facts.parameter_source import ParameterSource
from windlass.facts.tensor_fact import TensorFact
from windlass.memory.checkpoint import torch_dtype
from windlass.model.lending import Slot
from windlass.model.text_config import TEXT_NAMES

_LAYER = re.compile(r"(.+?)\.(\d+)\.(.+)")


@dataclass
class _Gathered:
    """Tensors collected for one target while the checkpoint's names are walked."""

    converter: WeightConverter
    by_pattern: dict[str, list[tuple[str, TensorFact]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ParameterMap:
    """Sources by key, and the converters of those that are not plain views.

    `patterns` gives, for a converted key, the source pattern of each of its tensors in order.
    """

    sources: Mapping[str, ParameterSource]
    converters: Mapping[str, WeightConverter]
    patterns: Mapping[str, tuple[str, ...]]


def map_parameters(
    model: PreTrainedModel, facts: CheckpointFacts, experts: Mapping[str, int], slots: Mapping[str, Slot]
) -> ParameterMap:
    """Finds the tensors of every parameter and persistent buffer of a meta `model`, whose `slots` are by full name.

    `experts` names the parameters to cut by expert, with their number of experts. Raises CheckpointError for a
    parameter without tensors, for a shape that disagrees, and for layers and biases that the model does not have.
    """
    tied = tied_names(model)
    wanted = {name: slot.empty for name, slot in slots.items() if name not in tied}
    plain, gathered, strays = _match(model, facts, wanted)
    _refuse_strays(model, wanted, strays)
    sources: dict[str, ParameterSource] = {}
    converters: dict[str, WeightConverter] = {}
    patterns: dict[str, tuple[str, ...]] = {}
    for name, tensor in wanted.items():
        if name in plain:
            _check_shape(plain[name], tensor)
            found = [_plain_source(name, tensor, plain[name])]
            # An expert's matrices are cut out; its biases travel with the layer, alone they would cost a seek each.
            if name in experts and tensor.ndim > 2:
                found = _cut_plain(found[0], experts[name])
        elif name in gathered:
            _check_size(name, tensor, gathered[name])
            count = experts.get(name, 0)
            pieces = (
                _cut_gathered(name, tensor, gathered[name], count) if count else [_merged(name, tensor, gathered[name])]
            )
            found = [source for source, _ in pieces]
            converters |= {source.key: gathered[name].converter for source in found}
            patterns |= {source.key: names for source, names in pieces}
        else:
            raise CheckpointError(_missing(name, facts))
        sources |= {source.key: source for source in found}
    return ParameterMap(sources, converters, patterns)


def tied_names(model: PreTrainedModel) -> dict[str, str]:
    """Parameters that are another one under a second name: `{"lm_head.weight": "model.embed_tokens.weight"}`."""
    return dict(model.all_tied_weights_keys)


def _match(
    model: PreTrainedModel, facts: CheckpointFacts, wanted: Mapping[str, torch.Tensor]
) -> tuple[dict[str, TensorFact], dict[str, _Gathered], dict[str, TensorFact]]:
    """The tensors by the parameter they are, those that make one together, and those that are no part of the model."""
    transforms = get_model_conversion_mapping(model)
    renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
    converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
    plain: dict[str, TensorFact] = {}
    gathered: dict[str, _Gathered] = {}
    strays: dict[str, TensorFact] = {}
    for key in sorted(facts.tensors, key=_natural):
        for candidate in _text_part_names(key):
            renamed, pattern = rename_source_key(
                candidate, renamings, converters, model.base_model_prefix, dict(wanted)
            )
            if renamed in wanted:
                break
        if renamed not in wanted:
            strays[renamed] = facts.tensors[key]  # a vision tower, a stored rotary table: not of this model
        elif pattern is None:
            plain[renamed] = facts.tensors[key]
        else:
            converter = next(c for c in converters if pattern in c.source_patterns)
            entry = gathered.setdefault(renamed, _Gathered(converter))
            entry.by_pattern.setdefault(pattern, []).append((key, facts.tensors[key]))
    return plain, gathered, strays


def _refuse_strays(
    model: PreTrainedModel, wanted: Mapping[str, torch.Tensor], strays: Mapping[str, TensorFact]
) -> None:
    """Raises CheckpointError where a config leaves out layers or biases that were trained: the answers would be wrong.

    Other tensors without a parameter change nothing. Layers that only guess further tokens are announced in the config.
    """
    ignored = re.compile("|".join(model._keys_to_ignore_on_load_unexpected or ["(?!)"]))
    layers = {split[0] for name in wanted if (split := _split_at_layer(name))}
    insides = {split[1] for name in wanted if (split := _split_at_layer(name))}
    guessing = model.config.to_dict().get("num_nextn_predict_layers")
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
    return match and (f"{match[1]}.{match[2]}", f"{match[1]} {match[3]}")


def _text_part_names(key: str) -> tuple[str, ...]:
    """A key as it stands, then as the text model alone would have it: composite checkpoints nest their text part."""
    for pattern, name in TEXT_NAMES:
        if re.match(pattern, key):
            return key, re.sub(pattern, name, key)
    return (key,)


def _plain_source(name: str, tensor: torch.Tensor, fact: TensorFact) -> ParameterSource:
    direct = torch_dtype(fact) == tensor.dtype and fact.offset % tensor.element_size() == 0
    return ParameterSource(name, (fact,), tensor.numel() * tensor.element_size(), direct)


def _cut_plain(source: ParameterSource, experts: int) -> list[ParameterSource]:
    """One source an expert out of a tensor whose first dimension counts the experts."""
    (whole,) = source.tensors
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
        cuts.append(replace(source, tensors=(fact,), nbytes=source.nbytes // experts, expert=expert))
    return cuts


def _cut_gathered(
    name: str, tensor: torch.Tensor, entry: _Gathered, experts: int
) -> list[tuple[ParameterSource, tuple[str, ...]]]:
    """One source an expert out of tensors that each belong to one expert (they come in natural order of names)."""
    for pattern, tensors in entry.by_pattern.items():
        if len(tensors) != experts:
            raise CheckpointError(
                f"{name} needs {experts} tensors like {pattern!r}, the checkpoint holds {len(tensors)}; "
                "download the checkpoint again or check config.json"
            )
    nbytes = prod(tensor.shape[1:]) * tensor.element_size()
    patterns = tuple(entry.by_pattern)
    cuts = []
    for expert in range(experts):
        facts = tuple(entry.by_pattern[pattern][expert][1] for pattern in patterns)
        direct = len(facts) == 1 and facts[0].shape == tuple(tensor.shape[1:]) and _same_dtype(facts[0], tensor)
        cuts.append((ParameterSource(name, facts, nbytes, direct, expert), patterns))
    return cuts


def _merged(name: str, tensor: torch.Tensor, entry: _Gathered) -> tuple[ParameterSource, tuple[str, ...]]:
    facts = [(pattern, fact) for pattern, tensors in entry.by_pattern.items() for _, fact in tensors]
    source = ParameterSource(name, tuple(f for _, f in facts), tensor.numel() * tensor.element_size(), direct=False)
    return source, tuple(pattern for pattern, _ in facts)


def _same_dtype(fact: TensorFact, tensor: torch.Tensor) -> bool:
    return torch_dtype(fact) == tensor.dtype and fact.offset % tensor.element_size() == 0


def _check_shape(fact: TensorFact, parameter: torch.Tensor) -> None:
    if parameter.is_floating_point() and not torch_dtype(fact).is_floating_point:
        raise CheckpointError(
            f"{fact.file}: tensor {fact.name} is stored as {fact.dtype}, the model has floating-point numbers there; "
            "these weights are quantised in a way config.json does not tell: choose the float16 or bfloat16 checkpoint"
        )
    expected = tuple(parameter.shape)
    if fact.shape != expected:
        raise CheckpointError(
            f"{fact.file}: tensor {fact.name} has shape {list(fact.shape)}, config.json asks for {list(expected)}; "
            "the weights and the config are not of the same model"
        )


def _check_size(name: str, parameter: torch.Tensor, entry: _Gathered) -> None:
    """Conversions move numbers about but neither add nor drop any."""
    facts = [fact for tensors in entry.by_pattern.values() for _, fact in tensors]
    found = sum(prod(fact.shape) for fact in facts)
    if len(entry.converter.target_patterns) == 1 and found != parameter.numel():
        raise CheckpointError(
            f"{facts[0].file}: {len(facts)} tensors like {facts[0].name} with shape {list(facts[0].shape)} hold "
            f"{found:,} numbers, {name} has {parameter.numel():,} (shape {list(parameter.shape)}) by config.json; the "
            "checkpoint is incomplete, or the weights and the config are not of the same model"
        )


def _missing(name: str, facts: CheckpointFacts) -> str:
    leaf = name.rsplit(".", 2)[-2:]
    near = [key for key in facts.tensors if key.endswith(".".join(leaf))][:3]
    hint = f"; the nearest names are {', '.join(near)}" if near else ""
    return (
        f"{facts.folder}: no tensor for parameter {name} among {len(facts.tensors)} in the checkpoint{hint}; "
        "the checkpoint is incomplete or of another architecture"
    )


def _natural(key: str) -> Sequence[tuple[int, int | str]]:
    """Sorts `experts.10` after `experts.9`."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in key.split(".")]
