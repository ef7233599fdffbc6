"""What a layer stores of a token."""

from dataclasses import dataclass


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
