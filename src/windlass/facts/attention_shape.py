"""How a layer attends, apart from what it stores."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """`query_heads` heads with keys of `key_dim` and values of `value_dim` elements as attended (MLA: rebuilt from
    what is stored). `window` is how many tokens are seen at most, None for all."""

    query_heads: int
    key_dim: int
    value_dim: int
    window: int | None = None

    @property
    def flops_per_pair(self) -> int:
        """Floating-point operations of one query token with one attended token."""
        return 2 * self.query_heads * (self.key_dim + self.value_dim)
