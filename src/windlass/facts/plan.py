"""Where every byte will live and in which pieces the work is done: the planner's decision, the runner's orders."""

from dataclasses import asdict, dataclass

from windlass.units import format_bytes, format_size


@dataclass(frozen=True, slots=True)
class Slice:
    """What is lent at once during a pass: a layer, or a part of the head. `kind` is "layer" or "head".

    `streamed_bytes` arrive each pass, `disk_bytes` of them from disk and the others from host memory. `buffer_bytes`
    is what they take in the ring where they arrive, `disk_buffer_bytes` in the ring that disk reads fill.
    """

    name: str
    kind: str
    resident_bytes: int
    streamed_bytes: int
    disk_bytes: int
    buffer_bytes: int
    disk_buffer_bytes: int


@dataclass(frozen=True, slots=True)
class MemoryBill:
    """The budget of one memory, divided. Every field is bytes; together they stay within `budget`.

    base         interpreter, libraries and tokenizer, measured after they loaded; on a device its context
    resident     weights that stay
    ring         weights passing through
    expert_ring  experts passing through
    cache        keys and values
    row          the hidden states of a pass
    activations  what a layer needs for its largest micro-batch, measured in a dry run
    scratch      logits, embedding rows, copies on their way over the link
    conversions  what casts and merges of streamed weights need while they are lent
    """

    budget: int
    base: int
    resident: int
    ring: int
    expert_ring: int
    cache: int
    row: int
    activations: int
    scratch: int
    conversions: int = 0

    @property
    def spare(self) -> int:
        """Bytes of the budget that nothing needs."""
        needed = self.base + self.resident + self.ring + self.expert_ring
        return self.budget - needed - self.cache - self.row - self.activations - self.scratch - self.conversions


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole run, decided. `resident` holds the keys of the parameter sources that stay where the model computes.

    A block of `block_size` sequences is in the model at once; a pass takes at most `pass_tokens` tokens and a layer
    computes them `micro_batch_tokens` at a time. Keys and values lie in `num_pages` pages of `page_tokens` tokens.

    Where the model computes on a device, `memory` is the device's and `host` the bill of the process's own memory:
    there stay the sources of `host_resident`, which cross the link each pass, and `host_pages` of the pages, whose
    decode attention runs on the host. The last `disk_pages` pages lie on disk, in the offload folder. With
    `row_on_host` the hidden states of a pass rest in host memory between layers. `micro_batch_sequences` cuts passes
    that only decode, None where nothing but `micro_batch_tokens` does. `kv_cache_dtype` is what full pages are packed
    to; a page that is not full has a place where the model computes, one for each sequence of the block.
    """

    model: str
    device: str
    dtype: str
    block_size: int
    pass_tokens: int
    micro_batch_tokens: int
    page_tokens: int
    num_pages: int
    slices: tuple[Slice, ...]
    resident: frozenset[str]
    memory: MemoryBill
    host: MemoryBill | None = None
    host_resident: frozenset[str] = frozenset()
    host_pages: int = 0
    disk_pages: int = 0
    row_on_host: bool = False
    micro_batch_sequences: int | None = None
    kv_cache_dtype: str = "auto"

    @property
    def device_pages(self) -> int:
        """Pages of keys and values that lie where the model computes."""
        return self.num_pages - self.host_pages - self.disk_pages

    @property
    def far_pages(self) -> int:
        """Pages beside a device, whose attention the host computes while the device goes on."""
        return self.host_pages + self.disk_pages if self.host is not None else 0

    @property
    def host_bill(self) -> MemoryBill:
        """The bill of the process's own memory, whatever computes."""
        return self.host or self.memory

    @property
    def disk_bytes(self) -> int:
        """Bytes every pass brings from disk, experts and embedding rows apart."""
        return sum(part.disk_bytes for part in self.slices)

    @property
    def streamed_bytes(self) -> int:
        """Bytes every pass brings to where the model computes, experts and embedding rows apart."""
        return sum(part.streamed_bytes for part in self.slices)

    @property
    def experts_travel(self) -> bool:
        """Whether some experts do not rest where the model computes."""
        return bool(self.memory.expert_ring or self.host_bill.expert_ring)

    def summary(self) -> dict[str, object]:
        """The plan for machines, but for its long lists."""
        return {
            "device": self.device,
            "dtype": self.dtype,
            "block_size": self.block_size,
            "micro_batch_tokens": self.micro_batch_tokens,
            "micro_batch_sequences": self.micro_batch_sequences,
            "streamed_bytes": self.streamed_bytes,
            "disk_bytes": self.disk_bytes,
            "kv_cache_dtype": self.kv_cache_dtype,
            "num_pages": self.num_pages,
            "host_pages": self.host_pages,
            "memory": asdict(self.memory),
            "host": asdict(self.host) if self.host else None,
        }

    def lines(self) -> list[str]:
        """The plan for people."""
        lines = [_bill_line("memory", self.memory, "interpreter and libraries")]
        if self.host is not None:
            lines = [
                _bill_line("device", self.memory, "context"),
                _bill_line("host", self.host, "interpreter and libraries"),
            ]
        block = f"block    {self.block_size} sequences, micro-batches of {self.micro_batch_tokens} tokens"
        if self.micro_batch_sequences is not None:
            block += f" ({self.micro_batch_sequences} in decode)"
        if self.kv_cache_dtype != "auto":
            block += f"; keys and values in {self.kv_cache_dtype}"
        if self.host_pages:
            block += f"; {self.host_pages / self.num_pages:.0%} of the keys and values in host memory"
        if self.disk_pages:
            block += f"; {self.disk_pages / self.num_pages:.0%} of the keys and values on disk"
        return [*lines, f"weights  {self._journey()}", block]

    def _journey(self) -> str:
        """What crosses which link in a pass; how many experts do is up to the tokens."""
        link = "from disk" if self.host_bill.expert_ring else "over the link"
        experts = f"experts that do not stay come {link} when tokens want them"
        if not self.streamed_bytes:
            return f"all resident but experts; {experts}" if self.experts_travel else "all resident"
        beside = f"; {experts}" if self.experts_travel else ""
        if self.host is None:
            return f"{format_bytes(self.disk_bytes)} from disk a pass{beside}"
        from_disk = f", {format_bytes(self.disk_bytes)} of them from disk" if self.disk_bytes else ""
        return f"{format_bytes(self.streamed_bytes)} over the link a pass{from_disk}{beside}"


def _bill_line(name: str, bill: MemoryBill, base: str) -> str:
    return (
        f"{name:8s} {format_size(bill.budget)} budget: {format_size(bill.base)} {base}, "
        f"{format_size(bill.resident)} resident weights, {format_size(bill.ring + bill.expert_ring)} ring, "
        f"{format_size(bill.cache)} keys and values, "
        f"{format_size(bill.row + bill.activations)} activations, "
        f"{format_size(bill.scratch + bill.conversions)} other buffers, {format_size(bill.spare)} spare"
    )
