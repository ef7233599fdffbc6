"""Every weight of a model: the resident ones lent for good, the streamed ones lent as the disk lane brings them.

Weights are read in place from the checkpoint. What stays is read once into one arena; what streams passes through a
ring, slice by slice, in the order of the schedule, for as long as the engine lives.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from windlass.engine.device_lane import DeviceDelivery, DeviceLane
from windlass.engine.disk_lane import Delivery, DiskLane
from windlass.engine.expert_shelf import ExpertShelf
from windlass.facts.parameter_source import ParameterSource
from windlass.facts.piece import plan_piece, round_up
from windlass.facts.plan import Plan
from windlass.facts.tensor_fact import TensorFact
from windlass.facts.weight_group import WeightGroup
from windlass.memory.arena import Arena
from windlass.memory.checkpoint import piece_reads, tensor_view
from windlass.memory.disk import DiskReader
from windlass.model.assembly import Assembly
from windlass.model.lending import Slot

# Resident weights are read in pieces of about this size, so that loading shows progress.
LOAD_PIECE = 256 << 20


class Weights:
    """Lends the slices of a plan. `slots` maps a source key to the parameter slots it fills (two for a tied head)."""

    def __init__(
        self,
        plan: Plan,
        groups: Sequence[WeightGroup],
        slots: Mapping[str, Sequence[Slot]],
        assembly: Assembly,
        reader: DiskReader,
        device: torch.device,
    ) -> None:
        self.plan, self.assembly, self.reader, self.device = plan, assembly, reader, device
        self.slots = slots
        self.resident: dict[str, torch.Tensor] = {}
        self._arena: Arena | None = None
        self.groups = tuple(groups)
        self.parts = [g for g in groups if g.kind == "layer"] + [g for g in groups if g.kind == "head"]
        self.streamed = [self._streamed(group) for group in self.parts]
        self._pieces = [plan_piece(_tensors(sources)) if sources else None for sources in self.streamed]
        self._lane: DiskLane | DeviceLane | None = None
        self._lent: dict[int, Any] = {}
        self.shelf: ExpertShelf | None = None

    def load(self, on_bytes: Callable[[int], None]) -> None:
        """Reads what stays and lends it; then starts the disk lane. `on_bytes` hears how many bytes have come."""
        sources = [s for g in self.groups for s in g.sources if s.key in self.plan.resident]
        unique = list({source.key: source for source in sources}.values())
        direct = [source for source in unique if source.direct]
        self._load_direct(direct, on_bytes)
        for source in unique:
            if not source.direct:
                self.resident[source.key] = self._read_alone(source)
                on_bytes(source.nbytes)
        for key, weight in self.resident.items():
            for slot in self.slots.get(key, ()):
                slot.lend(weight)
        if self.plan.memory.ring:
            self._lane = DiskLane(self._pieces, self.plan.memory.ring, self.reader)
            if self.device.type == "cuda":
                self._lane = DeviceLane(self._lane, self.plan.memory.ring, self.device)
        experts = {(g.layer, g.expert): g for g in self.groups if g.kind == "expert"}
        if experts:
            self.shelf = ExpertShelf(experts, self.resident, self.plan, self.assembly, self.reader, self.device)

    def lend(self, part: int) -> None:
        """Waits until a slice's streamed weights are there and fills their slots."""
        if not self.streamed[part]:
            return
        assert self._lane is not None
        delivery = self._lane.next(part)
        self._lent[part] = delivery
        arrived = self._views(delivery, part)
        for source in self.streamed[part]:
            weight = self.assembly.build(source, arrived)
            for slot in self.slots[source.key]:
                slot.lend(weight)

    def take_back(self, part: int) -> None:
        """Empties a slice's slots and gives its bytes back to the ring."""
        if not self.streamed[part]:
            return
        for source in self.streamed[part]:
            for slot in self.slots[source.key]:
                slot.take_back()
        assert self._lane is not None
        self._lane.give_back(self._lent.pop(part))

    @property
    def wait_seconds(self) -> float:
        """How long the compute lane has stood waiting for weights."""
        shelf = self.shelf.wait_seconds if self.shelf else 0.0
        return shelf + (self._lane.wait_seconds if self._lane else 0.0)

    def close(self) -> None:
        """Stops the lane, empties every slot, frees the memory."""
        for slots in self.slots.values():
            for slot in slots:
                slot.take_back()
        if self._lane:
            self._lane.close()
        if self.shelf:
            self.shelf.close()
        self.resident.clear()
        if self._arena:
            self._arena.close()

    def _streamed(self, group: WeightGroup) -> list[ParameterSource]:
        return [source for source in group.sources if source.key not in self.plan.resident]

    def _views(self, delivery: Delivery | DeviceDelivery, part: int) -> dict[str, torch.Tensor]:
        piece = self._pieces[part]
        assert piece is not None
        return {
            fact.name: tensor_view(delivery.arena, delivery.offset, piece, fact)
            for source in self.streamed[part]
            for fact in source.tensors
        }

    def _load_direct(self, sources: Sequence[ParameterSource], on_bytes: Callable[[int], None]) -> None:
        """Neighbours in the files are read in one go: straight to where they stay, or through staging to a device."""
        batches = _batches(sorted(sources, key=lambda s: (s.tensors[0].file, s.tensors[0].offset)))
        pieces = [plan_piece(_tensors(batch), gap=0) for batch in batches]
        if not pieces:
            return
        stays = self.device.type == "cpu"
        sizes = [piece.nbytes for piece in pieces]
        arena = Arena(sum(sizes) if stays else max(sizes))
        offset = 0
        for piece, batch in zip(pieces, batches, strict=True):
            self.reader.read(piece_reads(piece, arena, offset))
            arrived = {f.name: tensor_view(arena, offset, piece, f) for source in batch for f in source.tensors}
            for source in batch:
                self.resident[source.key] = self.assembly.build(source, arrived).to(self.device)
            offset += piece.nbytes if stays else 0
            on_bytes(piece.nbytes)
        if stays:
            self._arena = arena
        else:
            arena.close()

    def _read_alone(self, source: ParameterSource) -> torch.Tensor:
        """A source that needs a pass over its bytes is read into passing memory and kept as built."""
        piece = plan_piece(source.tensors)
        arena = Arena(piece.nbytes)
        self.reader.read(piece_reads(piece, arena, 0))
        arrived = {fact.name: tensor_view(arena, 0, piece, fact) for fact in source.tensors}
        built = self.assembly.build(source, arrived).contiguous()
        if built.untyped_storage().data_ptr() == next(iter(arrived.values())).untyped_storage().data_ptr():
            built = built.clone()
        arrived.clear()
        arena.close()
        return built.to(self.device)


def _tensors(sources: Sequence[ParameterSource]) -> list[TensorFact]:
    return list({fact.name: fact for source in sources for fact in source.tensors}.values())


def _batches(sources: Sequence[ParameterSource]) -> list[list[ParameterSource]]:
    """Runs of sources in file order, each about LOAD_PIECE bytes."""
    batches: list[list[ParameterSource]] = []
    size = LOAD_PIECE
    for source in sources:
        if size >= LOAD_PIECE:
            batches.append([])
            size = 0
        batches[-1].append(source)
        size += round_up(source.nbytes)
    return batches
