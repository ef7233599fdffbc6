"""The hidden row of a pass resting in host memory between layers: a device then holds only the rows it computes.

transformers' forward passes the row from layer to layer without looking at it, so what it carries is a stand-in of the
row's shape that takes no memory; each layer brings a micro-batch of the real row over, and sends it back.

T tokens of the row; t rows of a micro-batch; H hidden size; R rows whose logits are wanted.
"""

import torch

from windlass.memory.accelerator import Accelerator, Mark
from windlass.memory.arena import Arena


class HostRow:
    """Room for `tokens` rows of `width` numbers.

    Whoever waits for a copy here keeps its turn (see Crew): a micro-batch waits for its rows before it has stored keys
    and values, and one behind it must find them.
    """

    def __init__(self, tokens: int, width: int, dtype: torch.dtype, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._arena = Arena(tokens * width * dtype.itemsize)
        accelerator.pin(self._arena)
        self._row = self._arena.tensor(0, dtype, (1, tokens, width))
        # What is on its way back to the host, by the first row of it, of this layer and the one before.
        self._stored: dict[int, Mark] = {}
        self._before: list[Mark] = []

    def stand_in(self, tokens: int) -> torch.Tensor:
        """(1, T, H) of zeros that takes the memory of one number."""
        one = torch.zeros(1, 1, 1, dtype=self._row.dtype, device=self._accelerator.device)
        return one.expand(1, tokens, self._row.shape[2])

    def begin_layer(self) -> None:
        """What has been stored so far is what is read from here on."""
        self._before, self._stored = [*self._stored.values()], {}

    def store(self, start: int, rows: torch.Tensor) -> None:
        """rows (1, t, H) on the device begin their way to the host, to row `start`."""
        target = self._row[:, start : start + rows.shape[1]]
        self._stored[start] = self._accelerator.download(rows.contiguous(), target, name="download row")

    def load(self, start: int, stop: int) -> torch.Tensor:
        """Rows start:stop -> (1, t, H) on the device, there for what is computed from here on."""
        return self._upload(self._row[:, start:stop])

    def pick(self, wanted: torch.Tensor) -> torch.Tensor:
        """The rows `wanted` (R,) of what was stored last -> (1, R, H) on the device."""
        self.begin_layer()
        for mark in self._before:
            mark.wait()
        return self._upload(self._row[:, wanted.cpu()])

    def close(self) -> None:
        """Frees the memory, once no copy is in flight."""
        self._accelerator.drain()
        self._accelerator.unpin(self._arena)
        del self._row
        self._arena.close()

    def _upload(self, source: torch.Tensor) -> torch.Tensor:
        target = self._accelerator.empty(source.shape, source.dtype)
        mark = self._accelerator.upload(source, target, [self._accelerator.mark(), *self._before], "upload row")
        self._accelerator.compute_after(mark)
        return target
