"""What is known of a model before any weight is read: sizes, and which weights travel together."""

from dataclasses import dataclass

from windlass.facts.attention_shape import AttentionShape
from windlass.facts.weight_group import WeightGroup


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What one layer stores for one token, as the cache's `update` receives it (so latent for MLA).

    Key (key_heads, key_dim) and value (value_heads, value_dim), in elements.
    """

    key_heads: int
    key_dim: int
    value_heads: int
    value_dim: int

    @property
    def elements(self) -> int:
        """Elements a token takes in this layer."""
        return self.key_heads * self.key_dim + self.value_heads * self.value_dim


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A decoder as the planner sees it. Bytes are of the compute dtype; `row_bytes` is one token's hidden state.

    `cache_shapes` maps a layer index to what it stores; layers that share keys and values are absent.
    `attention_shapes` says how each layer attends, `experts_per_token` how many routed experts a token wants in a layer
    that has some.
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
        """Keys and values of one token over all layers."""
        return sum(shape.elements for _, shape in self.cache_shapes) * self.itemsize
