"""The token embedding, looked up in memory or read from disk by rows: only the rows a pass needs.

T tokens; U different ids among them; V vocabulary; H hidden size.
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import nn

from windlass.engine.trace import Paused
from windlass.facts.parameter_source import ParameterSource
from windlass.kernels.encodings.table import unpack_rows
from windlass.kernels.packed_matrix import PackedMatrix
from windlass.memory.checkpoint import torch_dtype
from windlass.memory.disk import DiskReader
from windlass.memory.rows import read_rows
from windlass.model.lending import Slot
from windlass.units import MIB

# Rows in memory at once, as read and once more as cast.
ROWS_BYTES = 16 * MIB
# Ids looked up at once in a resident table, so that a scaled embedding makes no second row.
IDS_AT_ONCE = 2048


class EmbeddingRows:
    """Looks ids up. `source` is the table's, or None where it is resident: then its slot is lent already.

    `table` (V, H) is the table in host memory where it rests there beside a device; else rows come from `reader`.
    `to_device` brings rows to where the model computes.
    """

    def __init__(
        self,
        slot: Slot,
        source: ParameterSource | None,
        reader: DiskReader,
        to_device: Callable[[torch.Tensor], torch.Tensor],
        table: torch.Tensor | None = None,
    ) -> None:
        # Entered while rows are waited for, so that a timeline shows it.
        self.paused: Paused = nullcontext
        self.slot, self.source, self.reader, self.to_device, self.table = slot, source, reader, to_device, table

    def look_up(self, embedding: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        """ids (1, T) -> (1, T, H), by the module's own forward: it may scale what it finds."""
        row: torch.Tensor | None = None
        step = IDS_AT_ONCE if self.source is None else self._rows_at_once()
        for start in range(0, ids.shape[1], step):
            part = self._part(embedding, ids[:, start : start + step])
            if row is None:
                if part.shape[1] == ids.shape[1]:
                    return part
                row = part.new_empty(1, ids.shape[1], *part.shape[2:])
            row[:, start : start + step] = part
        assert row is not None, "a row has at least one token"
        return row

    def _part(self, embedding: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        if self.source is None:
            return embedding(ids)
        unique, places = torch.unique(ids, return_inverse=True)
        table = self._read(unique)
        self.slot.lend(table)
        try:
            return embedding(places)
        finally:
            self.slot.take_back()

    def _read(self, unique: torch.Tensor) -> torch.Tensor:
        """unique (U,) rising ids -> their rows (U, H) in the compute dtype."""
        if self.table is not None:
            return self.to_device(F.embedding(unique.cpu(), self.table))
        assert self.source is not None
        (fact,) = self.source.tensors
        table = torch.empty(len(unique), fact.shape[1], dtype=torch_dtype(fact))
        with self.paused():
            read_rows(self.reader, fact, unique.tolist(), table, scratch_limit=ROWS_BYTES)
        dtype = self.slot.empty.dtype
        for packed in self.source.packed:  # there is one, whose rows lie one after the other
            ((role, _),) = packed.parts
            matrix = PackedMatrix(packed.packing, (len(unique), packed.shape[1]), {role: table})
            return self.to_device(unpack_rows(matrix, 0, len(unique), dtype))
        return self.to_device(table.to(dtype))

    def _rows_at_once(self) -> int:
        assert self.source is not None
        (fact,) = self.source.tensors
        return max(1, ROWS_BYTES // (fact.nbytes // fact.shape[0]))
