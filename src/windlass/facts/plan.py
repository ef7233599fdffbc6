"""Where every byte will live and in which pieces the work is done: the planner's decision, the runner's orders."""

from dataclasses import dataclass

from windlass.units import format_bytes, format_size


@dataclass(frozen=True, slots=True)
class Slice:
    """What is lent at once during a pass: a layer, or a part of the head. `streamed_bytes` come from disk each pass.

    `buffer_bytes` is what they take in the ring, alignment included. `kind` is "layer" or "head".
    """

    name: str
    kind: str
    resident_bytes: int
    streamed_bytes: int
    buffer_bytes: int


@dataclass(frozen=True, slots=True)
class MemoryBill:
    """The budget, divided. Every field is bytes; together they stay within `budget`.

    base         interpreter, libraries and tokenizer, measured after they loaded
    resident     weights that stay
    ring         weights passing through
    expert_ring  experts passing through
    cache        keys and values
    row          the hidden states of a pass
    activations  what a layer needs for its largest micro-batch, measured in a dry run
    scratch      logits, embedding rows, conversions of streamed weights
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

    @property
    def spare(self) -> int:
        """Bytes of the budget that nothing needs."""
        needed = self.base + self.resident + self.ring + self.expert_ring
        return self.budget - needed - self.cache - self.row - self.activations - self.scratch


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole run, decided. `resident` holds the keys of the parameter sources that stay in memory.

    A block of `block_size` sequences is in the model at once; a pass takes at most `pass_tokens` tokens and a layer
    computes them `micro_batch_tokens` at a time. Keys and values lie in `num_pages` pages of `page_tokens` tokens.
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

    @property
    def streamed_bytes(self) -> int:
        """Bytes every pass brings from disk, experts and embedding rows apart."""
        return sum(part.streamed_bytes for part in self.slices)

    def lines(self) -> list[str]:
        """The plan for people."""
        bill = self.memory
        return [
            f"memory   {format_size(bill.budget)} budget: {format_size(bill.base)} interpreter and libraries, "
            f"{format_size(bill.resident)} resident weights, {format_size(bill.ring + bill.expert_ring)} ring, "
            f"{format_size(bill.cache)} keys and values, "
            f"{format_size(bill.row + bill.activations + bill.scratch)} activations, {format_size(bill.spare)} spare",
            f"weights  {format_bytes(self.streamed_bytes)} from disk a pass"
            if self.streamed_bytes
            else "weights  all resident",
            f"block    {self.block_size} sequences, micro-batches of {self.micro_batch_tokens} tokens",
        ]
