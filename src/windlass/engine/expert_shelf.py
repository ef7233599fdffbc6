"""Experts on their way through memory: fetched when a token wants them, kept while there is room, dropped oldest first.

A few slots, each as large as the largest expert. The experts a micro-batch announces are asked of the disk at once, as
far as slots are free; computing one frees its slot for the next, so reading and computing overlap.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass

import torch

from windlass.engine.trace import Paused
from windlass.errors import StorageError
from windlass.facts.parameter_source import ParameterSource
from windlass.facts.piece import Piece, plan_piece
from windlass.facts.plan import Plan
from windlass.facts.weight_group import WeightGroup
from windlass.memory.arena import Arena
from windlass.memory.checkpoint import piece_reads, tensor_view
from windlass.memory.disk import DiskReader
from windlass.memory.ticket import ReaderClosed, Ticket
from windlass.model.assembly import Assembly

Key = tuple[int, int]


def key_of(expert: WeightGroup) -> Key:
    """(layer, expert), which a group of that kind always has."""
    assert expert.layer is not None and expert.expert is not None
    return expert.layer, expert.expert


@dataclass(frozen=True, slots=True)
class _Arrival:
    """An expert in a slot; its bytes are there once the ticket is served."""

    offset: int
    ticket: Ticket


class ExpertShelf:
    """Gives the weights of one expert at a time. `experts` is keyed by (layer, expert).

    `resident` holds those that are in some memory; `to_device` brings a weight to where the model computes.
    """

    def __init__(
        self,
        experts: Mapping[Key, WeightGroup],
        resident: Mapping[str, torch.Tensor],
        plan: Plan,
        assembly: Assembly,
        reader: DiskReader,
        to_device: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        self.wait_seconds = 0.0
        # Entered by whoever waits for an expert, so that a timeline shows it.
        self.paused: Paused = nullcontext
        self._to_device, self._on_device = to_device, plan.resident
        self._experts, self._resident = experts, resident
        self._assembly, self._reader = assembly, reader
        self._streamed = {
            key: [source for source in group.sources if source.key not in resident] for key, group in experts.items()
        }
        self._pieces = {key: self._piece(sources) for key, sources in self._streamed.items() if sources}
        room = plan.host_bill.expert_ring
        self._arena = Arena(room) if room else None
        size = max((piece.nbytes for piece in self._pieces.values()), default=1)
        self._free = [slot * size for slot in range(room // size)]
        self._arrivals: OrderedDict[Key, _Arrival] = OrderedDict()
        self._wanted: deque[Key] = deque()
        self._in_use: Key | None = None

    def announce(self, layer: int, experts: tuple[int, ...]) -> None:
        """The experts that will be asked for next, in this order."""
        self._in_use = None
        self._wanted = deque(key for expert in experts if (key := (layer, expert)) in self._pieces)
        for key in self._wanted:
            if key in self._arrivals:
                self._arrivals.move_to_end(key)
        self._fetch()

    def take(self, layer: int, expert: int) -> dict[str, torch.Tensor]:
        """An expert's weights by parameter name; valid until the next `take` or `announce`."""
        key = (layer, expert)
        arrived: dict[str, torch.Tensor] = {}
        if key in self._pieces:
            arrived = self._await(key)
        weights = {}
        for source in self._experts[key].sources:
            weight = self._resident.get(source.key)
            if weight is None:
                weight = self._assembly.build(source, arrived)
            weights[source.parameter] = weight if source.key in self._on_device else self._to_device(weight)
        return weights

    def close(self) -> None:
        """Waits for reads in flight and frees the slots."""
        for arrival in self._arrivals.values():
            with suppress(StorageError, ReaderClosed):
                arrival.ticket.wait()
        self._arrivals.clear()
        if self._arena:
            self._arena.close()

    def _await(self, key: Key) -> dict[str, torch.Tensor]:
        self._in_use = key
        if self._wanted and self._wanted[0] == key:
            self._wanted.popleft()
        if key not in self._arrivals:
            self._start(key)
        self._fetch()
        arrival = self._arrivals[key]
        start = time.perf_counter()
        with self.paused():
            arrival.ticket.wait()
        self.wait_seconds += time.perf_counter() - start
        assert self._arena is not None
        return {
            fact.name: tensor_view(self._arena, arrival.offset, self._pieces[key], fact)
            for source in self._streamed[key]
            for fact in source.tensors
        }

    def _fetch(self) -> None:
        """Asks the disk for wanted experts while a slot can be had without giving up a wanted one."""
        for key in self._wanted:
            if key not in self._arrivals:
                if not self._free and self._oldest_idle() is None:
                    return
                self._start(key)

    def _start(self, key: Key) -> None:
        if not self._free:
            # With every slot holding a wanted expert, the one wanted last gives way (Belady's rule).
            leaving = self._oldest_idle() or next(key for key in reversed(self._wanted) if key in self._arrivals)
            arrival = self._arrivals.pop(leaving)
            arrival.ticket.wait()
            self._free.append(arrival.offset)
        assert self._arena is not None
        offset = self._free.pop()
        reads, name = piece_reads(self._pieces[key], self._arena, offset), f"read {self._experts[key].name}"
        self._arrivals[key] = _Arrival(offset, self._reader.submit(reads, name=name, urgent=True))

    def _oldest_idle(self) -> Key | None:
        needed = {*self._wanted, self._in_use}
        return next((key for key in self._arrivals if key not in needed), None)

    def _piece(self, sources: list[ParameterSource]) -> Piece:
        return plan_piece([fact for source in sources for fact in source.tensors])
