"""Every weight of a model: the resident ones lent for good, the streamed ones lent as a lane brings them.

Weights are read in place from the checkpoint. What stays is read once into one arena; what streams passes through a
ring, slice by slice, in the order of the schedule, for as long as the engine lives. On a device, what rests in host
memory streams from there and only the remainder from disk.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from windlass.engine.device_lane import DeviceDelivery, DeviceLane
from windlass.engine.disk_lane import Delivery, DiskLane
from windlass.engine.expert_shelf import ExpertShelf, key_of
from windlass.engine.host_weights import HostWeights
from windlass.facts.parameter_source import ParameterSource
from windlass.facts.piece import plan_piece, round_up
from windlass.facts.plan import Plan
from windlass.facts.tensor_fact import TensorFact
from windlass.facts.weight_group import WeightGroup
from windlass.memory.accelerator import Accelerator, DeviceMemory
from windlass.memory.arena import Arena
from windlass.memory.checkpoint import piece_reads, tensor_view
from windlass.memory.disk import DiskReader
from windlass.model.assembly import Assembly
from windlass.model.lending import Slot
from windlass.model.packed_weight import PackedWeight
from windlass.planner.residency import disk_piece, host_piece

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
        accelerator: Accelerator | None = None,
    ) -> None:
        self.plan, self.assembly, self.reader, self.accelerator = plan, assembly, reader, accelerator
        self.slots = slots
        self.resident: dict[str, torch.Tensor] = {}
        self._arena: Arena | None = None
        self._memory: DeviceMemory | None = None
        self.groups = tuple(groups)
        self.parts = [g for g in groups if g.kind == "layer"] + [g for g in groups if g.kind == "head"]
        self.streamed = [self._streamed(group) for group in self.parts]
        here, there = plan.resident, plan.host_resident
        # Parts of one matrix fill the same slot, each when it is its turn, though they stay in memory.
        self._in_turn = [[s for s in group.sources if s.rows is not None and s.key in here] for group in self.parts]
        self._pieces = [disk_piece(group, here, there) for group in self.parts]
        on_host = [host_piece(group, here, there) for group in self.parts]
        singles = [s for g in groups if g.kind in ("expert", "embedding") for s in g.sources if s.key in there]
        self.host = HostWeights(self.parts, on_host, singles)
        self._lane: DiskLane | DeviceLane | None = None
        self._lent: dict[int, Any] = {}
        self.shelf: ExpertShelf | None = None

    def load(self, on_bytes: Callable[[int], None]) -> None:
        """Reads what stays and lends it; then starts the lanes. `on_bytes` hears how many bytes have come."""
        sources = [s for g in self.groups for s in g.sources if s.key in self.plan.resident]
        unique = list({source.key: source for source in sources}.values())
        self._load_direct([source for source in unique if source.direct], on_bytes)
        for source in unique:
            if not source.direct:
                self.resident[source.key] = self.to_device(self._read_alone(source))
                on_bytes(source.nbytes)
        in_turn = {source.key for sources in self._in_turn for source in sources}
        for key, weight in self.resident.items():
            for slot in () if key in in_turn else self.slots.get(key, ()):
                slot.lend(weight)
        if self.accelerator is not None:
            self.host.load(self.reader, self.accelerator, self._read_alone, on_bytes)
        self._start_lanes()
        experts = {key_of(group): group for group in self.groups if group.kind == "expert"}
        if experts:
            ready = self.resident | self.host.alone
            self.shelf = ExpertShelf(experts, ready, self.plan, self.assembly, self.reader, self.to_device)

    def to_device(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight where the model computes, there when this returns; itself where that is the host."""
        if self.accelerator is None:
            return weight
        if isinstance(weight, PackedWeight):
            return weight.moved(self.to_device)
        target = self.accelerator.empty(weight.shape, weight.dtype)
        mark = self.accelerator.upload(weight, target, [self.accelerator.mark()], "upload weight")
        mark.wait()
        return target

    def lend(self, part: int) -> None:
        """Waits until a slice's streamed weights are there and fills their slots."""
        for source in self._in_turn[part]:
            for slot in self.slots[source.key]:
                slot.lend(self.resident[source.key])
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
        for source in self._in_turn[part]:
            for slot in self.slots[source.key]:
                slot.take_back()
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
        if self.accelerator is not None:
            self.host.close(self.accelerator)
        if self._memory is not None:
            self._memory.close()
        if self._arena:
            self._arena.close()

    def _start_lanes(self) -> None:
        if not any(self.streamed):
            return
        ring, names = self.plan.host_bill.ring, [part.name for part in self.plan.slices]
        disk = DiskLane(self._pieces, ring, self.reader, names) if ring else None
        self._lane = disk
        if self.accelerator is not None:
            self._lane = DeviceLane(self._pieces, disk, self.host, self.plan.memory.ring, self.accelerator, names)

    def _streamed(self, group: WeightGroup) -> list[ParameterSource]:
        return [source for source in group.sources if source.key not in self.plan.resident]

    def _views(self, delivery: Delivery | DeviceDelivery, part: int) -> dict[str, torch.Tensor]:
        """Every tensor of a delivery by name: what came from disk lies first, what came from the host behind it."""
        views, offset = dict[str, torch.Tensor](), delivery.offset
        facts = {fact.name: fact for source in self.streamed[part] for fact in source.tensors}
        for piece in (self._pieces[part], self.host.pieces[part]):
            if piece is not None:
                names = piece.places.keys() & facts.keys()
                views |= {name: tensor_view(delivery.arena, offset, piece, facts[name]) for name in names}
                offset += piece.nbytes
        return views

    def _load_direct(self, sources: Sequence[ParameterSource], on_bytes: Callable[[int], None]) -> None:
        """Neighbours in the files are read in one go: straight to where they stay, or through staging to a device."""
        batches = _batches(sorted(sources, key=lambda s: (s.tensors[0].file, s.tensors[0].offset)))
        pieces = [plan_piece(_tensors(batch), gap=0) for batch in batches]
        if not pieces:
            return
        stays = self.accelerator is None
        sizes = [piece.nbytes for piece in pieces]
        arena = Arena(sum(sizes) if stays else max(sizes))
        if self.accelerator is not None:
            self._memory = self.accelerator.memory(sum(sizes))
        offset = 0
        for piece, batch in zip(pieces, batches, strict=True):
            at = offset if stays else 0
            self.reader.read(piece_reads(piece, arena, at))
            place: Arena | DeviceMemory = arena
            if self.accelerator is not None and self._memory is not None:
                place = self._memory
                bytes_ = (torch.uint8, (piece.nbytes,))
                self.accelerator.upload(arena.tensor(0, *bytes_), place.tensor(offset, *bytes_)).wait()
            arrived = {f.name: tensor_view(place, offset, piece, f) for source in batch for f in source.tensors}
            for source in batch:
                self.resident[source.key] = self.assembly.build(source, arrived)
            offset += piece.nbytes
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
        built = _kept(self.assembly.build(source, arrived), arrived)
        arrived.clear()
        arena.close()
        return built


def _kept(built: torch.Tensor, arrived: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """A weight that no longer needs the memory it arrived in."""
    if isinstance(built, PackedWeight):
        return built.moved(torch.clone)
    built, buffer = built.contiguous(), next(iter(arrived.values())).untyped_storage()
    return built.clone() if built.untyped_storage().data_ptr() == buffer.data_ptr() else built


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
