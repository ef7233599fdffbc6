"""The parameters of a model as transformers would build it, told apart by what travels together. No weights, no torch.

What only transformers knows (defaults of a config, names and shapes of parameters, which checkpoint tensor makes which
of them) is asked once and kept in this form.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from windlass.facts.tensor_name import NameRule


@dataclass(frozen=True, slots=True)
class ParameterShape:
    """One parameter or persistent buffer by transformers' name.

    `dtype` is set where it does not follow the model's; `wide` names those dtypes of the model in which it stays
    float32. `experts` is their number where the first dimension counts them, else 0.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str | None = None
    wide: tuple[str, ...] = ()
    experts: int = 0

    def computed_in(self, dtype: str) -> str:
        """Its own dtype in a model that computes in `dtype`."""
        return self.dtype or ("float32" if dtype in self.wide else dtype)

    def as_list(self) -> list[Any]:
        """For JSON."""
        return [self.name, list(self.shape), self.dtype, list(self.wide), self.experts]


@dataclass(frozen=True, slots=True)
class ModelStructure:
    """`config` is the text model's config with every default. Parameters are in the order of the model.

    tied        a second name of a parameter -> its first
    plain_head  whether the head is a matrix without a bias, which may be multiplied by parts
    latent      whether keys and values are stored compressed (MLA) and rebuilt by the module
    ignored     pattern of tensor names that transformers does not miss a place for
    rules       by name without numbers: where a tensor of the checkpoint goes
    """

    config: Mapping[str, Any]
    embedding: tuple[ParameterShape, ...]
    layers: tuple[tuple[ParameterShape, ...], ...]
    outer: tuple[ParameterShape, ...]
    head: tuple[ParameterShape, ...]
    tied: Mapping[str, str]
    plain_head: bool
    latent: bool
    ignored: str
    layers_name: str
    rules: Mapping[str, NameRule]

    def every_parameter(self) -> dict[str, ParameterShape]:
        """By name, in the order of the model; tied ones once."""
        parts = (self.embedding, *self.layers, self.outer, self.head)
        return {shape.name: shape for part in parts for shape in part if shape.name not in self.tied}

    def with_rules(self, rules: Mapping[str, NameRule]) -> "ModelStructure":
        """The same, for a checkpoint whose tensors go where `rules` say."""
        return replace(self, rules=rules)

    def as_json(self) -> dict[str, Any]:
        """Layers that are alike stand there once, with names below the layer."""
        kinds: dict[tuple[ParameterShape, ...], int] = {}
        numbers = [
            kinds.setdefault(_renamed(layer, f"{self.layers_name}.{index}.", ""), len(kinds))
            for index, layer in enumerate(self.layers)
        ]
        return {
            "config": self.config,
            "embedding": _lists(self.embedding),
            "layers_name": self.layers_name,
            "kinds": [_lists(kind) for kind in kinds],
            "layers": numbers,
            "outer": _lists(self.outer),
            "head": _lists(self.head),
            "tied": dict(self.tied),
            "plain_head": self.plain_head,
            "latent": self.latent,
            "ignored": self.ignored,
            "rules": {name: rule.as_list() for name, rule in self.rules.items()},
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> "ModelStructure":
        """What `as_json` gave. Raises KeyError, TypeError or ValueError for anything else."""
        prefix = written["layers_name"]
        kinds = [_shapes(kind) for kind in written["kinds"]]
        return cls(
            config=written["config"],
            embedding=_shapes(written["embedding"]),
            layers=tuple(_renamed(kinds[k], "", f"{prefix}.{i}.") for i, k in enumerate(written["layers"])),
            outer=_shapes(written["outer"]),
            head=_shapes(written["head"]),
            tied=written["tied"],
            plain_head=written["plain_head"],
            latent=written["latent"],
            ignored=written["ignored"],
            layers_name=prefix,
            rules={name: NameRule(*rule) for name, rule in written["rules"].items()},
        )


def _lists(shapes: Iterable[ParameterShape]) -> list[list[Any]]:
    return [shape.as_list() for shape in shapes]


def _shapes(lists: Iterable[Any]) -> tuple[ParameterShape, ...]:
    return tuple(
        ParameterShape(name, tuple(shape), dtype, tuple(wide), experts) for name, shape, dtype, wide, experts in lists
    )


def _renamed(shapes: Iterable[ParameterShape], before: str, after: str) -> tuple[ParameterShape, ...]:
    return tuple(replace(shape, name=after + shape.name.removeprefix(before)) for shape in shapes)
