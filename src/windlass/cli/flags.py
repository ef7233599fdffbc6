"""Flags as fields of a dataclass: written once with their default and help, taken by every verb that names them.

    def run(model: ModelName, budget: BudgetFlags) -> None: ...
    app.command()(with_flags(run))          # windlass run MODEL --host-memory 4GiB ...

A field reads `name: Annotated[type, typer.Option(help=...)] = default`.
"""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from inspect import Parameter, signature
from typing import Any


def with_flags(verb: Callable[..., None]) -> Callable[..., None]:
    """`verb` with every parameter that is a dataclass unfolded into one keyword parameter a field."""
    given = signature(verb)
    kinds = {name: part.annotation for name, part in given.parameters.items()}
    groups = {name: kind for name, kind in kinds.items() if isinstance(kind, type) and is_dataclass(kind)}

    def unfolded(**values: Any) -> None:
        folded = {name: group(**{f.name: values.pop(f.name) for f in fields(group)}) for name, group in groups.items()}
        verb(**values, **folded)

    own = [part for name, part in given.parameters.items() if name not in groups]
    parameters = [*own, *(flag for group in groups.values() for flag in _parameters(group))]
    parameters = [part.replace(kind=Parameter.KEYWORD_ONLY) for part in parameters]
    unfolded.__name__, unfolded.__doc__ = verb.__name__, verb.__doc__
    unfolded.__annotations__ = {part.name: part.annotation for part in parameters}
    unfolded.__dict__["__signature__"] = given.replace(parameters=parameters)
    return unfolded


def _parameters(group: Any) -> list[Parameter]:
    """The fields of a dataclass as parameters, defaults included."""
    return [Parameter(f.name, Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type) for f in fields(group)]
