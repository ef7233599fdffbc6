"""Names of checkpoint tensors with their numbers taken out, and where transformers would put such a tensor.

A checkpoint of 90,000 tensors has some thirty names that differ in more than the number of a layer or an expert. What
becomes of one of them becomes of all: transformers is asked about the thirty.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
_HOLE = re.compile(r"#(\d+)")


@dataclass(frozen=True, slots=True)
class Destination:
    """The parameter that a checkpoint tensor makes, alone or with others.

    `pattern` is the source pattern of transformers' converter where one is at work, else None; `parts` is how many
    parameters that converter makes.
    """

    parameter: str
    pattern: str | None = None
    parts: int = 1


@dataclass(frozen=True, slots=True)
class NameRule:
    """The destination of all tensors of one name: in `parameter`, `#1` stands for the second number of the name."""

    parameter: str
    pattern: str | None = None
    parts: int = 1

    def destination(self, numbers: Sequence[str]) -> Destination:
        """That of the tensor with these numbers in its name."""
        parameter = _HOLE.sub(lambda hole: numbers[int(hole[1])], self.parameter)
        return Destination(parameter, self.pattern, self.parts)

    def as_list(self) -> list[Any]:
        """For JSON; `NameRule(*rule.as_list())` is the rule."""
        return [self.parameter, self.pattern, self.parts]


def without_numbers(name: str) -> str:
    """`model.layers.3.mlp.experts.7.w1.weight` -> `model.layers.#.mlp.experts.#.w1.weight`."""
    return _NUMBER.sub("#", name)


def numbers_in(name: str) -> list[str]:
    """`model.layers.3.mlp.experts.7.w1.weight` -> `["3", "7"]`."""
    return _NUMBER.findall(name)


def samples(names: Iterable[str]) -> dict[str, list[str]]:
    """By name without numbers: the first and the last tensor of that name, and one whose numbers all differ.

    The last layers may be no part of the model, and equal numbers would not tell which of them went where.
    """
    families: dict[str, list[str]] = defaultdict(list)
    for name in names:
        families[without_numbers(name)].append(name)
    chosen = {}
    for family, members in families.items():
        members.sort(key=natural)
        different = next((name for name in members if _all_differ(numbers_in(name))), members[0])
        chosen[family] = list(dict.fromkeys([different, members[0], members[-1]]))
    return chosen


def rule_for(name: str, destination: Destination) -> NameRule:
    """The rule behind one example: a number of the destination is the first such number of the name not yet used."""
    left: list[str | None] = list(numbers_in(name))

    def hole(match: "re.Match[str]") -> str:
        if match[0] not in left:
            return match[0]
        place = left.index(match[0])
        left[place] = None
        return f"#{place}"

    return NameRule(_NUMBER.sub(hole, destination.parameter), destination.pattern, destination.parts)


def renamed_by(rules: Mapping[str, NameRule], name: str) -> Destination:
    """Where a tensor goes by the rules; a name that has none goes nowhere and keeps itself."""
    rule = rules.get(without_numbers(name))
    return rule.destination(numbers_in(name)) if rule else Destination(name)


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts `experts.10` after `experts.9`."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in name.split(".")]


def _all_differ(numbers: Sequence[str]) -> bool:
    return len(set(numbers)) == len(numbers)
