"""Dry runs before anything is loaded: what layers store in the cache, and what memory a micro-batch really takes.

The model runs with weights of untouched memory, which the system maps to one page of zeros: only activations cost.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from windlass.facts.attention_rule import AttentionRule
from windlass.facts.cache_format import AS_COMPUTED, CacheFormat
from windlass.facts.cache_shape import CacheShape
from windlass.kernels.attention_batch import AttentionBatch
from windlass.kernels.packed_pages import PackedPages
from windlass.kernels.page_store import PAGE_TOKENS, PageStore
from windlass.kernels.token_span import TokenSpan
from windlass.memory.process_memory import (
    big_blocks_outside_heap,
    peak_resident_bytes,
    reset_peak,
    resident_bytes,
    return_free_memory,
)
from windlass.model.attention import connect_attention
from windlass.model.conductor import Seat
from windlass.model.kvcache import KVCache
from windlass.model.layer_store import Batch, LayerStore, PlainStore
from windlass.model.lending import Slot, slots_of
from windlass.model.packed_here import PackedHere
from windlass.model.packed_store import PackedStore
from windlass.model.page_table import PageTable
from windlass.model.rotary import DeferredTables, SequenceLengths
from windlass.model.text_config import known_positions
from windlass.model.tree import map_tree
from windlass.model.zoo import LiftedModel
from windlass.units import MIB

# A hidden row of this size is large enough to be seen among the noise of the allocator.
ROW_BYTES = 24 * MIB


class ShapeProbe:
    """Stands in for the cache: notes what `update` is given, layer by layer, and stores nothing."""

    is_compileable = False

    def __init__(self) -> None:
        self.shapes: dict[int, CacheShape] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """key_states (1, Hk, T, Dk), value_states (1, Hv, T, Dv), returned as they came."""
        (_, key_heads, _, key_dim), (_, value_heads, _, value_dim) = key_states.shape, value_states.shape
        self.shapes[layer_idx] = CacheShape(key_heads, key_dim, value_heads, value_dim)
        return key_states, value_states

    def attend(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rule: AttentionRule,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """query (H, T, Dk), value (Hk, T, Dv) -> zeros (T, H, Dv)."""
        return query.new_zeros(query.shape[1], query.shape[0], value.shape[2])

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """See KVCache."""
        return 0

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """See KVCache."""
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """See KVCache."""
        return query_length, 0


class Rehearsal:
    """A conductor whose layers run only where asked, with weights of nothing.

    Two things are known after `cache_shapes`: `narrows_late`, whether the rows whose logits are wanted can be picked
    only after the decoder's end, not before its final norm; and `plain_row`, whether the row goes from the embedding to
    the layers, and from layer to layer, untouched.
    """

    def __init__(self, lifted: LiftedModel, seat: Seat, dtype: torch.dtype, device: torch.device) -> None:
        self.lifted, self.seat, self.dtype, self.device = lifted, seat, dtype, device
        self.narrows_late = False
        self.plain_row = True
        self._passed: torch.Tensor | None = None
        self._narrows = True
        self._lent = 0
        self._played: set[int] = set()
        self._tokens = 1
        self._lengths = SequenceLengths(((0, 1),), (1,))

    def cache_shapes(self) -> dict[int, CacheShape]:
        """What each layer stores for a token. Layers alike in every respect are tried once."""
        probe = ShapeProbe()
        first_of: dict[Any, int] = {}
        for index, part in enumerate(self.lifted.layers):
            first_of.setdefault(_signature(part.module), index)
        play = set(first_of.values())
        try:
            self._run(probe, tokens=2, play=play)
        except RuntimeError:
            # Some decoders reshape their output to the shape of their input: all rows must reach their end.
            self.narrows_late = True
            self._run(probe, tokens=2, play=play)
        shapes = {}
        for index, part in enumerate(self.lifted.layers):
            twin = first_of[_signature(part.module)]
            if twin in probe.shapes:
                shapes[index] = probe.shapes[twin]
        return shapes

    def rows_held(self, scored: bool = False) -> float:
        """How many hidden rows the model's own forward keeps alive around the layers (1.0 for most).

        Where every row is `scored`, copies of all go through the norm behind the layers too.
        """
        row_bytes = self.lifted.model.config.hidden_size * self.dtype.itemsize
        tokens = max(2, ROW_BYTES // row_bytes)
        self._narrows = not scored
        used = self._measured(ShapeProbe(), tokens, play=set())
        self._narrows = True
        copied = 1.0 if scored and self.narrows_late else 0.0
        return max(1.0, used / (tokens * row_bytes)) + copied

    def activation_bytes(
        self, tokens: int, shapes: Mapping[int, CacheShape], kept_as: CacheFormat = AS_COMPUTED
    ) -> int:
        """Bytes the largest layer takes for a micro-batch of `tokens`, beside its weights and the row."""
        largest = max(range(len(self.lifted.layers)), key=lambda i: _parameters(self.lifted.layers[i].module))
        cache, cache_bytes = _cache_of_one(shapes, largest, tokens, self.dtype, self.device, kept_as)
        row = tokens * self.lifted.model.config.hidden_size * self.dtype.itemsize
        used = self._measured(cache, tokens, play={largest})
        return max(used - cache_bytes - row, 4 * MIB)

    def embed(self, embedding: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        """A row of ones in place of the embedding: (1, T) -> (1, T, H)."""
        width = embedding._parameters["weight"]
        assert width is not None
        self._passed = torch.ones(1, ids.shape[1], width.shape[1], dtype=self.dtype, device=self.device)
        return self._passed

    def layer(
        self, index: int, layer: nn.Module, row: torch.Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Runs the layer if it is its turn, else passes the row (1, T, H) on; the last picks one row, or all."""
        self.plain_row &= row is self._passed
        result: Any = row
        if index in self._played:
            result = self._play(layer, row, args, kwargs)
        self._passed = result[0] if isinstance(result, tuple) else result
        last = index == len(self.lifted.layers) - 1 and not self.narrows_late
        picked = torch.arange(1 if self._narrows else row.shape[1], device=row.device)
        return map_tree(lambda leaf: leaf[:, picked] if last and isinstance(leaf, torch.Tensor) else leaf, result)

    def head(self, head: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        """Never asked in a rehearsal of the decoder."""
        raise AssertionError("a rehearsal stops before the head")

    def announce_experts(self, layer: int, experts: tuple[int, ...]) -> None:
        """Nothing has to be fetched."""

    def expert(self, layer: int, expert: int) -> dict[str, torch.Tensor]:
        """An expert of nothing, of the right shapes."""
        name, count = self.lifted.experts[layer]
        module = self.lifted.layers[layer].module.get_submodule(name)
        with big_blocks_outside_heap():
            return {
                attribute: torch.empty(parameter.shape[1:], dtype=parameter.dtype, device=self.device)
                for attribute, parameter in module._parameters.items()
                if parameter is not None and parameter.shape[0] == count
            }

    def _play(self, layer: nn.Module, row: torch.Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        positions = torch.arange(self._tokens, device=self.device)[None]

        def resolved(leaf: Any) -> Any:
            return leaf.resolve(positions, self._lengths) if isinstance(leaf, DeferredTables) else leaf

        experts = self._expert_slots(layer)
        lent = [slot for slot in slots_of(layer).values() if slot.empty.is_meta and id(slot.empty) not in experts]
        self._lent += _lend_nothing(lent, self.device)
        try:
            return layer(
                row,
                *(map_tree(resolved, item) for item in args),
                **{name: map_tree(resolved, item) for name, item in kwargs.items()},
            )
        finally:
            for slot in lent:
                slot.take_back()

    def _expert_slots(self, layer: nn.Module) -> set[int]:
        """The parameters that come an expert at a time, and so are never lent whole."""
        index = next(i for i, part in enumerate(self.lifted.layers) if part.module is layer)
        if index not in self.lifted.experts:
            return set()
        module = layer.get_submodule(self.lifted.experts[index][0])
        return {id(parameter) for parameter in module._parameters.values()}

    def _measured(self, cache: Any, tokens: int, play: set[int]) -> int:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            held, self._lent = torch.cuda.memory_allocated(self.device), 0
            self._run(cache, tokens, play)
            # A device has no untouched memory: what was lent there is real, and has a place of its own in the plan.
            return torch.cuda.max_memory_allocated(self.device) - held - self._lent
        return_free_memory()
        reset_peak()
        before = resident_bytes()
        self._run(cache, tokens, play)
        return peak_resident_bytes() - before

    @torch.inference_mode()
    def _run(self, cache: Any, tokens: int, play: set[int]) -> None:
        """The decoder over one sequence of `tokens` tokens, with the layers of `play` computed."""
        self.seat.conductor = self
        self._played, self._tokens = play, tokens
        self._lengths = SequenceLengths(((0, tokens),), (tokens,))
        for index in play:
            connect_attention(self.lifted.layers[index].module, cache)
        outer = [slot for part in self.lifted.outer for slot in slots_of(part.module).values() if slot.empty.is_meta]
        self._lent += _lend_nothing(outer, self.device)
        known = known_positions(self.lifted.model.config) or tokens
        positions = torch.arange(tokens, device=self.device)[None].clamp(max=known - 1)
        try:
            self.lifted.decoder.run(
                input_ids=torch.zeros(1, tokens, dtype=torch.int64, device=self.device),
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            )
        finally:
            for slot in outer:
                slot.take_back()


def _cache_of_one(
    shapes: Mapping[int, CacheShape],
    layer: int,
    tokens: int,
    dtype: torch.dtype,
    device: torch.device,
    kept_as: CacheFormat,
) -> tuple[KVCache, int]:
    """A cache for one layer and one sequence, ready for its first micro-batch, and its bytes."""
    table = PageTable(-(-tokens // PAGE_TOKENS), PAGE_TOKENS)
    table.reserve(0, tokens)
    stores, size = dict[CacheShape, LayerStore](), 0
    for s in {shapes[layer]} if layer in shapes else set(shapes.values()):  # a layer that shares finds one of each kind
        pages = 1 if kept_as.packs else table.num_pages
        sizes = (pages, PAGE_TOKENS, s.key_heads, s.key_dim, s.value_heads, s.value_dim, dtype)
        unpacked = PageStore(*sizes, device)
        size += PageStore.nbytes(*sizes)
        if not kept_as.packs:
            stores[s] = PlainStore(unpacked)
            continue
        page = kept_as.packed_page(s, PAGE_TOKENS)
        packed = torch.empty(table.num_pages, page.nbytes, dtype=torch.uint8, device=device)
        stores[s] = PackedStore(unpacked, PackedHere(PackedPages(packed, page, dtype)), page)
        size += packed.nbytes
    cache = KVCache({index: stores[s] for index, s in shapes.items() if s in stores}, shapes, table)
    cache.begin(Batch(AttentionBatch([TokenSpan(0, tokens, 0, table.pages[0])], PAGE_TOKENS, device)))
    return cache, size


def _lend_nothing(slots: Sequence[Slot], device: torch.device) -> int:
    """Untouched memory of the right shapes: on the host it reads as zeros and takes no room. Returns its bytes."""
    nbytes = 0
    with big_blocks_outside_heap():
        for slot in slots:
            weight = torch.empty(slot.empty.shape, dtype=slot.empty.dtype, device=device)
            slot.lend(weight)
            nbytes += weight.nbytes
    return nbytes


def _parameters(layer: nn.Module) -> int:
    return sum(p.numel() for p in layer.parameters())


def _signature(layer: nn.Module) -> Any:
    """Everything plain about a layer's modules but their index: layers with equal signatures behave alike."""
    described = []
    for name, module in layer.named_modules():
        plain = {
            key: value
            for key, value in module.__dict__.items()
            if isinstance(value, (bool, int, float, str)) and key != "layer_idx"
        }
        shapes = {key: tuple(p.shape) for key, p in module._parameters.items() if p is not None}
        described.append((name, type(module).__name__, tuple(sorted(plain.items())), tuple(sorted(shapes.items()))))
    return tuple(described)
