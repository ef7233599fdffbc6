"""The bytes of one layer's packed page of keys and values: where its codes, scales and zeros lie.

Codes of `bits` bits stand for `code * scale + zero`. Keys have a scale and a zero for each channel over the tokens of
the page, values for each token over a group of channels: keys have channels that are large in every token, values have
none (KIVI, Liu et al., 2024). Scales and zeros are float16.

P tokens a page; Hk, Hv heads and Dk, Dv sizes of keys and values; G groups of a value. In order:
key codes (Hk, P, row), key scales and zeros (Hk, 2, Dk), value codes (Hv, P, row), value scales and zeros
(Hv, 2, G, P). Of 4-bit codes byte b of a row holds channel b in its low half and channel `row + b` in its high half.
"""

from dataclasses import dataclass

from windlass.facts.cache_shape import CacheShape

VALUE_GROUP = 64
"""Channels of a value that share a scale where its size is a multiple of it, else all do."""
SCALE_BYTES = 2
PAGE_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class PackedPage:
    """A page of `tokens` tokens of `shape`, packed to `bits` bits (8 or 4)."""

    shape: CacheShape
    tokens: int
    bits: int

    @property
    def levels(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1

    @property
    def key_row(self) -> int:
        """Bytes of a token's codes in one key head."""
        return -(-self.shape.key_dim * self.bits // 8)

    @property
    def value_row(self) -> int:
        """Bytes of a token's codes in one value head."""
        return -(-self.shape.value_dim * self.bits // 8)

    @property
    def value_group(self) -> int:
        """Channels of a value that share a scale."""
        return self.shape.value_dim if self.shape.value_dim % VALUE_GROUP else VALUE_GROUP

    @property
    def value_groups(self) -> int:
        """G."""
        return self.shape.value_dim // self.value_group

    @property
    def key_scales_at(self) -> int:
        """First byte of the keys' scales."""
        return _even(self.shape.key_heads * self.tokens * self.key_row)

    @property
    def values_at(self) -> int:
        """First byte of the values' codes."""
        return self.key_scales_at + self.shape.key_heads * 2 * self.shape.key_dim * SCALE_BYTES

    @property
    def value_scales_at(self) -> int:
        """First byte of the values' scales."""
        return _even(self.values_at + self.shape.value_heads * self.tokens * self.value_row)

    @property
    def nbytes(self) -> int:
        """Bytes of the page."""
        end = self.value_scales_at + self.shape.value_heads * 2 * self.value_groups * self.tokens * SCALE_BYTES
        return -(-end // PAGE_ALIGNMENT) * PAGE_ALIGNMENT


def _even(nbytes: int) -> int:
    return nbytes + nbytes % 2
