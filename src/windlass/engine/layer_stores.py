"""Where each layer's pages lie: in one block where the model computes, and in one in host memory beside a device."""

from collections.abc import Sequence

import torch

from windlass.facts.model_facts import CacheShape
from windlass.facts.plan import Plan
from windlass.kernels.page_store import PageStore
from windlass.memory.accelerator import Accelerator, DeviceMemory
from windlass.memory.arena import Arena
from windlass.model.layer_store import LayerStore, PlainStore
from windlass.model.tiered_store import HostSide, TieredStore


class LayerStores:
    """Owns the memory of keys and values of a plan."""

    def __init__(
        self,
        shapes: Sequence[tuple[int, CacheShape]],
        plan: Plan,
        dtype: torch.dtype,
        accelerator: Accelerator | None,
    ) -> None:
        self._shapes, self._plan, self._dtype = shapes, plan, dtype
        here = max(1, self._nbytes(plan.device_pages))
        self._here: Arena | DeviceMemory = Arena(here) if accelerator is None else accelerator.memory(here)
        self._host = Arena(self._nbytes(plan.host_pages)) if plan.host_pages else None
        self._device = torch.device("cpu") if accelerator is None else accelerator.device

    def by_layer(self, side: HostSide | None) -> dict[int, LayerStore]:
        """The store of each layer that has one. `side` is how a device reaches the host."""
        stores: dict[int, LayerStore] = {}
        here = _carve(
            self._here, self._shapes, self._plan.device_pages, self._plan.page_tokens, self._dtype, self._device
        )
        if self._host is None:
            return {layer: PlainStore(store) for layer, store in here.items()}
        assert side is not None, "only beside a device does the host hold pages of its own"
        cpu = torch.device("cpu")
        host = _carve(self._host, self._shapes, self._plan.host_pages, self._plan.page_tokens, self._dtype, cpu)
        for layer, store in here.items():
            stores[layer] = TieredStore(store, host[layer], self._plan.device_pages, side)
        return stores

    def close(self) -> None:
        """Frees the memory."""
        self._here.close()
        if self._host is not None:
            self._host.close()

    def _nbytes(self, pages: int) -> int:
        return sum(
            PageStore.nbytes(*_sizes(shape, pages, self._plan.page_tokens), self._dtype) for _, shape in self._shapes
        )


def _carve(
    arena: Arena | DeviceMemory,
    shapes: Sequence[tuple[int, CacheShape]],
    pages: int,
    page_tokens: int,
    dtype: torch.dtype,
    device: torch.device,
) -> dict[int, PageStore]:
    stores, offset = {}, 0
    for layer, shape in shapes:
        sizes = _sizes(shape, pages, page_tokens)
        nbytes = PageStore.nbytes(*sizes, dtype)
        stores[layer] = PageStore(*sizes, dtype, device, arena.tensor(offset, torch.uint8, (nbytes,)))
        offset += nbytes
    return stores


def _sizes(shape: CacheShape, pages: int, page_tokens: int) -> tuple[int, int, int, int, int, int]:
    return pages, page_tokens, shape.key_heads, shape.key_dim, shape.value_heads, shape.value_dim
