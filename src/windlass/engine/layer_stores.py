"""Where each layer's pages lie: in one block where the model computes, and in one in host memory beside a device."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import torch

from windlass.engine.disk_cache import DiskCache
from windlass.facts.model_facts import ModelFacts
from windlass.facts.plan import Plan
from windlass.kernels.packed_pages import PackedPages
from windlass.kernels.page_store import PageStore
from windlass.memory.accelerator import Accelerator, DeviceMemory
from windlass.memory.arena import Arena
from windlass.model.layer_store import LayerStore, PlainStore
from windlass.model.packed_here import PackedHere
from windlass.model.packed_store import PackedStore
from windlass.model.spilling_store import SpillingStore
from windlass.model.tiered_store import HostSide, TieredStore


class LayerStores:
    """Owns the memory of keys and values of a plan, and their file where some are on disk (in `offload_dir`).

    What the model computes with comes first in its block: the pages of each layer, then its places for pages that are
    not packed yet, where full ones are.
    """

    def __init__(
        self,
        model: ModelFacts,
        plan: Plan,
        dtype: torch.dtype,
        accelerator: Accelerator | None,
        offload_dir: Path | None,
    ) -> None:
        self._model, self._plan, self._dtype = model, plan, dtype
        self._device = torch.device("cpu") if accelerator is None else accelerator.device
        page, places = model.cache_page_bytes(plan.page_tokens), plan.block_size
        with ExitStack() as undo:
            here = max(1, plan.device_pages * page + places * model.open_page_bytes(plan.page_tokens))
            self._here: Arena | DeviceMemory = Arena(here) if accelerator is None else accelerator.memory(here)
            undo.callback(self._here.close)
            self._host = Arena(plan.host_pages * page) if plan.host_pages else None
            if self._host is not None:
                undo.callback(self._host.close)
            self.disk: DiskCache | None = None
            if plan.disk_pages:
                assert offload_dir is not None, "a plan puts keys and values on disk only where it may"
                self.disk = DiskCache(model.cache_shapes, plan, dtype, offload_dir)
                undo.callback(self.disk.close)
            self._undo = undo.pop_all()

    def by_layer(self, side: HostSide | None) -> Mapping[int, LayerStore]:
        """The store of each layer that has one. `side` is how a device reaches the host."""
        if self._model.cache_format.packs:
            return self._packed()
        here = self._plain(self._here, self._plan.device_pages, self._device)
        host = self._plain(self._host, self._plan.host_pages, torch.device("cpu")) if self._host is not None else {}
        disk = self.disk.layers if self.disk is not None else {}
        if side is not None and self._plan.far_pages:
            return {layer: TieredStore(here[layer], host.get(layer), disk.get(layer), side, layer) for layer in here}
        if disk:
            return {layer: SpillingStore(here[layer], disk[layer]) for layer in here}
        return {layer: PlainStore(store) for layer, store in here.items()}

    def close(self) -> None:
        """Frees the memory and drops the file."""
        self._undo.close()

    def _plain(
        self, arena: Arena | DeviceMemory, pages: int, device: torch.device, offset: int = 0
    ) -> dict[int, PageStore]:
        """Pages as they are computed, one layer after the other, from byte `offset` of the arena on."""
        stores = {}
        for layer, s in self._model.cache_shapes:
            sizes = (pages, self._plan.page_tokens, s.key_heads, s.key_dim, s.value_heads, s.value_dim)
            nbytes = PageStore.nbytes(*sizes, self._dtype)
            stores[layer] = PageStore(*sizes, self._dtype, device, arena.tensor(offset, torch.uint8, (nbytes,)))
            offset += nbytes
        return stores

    def _packed(self) -> dict[int, PackedStore]:
        full = self._packed_pages(self._here, self._plan.device_pages)
        offset = self._plan.device_pages * self._model.cache_page_bytes(self._plan.page_tokens)
        places = self._plain(self._here, self._plan.block_size, self._device, offset)
        return {layer: PackedStore(places[layer], PackedHere(pages), pages.page) for layer, pages in full.items()}

    def _packed_pages(self, arena: Arena | DeviceMemory, pages: int) -> dict[int, PackedPages]:
        stores, offset = {}, 0
        for layer, shape in self._model.cache_shapes:
            page = self._model.cache_format.packed_page(shape, self._plan.page_tokens)
            packed = arena.tensor(offset, torch.uint8, (pages, page.nbytes))
            stores[layer] = PackedPages(packed, page, self._dtype)
            offset += pages * page.nbytes
        return stores
