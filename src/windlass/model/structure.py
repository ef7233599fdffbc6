"""What only transformers knows of a model, put into a form that needs neither transformers nor torch to be read."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from windlass.errors import UnsupportedModel
from windlass.facts.choices import DTYPES
from windlass.facts.model_structure import ModelStructure, ParameterShape
from windlass.facts.tensor_name import Destination, NameRule, numbers_in, rule_for
from windlass.model.dtypes import COMPUTE_DTYPES, dtype_name
from windlass.model.lending import slots_of
from windlass.model.parameter_map import Renaming, tied_names
from windlass.model.zoo import LiftedModel, Part, kept_in_float32


def structure_of(lifted: LiftedModel, dtype: torch.dtype) -> ModelStructure:
    """The structure of a model that was built in `dtype`, without rules for the names of a checkpoint."""
    model = lifted.model
    shapes = _ShapesOf(lifted, dtype)
    return ModelStructure(
        config=complete_values(model.config),
        embedding=shapes.of(lifted.embedding),
        layers=tuple(shapes.of(part) for part in lifted.layers),
        outer=tuple(shape for part in lifted.outer for shape in shapes.of(part)),
        head=shapes.of(lifted.head),
        tied=tied_names(model),
        plain_head=type(lifted.head.module) is nn.Linear and lifted.head.module.bias is None,
        latent=any(_rebuilds_keys(module) for part in lifted.layers for module in part.module.modules()),
        ignored="|".join(model._keys_to_ignore_on_load_unexpected or []),
        layers_name=lifted.layers[0].name.rpartition(".")[0],
        rules={},
    )


def complete_values(config: PreTrainedConfig) -> dict[str, Any]:
    """Every value of a config with its default, under transformers' common names too (`n_embd` is `hidden_size`)."""
    values = config.to_dict()
    common = {name: values[own] for name, own in config.attribute_map.items() if own in values}
    return common | values


def rules_of(
    renaming: Renaming, wanted: Mapping[str, Any], samples: Mapping[str, Sequence[str]]
) -> dict[str, NameRule]:
    """Where the tensors of each name without numbers go, from a few of each. `wanted` are the model's parameters.

    Raises UnsupportedModel where tensors of one name do not go by one rule.
    """
    rules = {}
    for family, names in samples.items():
        found = {name: renaming.destination(name) for name in names}
        inside = [name for name in names if found[name].parameter in wanted] or names[:1]
        rule = rule_for(inside[0], found[inside[0]])
        _check_rule(rule, inside, found)
        rules[family] = rule
    return rules


def _check_rule(rule: NameRule, names: Iterable[str], found: Mapping[str, Destination]) -> None:
    for name in names:
        if rule.destination(numbers_in(name)) != found[name]:
            raise UnsupportedModel(
                f"the tensor {name} becomes {found[name].parameter} by no rule that holds for its neighbours, so the "
                "model can be run but not described; run it without `plan`"
            )


class _ShapesOf:
    """The shapes of a model's parameters by part."""

    def __init__(self, lifted: LiftedModel, dtype: torch.dtype) -> None:
        self._built_in = dtype
        self._wide: dict[str, Callable[[str], bool]] = {
            name: kept_in_float32(lifted.model, COMPUTE_DTYPES[name]) for name in DTYPES if name != "float32"
        }
        self._experts = expert_parameters(lifted)

    def of(self, part: Part) -> tuple[ParameterShape, ...]:
        return tuple(self._shape(name, slot.empty) for name, slot in slots_of(part.module, part.name).items())

    def _shape(self, name: str, tensor: torch.Tensor) -> ParameterShape:
        wide = tuple(dtype for dtype, keeps in self._wide.items() if keeps(name))
        own = None if wide or tensor.dtype == self._built_in else dtype_name(tensor.dtype)
        return ParameterShape(name, tuple(tensor.shape), own, wide, self._experts.get(name, 0))


def expert_parameters(lifted: LiftedModel) -> dict[str, int]:
    """Parameters whose first dimension counts experts, with that count."""
    found = {}
    for layer, (name, count) in lifted.experts.items():
        part = lifted.layers[layer]
        path = f"{part.name}.{name}"
        for attribute, parameter in part.module.get_submodule(name)._parameters.items():
            if parameter is not None and parameter.shape[0] == count:
                found[f"{path}.{attribute}"] = count
    return found


def _rebuilds_keys(module: nn.Module) -> bool:
    return getattr(type(module), "expand_kv", None) is not None
