"""Who goes first: for whom places and pages are kept, who is set aside for whom, and whose tokens a pass takes first.

A sequence that is set aside gives back its pages and keeps its tokens. What it had stored stays in the prefix tree
while there is room, so going on costs little; where there is none, its tokens are read anew, many in a pass.
"""

from collections.abc import Iterable, Sequence

from windlass.engine.places import Places
from windlass.engine.sequence import Sequence as Answer
from windlass.facts.plan import Plan

URGENT = 0
"""The priority of whoever waits for an answer; what has a greater one can wait."""


class Precedence:
    """In one block. What can wait leaves one place, and pages for `reserve` tokens, to what cannot; 0 keeps nothing.

    Alone in the block anything may use all of it.
    """

    def __init__(self, plan: Plan, places: Places, reserve: int = 0) -> None:
        self._places, self._block = places, plan.block_size
        self._reserve = min(-(-reserve // plan.page_tokens), plan.num_pages)

    @property
    def reserved_pages(self) -> int:
        """Pages that what can wait leaves free."""
        return self._reserve

    def leaving_for(self, sequence: Answer, running: Sequence[Answer]) -> list[Answer] | None:
        """Who has to leave so that a sequence may come in: mostly nobody, else who came in last of what is less urgent.

        None where it has to wait.
        """
        if self._has_room(sequence, running):
            return []
        lesser = [other for other in running if other.request.priority > sequence.request.priority]
        for count in range(1, len(lesser) + 1):
            leaving = lesser[-count:]
            if count == len(running) or self._places.would_have_room(sequence, leaving):
                return leaving[::-1]
        return None

    def _has_room(self, sequence: Answer, running: Sequence[Answer]) -> bool:
        if not running:
            return True
        if len(running) >= self._block:
            return False
        if sequence.request.priority <= URGENT or not self._reserve:
            return self._places.has_room(sequence)
        urgent = [other for other in running if other.request.priority <= URGENT]
        if len(running) - len(urgent) >= self._block - 1:
            return False
        return self._places.has_room(sequence, max(0, self._reserve - self._places.held_by(urgent)))


def in_order(running: Iterable[Answer]) -> list[Answer]:
    """The urgent ones first, and otherwise in the order they came in; whoever an urgent one follows is as urgent."""
    running = list(running)
    urgency = _urgency(running)
    return sorted(running, key=lambda sequence: urgency[sequence.number])


def read_with_patience(running: Sequence[Answer], micro_batch_tokens: int) -> tuple[frozenset[int], int | None]:
    """Numbers of those who read with patience beside urgent ones, and how many tokens they read in a pass together.

    A pass that reads many prompts may take seconds, for which whoever waits for the next word waits too. None: as many
    as there is room for, since nobody urgent is there. Chunked prefill bounds the same in Sarathi-Serve (Agrawal et
    al., OSDI 2024, section 4).
    """
    urgency = _urgency(running)
    patient = frozenset(number for number, priority in urgency.items() if priority > URGENT)
    return patient, micro_batch_tokens if len(patient) < len(urgency) else None


def _urgency(running: Iterable[Answer]) -> dict[int, int]:
    """The priority of each by its number, no less urgent than those who follow it."""
    running = list(running)
    urgency = {sequence.number: sequence.request.priority for sequence in running}
    for sequence in running:
        leader = sequence.leader
        while leader is not None:
            urgency[leader.number] = min(urgency[leader.number], sequence.request.priority)
            leader = leader.leader
    return urgency
