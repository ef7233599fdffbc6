"""Where each layer's pages lie: in one block where the model computes, and in one in host memory beside a device."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from windlass.engine.disk_cache import DiskCache
from windlass.facts.model_facts import CacheShape
from windlass.facts.plan import Plan
from windlass.kernels.page_store import PageStore
from windlass.memory.accelerator import Accelerator, DeviceMemory
from windlass.memory.arena import Arena
from windlass.model.layer_store import LayerStore, PlainStore
from windlass.model.spilling_store import SpillingStore
from windlass.model.tiered_store import HostSide, TieredStore


class LayerStores:
    """Owns the memory of keys and values of a plan, and their file where some are on disk (in `offload_dir`)."""

    def __init__(
        self,
        shapes: Sequence[tuple[int, CacheShape]],
        plan: Plan,
        dtype: torch.dtype,
        accelerator: Accelerator | None,
        offload_dir: Path | None,
    ) -> None:
        self._shapes, self._plan, self._dtype = shapes, plan, dtype
        self._device = torch.device("cpu") if accelerator is None else accelerator.device
        with ExitStack() as undo:
            here = max(1, self._nbytes(plan.device_pages))
            self._here: Arena | DeviceMemory = Arena(here) if accelerator is None else accelerator.memory(here)
            undo.callback(self._here.close)
            self._host = Arena(self._nbytes(plan.host_pages)) if plan.host_pages else None
            if self._host is not None:
                undo.callback(self._host.close)
            self.disk: DiskCache | None = None
            if plan.disk_pages:
                assert offload_dir is not None, "a plan puts keys and values on disk only where it may"
                self.disk = DiskCache(shapes, plan, dtype, offload_dir)
                undo.callback(self.disk.close)
            self._undo = undo.pop_all()

    def by_layer(self, side: HostSide | None) -> dict[int, LayerStore]:
        """The store of each layer that has one. `side` is how a device reaches the host."""
        here = self._carve(self._here, self._plan.device_pages, self._device)
        host = self._carve(self._host, self._plan.host_pages, torch.device("cpu")) if self._host is not None else {}
        disk = self.disk.layers if self.disk is not None else {}
        if side is not None and self._plan.far_pages:
            return {layer: TieredStore(here[layer], host.get(layer), disk.get(layer), side, layer) for layer in here}
        if disk:
            return {layer: SpillingStore(here[layer], disk[layer]) for layer in here}
        return {layer: PlainStore(store) for layer, store in here.items()}

    def close(self) -> None:
        """Frees the memory and drops the file."""
        self._undo.close()

    def _nbytes(self, pages: int) -> int:
        return sum(PageStore.nbytes(*self._sizes(shape, pages), self._dtype) for _, shape in self._shapes)

    def _carve(self, arena: Arena | DeviceMemory, pages: int, device: torch.device) -> dict[int, PageStore]:
        stores, offset = {}, 0
        for layer, shape in self._shapes:
            sizes = self._sizes(shape, pages)
            nbytes = PageStore.nbytes(*sizes, self._dtype)
            stores[layer] = PageStore(*sizes, self._dtype, device, arena.tensor(offset, torch.uint8, (nbytes,)))
            offset += nbytes
        return stores

    def _sizes(self, shape: CacheShape, pages: int) -> tuple[int, int, int, int, int, int]:
        return pages, self._plan.page_tokens, shape.key_heads, shape.key_dim, shape.value_heads, shape.value_dim
