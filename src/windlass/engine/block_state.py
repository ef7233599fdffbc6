"""How a block stands between two passes, in plain numbers that another thread may keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from windlass.engine.engine import Engine
from windlass.engine.lanes import together_busy
from windlass.engine.measurements import Measurements
from windlass.engine.sequence import Sequence as Answer
from windlass.facts.work_done import PassesDone


@dataclass(frozen=True, slots=True)
class BlockState:
    """`running` sequences are in the block and `waiting` are not yet, or not any more, as `set_aside` times happened.

    `entered` are ids of requests of which an answer has got its first place since this was last told. Counted since the
    model was loaded: `passes` and their `seconds`, in which each lane was busy for the seconds of `lanes`; bytes from
    disk and over the link; tokens of prompts read and of answers drawn. `last_pass` is what the latest one did, None
    before the first. Pages that sequences hold lie on the device, in host memory and on disk; `kept_pages` hold only
    what prompts began with, and are given up when their room is wanted. Keys and values of `stored_tokens` are stored.
    What can wait leaves `reserved_pages` to what cannot.
    """

    running: int
    waiting: int
    set_aside: int
    entered: tuple[str, ...]
    passes: int
    seconds: float
    lanes: Mapping[str, float]
    disk_bytes: int
    upload_bytes: int
    download_bytes: int
    prompt_tokens: int
    generated_tokens: int
    last_pass: PassesDone | None
    device_pages: int
    host_pages: int
    disk_pages: int
    kept_pages: int
    stored_tokens: int
    reserved_pages: int

    @property
    def used_pages(self) -> int:
        """Pages that sequences hold."""
        return self.device_pages + self.host_pages + self.disk_pages


@dataclass(slots=True)
class BlockCounts:
    """What a generation counts for it."""

    reserved_pages: int
    set_aside: int = 0
    generated_tokens: int = 0
    last_pass: PassesDone | None = None


def block_state(
    engine: Engine,
    measurements: Measurements,
    counts: BlockCounts,
    running: Sequence[Answer],
    waiting: int,
    entered: tuple[str, ...],
) -> BlockState:
    """How the block of an engine stands now."""
    plan, table = engine.plan, engine.cache.table
    held = {page for pages in table.pages.values() for page in pages}
    on_device = sum(page < plan.device_pages for page in held)
    on_disk = sum(page >= plan.num_pages - plan.disk_pages for page in held)
    up, down = engine.accelerator.copied_bytes() if engine.accelerator else (0, 0)
    return BlockState(
        running=len(running),
        waiting=waiting,
        set_aside=counts.set_aside,
        entered=entered,
        passes=sum(measurements.passes.values()),
        seconds=sum(measurements.seconds.values()),
        lanes=together_busy(measurements.lanes.values()),
        disk_bytes=engine.reader.bytes_read + (engine.disk_cache.file.bytes_read if engine.disk_cache else 0),
        upload_bytes=up,
        download_bytes=down,
        prompt_tokens=measurements.tokens["prefill"],
        generated_tokens=counts.generated_tokens,
        last_pass=counts.last_pass,
        device_pages=on_device,
        host_pages=len(held) - on_device - on_disk,
        disk_pages=on_disk,
        kept_pages=len(table.resting),
        stored_tokens=sum(sequence.cached for sequence in running),
        reserved_pages=counts.reserved_pages,
    )
