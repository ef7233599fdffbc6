"""How keys and values are kept: as they are computed, or packed into few bits as soon as a page is full."""

from dataclasses import dataclass

from windlass.errors import UsageError
from windlass.facts.cache_shape import CacheShape
from windlass.facts.packed_page import PackedPage

_BITS = {"auto": None, "int8": 8, "int4": 4}
NAMES = tuple(_BITS)


@dataclass(frozen=True, slots=True)
class CacheFormat:
    """`bits` of a packed number, None where keys and values are kept as they are computed. `name` is for people."""

    name: str
    bits: int | None

    @property
    def packs(self) -> bool:
        """Whether full pages are packed."""
        return self.bits is not None

    def packed_page(self, shape: CacheShape, page_tokens: int) -> PackedPage:
        """How a full page of a layer is packed."""
        assert self.bits is not None, f"pages of {self.name} are not packed"
        return PackedPage(shape, page_tokens, self.bits)

    def page_bytes(self, shape: CacheShape, page_tokens: int, itemsize: int) -> int:
        """Bytes of a full page of a layer that computes in numbers of `itemsize` bytes."""
        if self.bits is None:
            return page_tokens * shape.elements * itemsize
        return self.packed_page(shape, page_tokens).nbytes


AS_COMPUTED = CacheFormat("auto", None)


def cache_format(name: object) -> CacheFormat:
    """The format of that name. Raises UsageError."""
    if not isinstance(name, str) or name not in _BITS:
        raise UsageError(f"kv_cache_dtype={name!r:.60} is not known; choose one of {', '.join(NAMES)}")
    return CacheFormat(name, _BITS[name])
