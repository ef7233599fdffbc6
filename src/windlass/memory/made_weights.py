"""Random weights made when they are asked for, so that a model's shape runs where nobody has its weights.

A tensor is a file of its own that need not exist: what its bytes would be is known from its name alone, in memory as on
disk, so that a plan decides where weights lie and never what they are. Drawing numbers is far slower than moving them:
one block of them is drawn, and every tensor is cut from it, over and over, from a place of its own on. Norms are
one and biases zero, as in a fresh model.
"""

import json
import os
import sys
import threading
import zlib
from collections.abc import Iterable, Mapping

import torch

from windlass.errors import StorageError
from windlass.facts.made_checkpoint import HEADER_BYTES
from windlass.facts.tensor_fact import TensorFact
from windlass.memory.checkpoint import torch_dtype
from windlass.units import MIB

# A prime, so that no two rows of a matrix are the same numbers.
BLOCK_NUMBERS = 4_194_301
_WRITE_BYTES = 8 * MIB


class MadeWeights:
    """The bytes of `tensors`, each in its file. Numbers are normal with the standard deviation `spread`."""

    def __init__(self, tensors: Iterable[TensorFact], spread: float, seed: int = 0) -> None:
        self.facts: Mapping[str, TensorFact] = {fact.file: fact for fact in tensors}
        self._spread, self._seed = spread, seed
        self._blocks: dict[tuple[torch.dtype, str], torch.Tensor] = {}
        self._lock = threading.Lock()

    def fill(self, file: str, offset: int, target: memoryview) -> None:
        """Makes the bytes of `file` from `offset` on; `target` says how many. May be called by several threads."""
        fact = self.facts[file]
        head = max(0, min(fact.offset - offset, len(target)))
        target[:head] = _header(fact)[offset : offset + head]
        data = target[head:]
        if not data:
            return
        out = torch.frombuffer(data, dtype=torch.uint8)
        block, at = self._block_of(fact)
        at = (at + offset + head - fact.offset) % len(block)
        done = 0
        while done < len(out):
            step = min(len(out) - done, len(block) - at)
            out[done : done + step].copy_(block[at : at + step])
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
                f"{file} cannot be written: {error.strerror}; free some space, or name another --offload-dir"
            ) from error

    def _block_of(self, fact: TensorFact) -> tuple[torch.Tensor, int]:
        """The bytes that a tensor repeats, and the one it begins with."""
        dtype = torch_dtype(fact)
        kind = "normal" if dtype.is_floating_point and len(fact.shape) > 1 else "one"
        if fact.name.endswith("bias") or not dtype.is_floating_point:
            kind = "zero"
        with self._lock:
            if (dtype, kind) not in self._blocks:
                self._blocks[dtype, kind] = self._draw(dtype, kind).view(torch.uint8)
            block = self._blocks[dtype, kind]
        numbers = len(block) // dtype.itemsize
        return block, zlib.crc32(fact.name.encode()) % numbers * dtype.itemsize

    def _draw(self, dtype: torch.dtype, kind: str) -> torch.Tensor:
        if kind != "normal":
            return torch.full((HEADER_BYTES,), float(kind == "one")).to(dtype)
        generator = torch.Generator().manual_seed(self._seed)
        return torch.empty(BLOCK_NUMBERS).normal_(0.0, self._spread, generator=generator).to(dtype)


def _header(fact: TensorFact) -> bytes:
    entry = {"dtype": fact.dtype, "shape": list(fact.shape), "data_offsets": [0, fact.nbytes]}
    text = json.dumps({fact.name: entry}).encode()
    room = fact.offset - 8
    assert len(text) <= room, f"the header of {fact.name} has {len(text)} bytes, {room} are kept for it"
    return room.to_bytes(8, "little") + text.ljust(room)


def _write_all(descriptor: int, part: memoryview) -> None:
    while part:
        part = part[os.write(descriptor, part) :]
