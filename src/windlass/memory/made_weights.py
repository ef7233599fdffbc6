"""Random weights made when they are asked for, so that a model's shape runs where nobody has its weights.

A tensor is a file of its own that need not exist: what its bytes would be is known from its name alone, in memory as on
disk, so that a plan decides where weights lie and never what they are. Drawing numbers is far slower than moving them,
and packing them slower still: one stretch of them is drawn, and every tensor is cut from it, over and over, from a
place of its own on. Norms are one and biases zero, as in a fresh model.
"""

import json
import os
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from windlass.errors import StorageError
from windlass.facts.made_checkpoint import HEADER_BYTES
from windlass.facts.packed_tensor import PackedTensor
from windlass.facts.packing import Packing
from windlass.facts.tensor_fact import TensorFact
from windlass.memory.checkpoint import torch_dtype
from windlass.units import MIB

# A prime, so that no two rows of a matrix are the same numbers.
BLOCK_NUMBERS = 4_194_301
_WRITE_BYTES = 8 * MIB

DrawBlocks = Callable[[Packing, float, int], torch.Tensor]
"""(packing, standard deviation, seed) -> blocks of random numbers, uint8 (blocks, bytes of one)."""


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Bytes that tensors repeat, each beginning at a multiple of `unit` of them."""

    data: NDArray[np.uint8]
    unit: int


class MadeWeights:
    """The bytes of `tensors`, each in its file. Numbers are normal with the standard deviation `spread`.

    `draw` makes the blocks of those that are packed.
    """

    def __init__(
        self,
        tensors: Iterable[TensorFact | PackedTensor],
        spread: float,
        seed: int = 0,
        draw: DrawBlocks | None = None,
    ) -> None:
        facts: dict[str, TensorFact] = {}
        self._packings: dict[str, Packing] = {}
        for tensor in tensors:
            if isinstance(tensor, PackedTensor):
                (facts[tensor.file],) = tensor.facts
                self._packings[tensor.file] = tensor.packing
            else:
                facts[tensor.file] = tensor
        self.facts: Mapping[str, TensorFact] = facts
        self._spread, self._seed, self._draw = spread, seed, draw
        self._stretches: dict[object, _Stretch] = {}
        self._lock = threading.Lock()

    def fill(self, file: str, offset: int, target: memoryview) -> None:
        """Makes the bytes of `file` from `offset` on; `target` says how many. May be called by several threads."""
        fact = self.facts[file]
        head = max(0, min(fact.offset - offset, len(target)))
        target[:head] = _header(fact)[offset : offset + head]
        data = target[head:]
        if not data:
            return
        # numpy copies without Python's lock and by the calling thread alone: as many threads as call fill at once.
        out, stretch = np.frombuffer(data, dtype=np.uint8), self._stretch_of(fact)
        first = zlib.crc32(fact.name.encode()) % (len(stretch.data) // stretch.unit) * stretch.unit
        at = (first + offset + head - fact.offset) % len(stretch.data)
        done = 0
        while done < len(out):
            step = min(len(out) - done, len(stretch.data) - at)
            out[done : done + step] = stretch.data[at : at + step]
            done, at = done + step, 0

    def write(self, file: str) -> None:
        """Writes the whole file, and keeps none of it in the page cache. Raises StorageError."""
        size = self.facts[file].end
        buffer = memoryview(bytearray(min(size, _WRITE_BYTES)))
        try:
            with open(file, "wb", buffering=0) as target:
                for offset in range(0, size, _WRITE_BYTES):
                    part = buffer[: min(_WRITE_BYTES, size - offset)]
                    self.fill(file, offset, part)
                    _write_all(target.fileno(), part)
                os.fsync(target.fileno())
                if sys.platform == "linux":
                    os.posix_fadvise(target.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise StorageError(
                f"{file} cannot be written: {error.strerror}; free some space, allow its folder to be written, "
                "or name another --offload-dir"
            ) from error

    def _stretch_of(self, fact: TensorFact) -> _Stretch:
        """What a tensor repeats; it is drawn when a tensor first asks."""
        packing = self._packings.get(fact.file)
        key = packing or (fact.dtype, self._kind(fact))
        with self._lock:
            if key not in self._stretches:
                self._stretches[key] = self._numbers(fact) if packing is None else self._blocks(packing)
            return self._stretches[key]

    def _kind(self, fact: TensorFact) -> str:
        if fact.name.endswith("bias") or not torch_dtype(fact).is_floating_point:
            return "zero"
        return "normal" if len(fact.shape) > 1 else "one"

    def _numbers(self, fact: TensorFact) -> _Stretch:
        dtype, kind = torch_dtype(fact), self._kind(fact)
        if kind == "normal":
            generator = torch.Generator().manual_seed(self._seed)
            numbers = torch.empty(BLOCK_NUMBERS).normal_(0.0, self._spread, generator=generator)
        else:
            numbers = torch.full((HEADER_BYTES,), float(kind == "one"))
        return _Stretch(numbers.to(dtype).view(torch.uint8).numpy(), dtype.itemsize)

    def _blocks(self, packing: Packing) -> _Stretch:
        assert self._draw is not None, f"nobody draws blocks of {packing.name}"
        blocks = self._draw(packing, self._spread, self._seed)
        return _Stretch(blocks.view(-1).numpy(), blocks.shape[1])


def _header(fact: TensorFact) -> bytes:
    entry = {"dtype": fact.dtype, "shape": list(fact.shape), "data_offsets": [0, fact.nbytes]}
    text = json.dumps({fact.name: entry}).encode()
    room = fact.offset - 8
    assert len(text) <= room, f"the header of {fact.name} has {len(text)} bytes, {room} are kept for it"
    return room.to_bytes(8, "little") + text.ljust(room)


def _write_all(descriptor: int, part: memoryview) -> None:
    while part:
        part = part[os.write(descriptor, part) :]
