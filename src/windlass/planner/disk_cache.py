"""What keys and values on disk cost in memory: places for pages being filled, and buffers for those being read."""

from collections.abc import Sequence

from windlass.facts.cache_shape import CacheShape
from windlass.facts.model_facts import ModelFacts
from windlass.facts.piece import round_up
from windlass.units import MIB

# Reads of this many bytes reach a disk's rate; with so many buffers some are being read while one is used.
READ_BYTES, READ_BUFFERS = 8 * MIB, 4
# Full pages on their way to disk, beside one that each sequence is filling.
WRITES_BEHIND = 16


def open_places(block_size: int) -> int:
    """Pages of a layer that can be in memory to be filled or written, those of sequences that just left among them."""
    return 2 * block_size + WRITES_BEHIND


def read_buffer_bytes(shapes: Sequence[tuple[int, CacheShape]], page_tokens: int, itemsize: int) -> int:
    """Bytes of a buffer: many pages of the layer that stores most, at least one."""
    page = max(shape.elements for _, shape in shapes) * page_tokens * itemsize
    return round_up(page * max(1, READ_BYTES // page))


def disk_cache_memory(model: ModelFacts, page_tokens: int, block_size: int) -> int:
    """Bytes of memory that a cache partly on disk takes for that part."""
    places = open_places(block_size) * page_tokens * model.cache_bytes_per_token
    return places + READ_BUFFERS * read_buffer_bytes(model.cache_shapes, page_tokens, model.itemsize)
