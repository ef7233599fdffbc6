"""Who goes first: for whom places and pages are kept, who is set aside for whom, and whose tokens a pass takes first.

A sequence that is set aside gives back its pages and keeps its tokens. What it had stored stays in the prefix tree
while there is room, so going on costs little; where there is none, its tokens are read anew, many in a pass.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from windlass.engine.places import Places
from windlass.engine.sequence import Sequence as Answer
from windlass.facts.plan import Plan

URGENT = 0
"""The priority of whoever waits for an answer; what has a greater one can wait."""

BUSY_TOKENS = 256
"""From fewer rows on, 128 on two cores (docs/benchmarks.md, "Fewer bytes"), a host's products are at their fastest."""


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


@dataclass(frozen=True, slots=True)
class ReadingShare:
    """How many tokens of prompts a pass reads: `most` in all, `most_patient` of those whose number is in `patient`."""

    most: int
    patient: frozenset[int]
    most_patient: int


def reading_share(running: Iterable[Answer], plan: Plan, room: int, live: bool) -> ReadingShare:
    """Of a pass with room for `room` tokens beside those that decode.

    A pass that reads many prompts may take seconds, for which whoever waits for the next word waits too, and whoever
    asks meanwhile. Chunked prefill bounds it (Sarathi-Serve, Agrawal et al., OSDI 2024, section 4): beside urgent
    ones the others read a micro-batch; and where others may come (`live`) and the host computes with weights that are
    all there, nobody reads more in a pass than keeps its cores busy. Weights that are streamed are used by as many
    tokens as there are.
    """
    urgency = _urgency(running)
    patient = frozenset(number for number, priority in urgency.items() if priority > URGENT)
    at_hand = plan.host is None and not plan.streamed_bytes and not plan.experts_travel
    most = min(room, BUSY_TOKENS) if live and at_hand else room
    return ReadingShare(most, patient, min(most, plan.micro_batch_tokens) if len(patient) < len(urgency) else most)


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
