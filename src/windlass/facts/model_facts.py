"""What is known of a model before any weight is read: sizes, and which weights travel together."""

from dataclasses import dataclass

from windlass.facts.attention_shape import AttentionShape
from windlass.facts.cache_format import AS_COMPUTED, CacheFormat
from windlass.facts.cache_shape import CacheShape
from windlass.facts.weight_group import WeightGroup


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A decoder as the planner sees it. Bytes are of the compute dtype; `row_bytes` is one token's hidden state.

    `cache_shapes` maps a layer index to what it stores; layers that share keys and values are absent.
    `attention_shapes` says how each layer attends, `experts_per_token` how many routed experts a token wants in a layer
    that has some. `cache_format` is how keys and values are kept.
    """

    name: str
    model_type: str
    dtype: str
    itemsize: int
    num_layers: int
    hidden_size: int
    vocab_size: int
    max_model_len: int
    groups: tuple[WeightGroup, ...]
    cache_shapes: tuple[tuple[int, CacheShape], ...]
    attention_shapes: tuple[tuple[int, AttentionShape], ...] = ()
    experts_per_token: int = 0
    cache_format: CacheFormat = AS_COMPUTED

    @property
    def is_packed(self) -> bool:
        """Whether any of its weights are stored in fewer bits than they are computed in."""
        return any(source.packed for group in self.groups for source in group.sources)

    @property
    def weight_bytes(self) -> int:
        """Every parameter once; a tied head is not counted again."""
        sizes = {source.key: source.nbytes for group in self.groups for source in group.sources}
        return sum(sizes.values())

    @property
    def row_bytes(self) -> int:
        """One token's hidden state."""
        return self.hidden_size * self.itemsize

    @property
    def cache_bytes_per_token(self) -> int:
        """Keys and values of one token over all layers, as they are computed."""
        return sum(shape.elements for _, shape in self.cache_shapes) * self.itemsize

    def cache_page_bytes(self, page_tokens: int) -> int:
        """Bytes of a page of keys and values over all layers, as it is kept."""
        return sum(self.cache_format.page_bytes(shape, page_tokens, self.itemsize) for _, shape in self.cache_shapes)

    def open_page_bytes(self, page_tokens: int) -> int:
        """Bytes that a sequence takes beside its pages over all layers, for the one that is not packed yet."""
        return page_tokens * self.cache_bytes_per_token if self.cache_format.packs else 0
