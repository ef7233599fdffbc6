"""Which checkpoint tensors make which parameter, by transformers' own table of renamings and merges.

The table (`transformers.conversion_mapping`) is followed, not copied: keys are renamed by its renamings, and a
parameter that transformers builds out of several tensors (experts merged from a list of modules, fused projections)
keeps the converter that builds it. Experts are cut out again, one slice an expert, so that one can be read alone.
"""

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
    parameter without tensors and for a shape that disagrees.
    """
    tied = tied_names(model)
    wanted = {name: slot.empty for name, slot in slots.items() if name not in tied}
    plain, gathered = _match(model, facts, wanted)
    sources: dict[str, ParameterSource] = {}
    converters: dict[str, WeightConverter] = {}
    patterns: dict[str, tuple[str, ...]] = {}
    for name, tensor in wanted.items():
        if name in plain:
            _check_shape(plain[name], tuple(tensor.shape))
            found = [_plain_source(name, tensor, plain[name])]
            # An expert's matrices are cut out; its biases travel with the layer, alone they would cost a seek each.
            if name in experts and tensor.ndim > 2:
                found = _cut_plain(found[0], experts[name])
        elif name in gathered:
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
) -> tuple[dict[str, TensorFact], dict[str, _Gathered]]:
    transforms = get_model_conversion_mapping(model)
    renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
    converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
    plain: dict[str, TensorFact] = {}
    gathered: dict[str, _Gathered] = {}
    for key in sorted(facts.tensors, key=_natural):
        for candidate in _text_part_names(key):
            renamed, pattern = rename_source_key(
                candidate, renamings, converters, model.base_model_prefix, dict(wanted)
            )
            if renamed in wanted:
                break
        if renamed not in wanted:
            continue  # a vision tower, a stored rotary table: not of this model
        if pattern is None:
            plain[renamed] = facts.tensors[key]
        else:
            converter = next(c for c in converters if pattern in c.source_patterns)
            entry = gathered.setdefault(renamed, _Gathered(converter))
            entry.by_pattern.setdefault(pattern, []).append((key, facts.tensors[key]))
    return plain, gathered


def _text_part_names(key: str) -> tuple[str, ...]:
    """A key as it stands, then as the text model alone would have it: composite checkpoints nest their text part."""
    names = [key]
    for nested in ("language_model.", "text_model."):
        if nested in key:
            names.append(key.replace(nested, "", 1))
            names.append(key.split(nested, 1)[1])
    return tuple(names)


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


def _check_shape(fact: TensorFact, expected: tuple[int, ...]) -> None:
    if fact.shape != expected:
        raise CheckpointError(
            f"{fact.file}: tensor {fact.name} has shape {list(fact.shape)}, config.json asks for {list(expected)}; "
            "the weights and the config are not of the same model"
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
