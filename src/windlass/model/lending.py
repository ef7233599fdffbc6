"""Lends weights to modules by setting their parameter slots, and takes them back.

A slot is an entry of a module's parameter table; setting it costs under a microsecond, where
`torch.func.functional_call` costs 86 and cannot be entered twice.
"""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Slot:
    """One entry of a module's table of parameters or buffers; `empty` is what stands there unlent (on meta)."""

    table: dict[str, torch.Tensor | None]
    attribute: str
    empty: torch.Tensor

    def lend(self, weight: torch.Tensor) -> None:
        """Puts a weight in the slot."""
        self.table[self.attribute] = weight

    def take_back(self) -> None:
        """Empties the slot."""
        self.table[self.attribute] = self.empty


def slots_of(root: nn.Module, prefix: str = "") -> dict[str, Slot]:
    """Every parameter and persistent buffer under `root` by full name; a shared one appears under each of its names."""
    slots = {}
    for module_name, module in root.named_modules(remove_duplicate=False):
        path = ".".join(part for part in (prefix, module_name) if part)
        buffers = {n: b for n, b in module._buffers.items() if n not in module._non_persistent_buffers_set}
        for table, entries in ((module._parameters, module._parameters), (module._buffers, buffers)):
            for attribute, tensor in entries.items():
                if tensor is not None:
                    slots[f"{path}.{attribute}" if path else attribute] = Slot(table, attribute, tensor)
    return slots
