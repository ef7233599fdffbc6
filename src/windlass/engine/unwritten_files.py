"""Files of weights that need not be there: made up, or made of others while they are loaded."""

from collections.abc import Sequence
from typing import Protocol

from windlass.facts.plan import Plan
from windlass.facts.weight_group import WeightGroup
from windlass.memory.disk import Made


class UnwrittenFiles(Made, Protocol):
    """What a model's loader asks of them; a plan decides which have to be written after all."""

    def lines(self, groups: Sequence[WeightGroup], plan: Plan) -> list[str]:
        """What is made and what is written, for people."""

    def check(self, groups: Sequence[WeightGroup], plan: Plan) -> None:
        """Whether what `plan` leaves on disk may be written. Raises UsageError and StorageError."""

    def store(self, groups: Sequence[WeightGroup], plan: Plan) -> None:
        """Writes what `plan` leaves on disk, before anything is loaded. Raises UsageError and StorageError."""

    def remove(self) -> None:
        """Removes what was written for this model alone. May be called twice."""


def files_on_disk(groups: Sequence[WeightGroup], plan: Plan) -> set[str]:
    """Files of the tensors that rest in no memory; one that holds experts goes whole, if any of them does."""
    kept = plan.resident | plan.host_resident
    return {
        fact.file for group in groups for source in group.sources if source.key not in kept for fact in source.tensors
    }
