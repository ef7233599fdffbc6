"""What a decode group reads, a run of pages of one sequence after the other: how the native kernel takes it.

Long sequences are several runs, so that few of them keep many threads busy. Where runs are cut depends on the reads
alone, never on the number of threads.

Legend: S sequences, U runs, r reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from windlass.kernels.page_read import PageRead

RUN_TOKENS = 512
"""A run ends with the page that reaches so many tokens. Adding up runs costs a hundredth of reading so many."""


@dataclass(frozen=True, slots=True)
class DecodeRuns:
    """Run u of sequence owner[u] reads slots start[i] .. stop[i] of page[i], for i in first[u] .. first[u + 1].

    All int32 on the host: page, start and stop (r,), first (U + 1,), owner (U,), which never falls.
    """

    page: torch.Tensor
    start: torch.Tensor
    stop: torch.Tensor
    first: torch.Tensor
    owner: torch.Tensor
    sequences: int
    highest_page: int
    one_each: bool
    """Whether run i is all of sequence i."""

    @property
    def count(self) -> int:
        """U."""
        return len(self.owner)


@dataclass(frozen=True, slots=True)
class DeviceRuns:
    """`DecodeRuns` on a device; sequence s has the runs first_run[s] .. first_run[s + 1], int32.

    Tensors may be longer than what they hold.
    """

    page: torch.Tensor
    start: torch.Tensor
    stop: torch.Tensor
    first: torch.Tensor
    owner: torch.Tensor
    first_run: torch.Tensor
    sequences: int
    count: int
    one_each: bool


def runs_on(device: torch.device, runs: DecodeRuns) -> DeviceRuns:
    """The same runs, carried to a device in one copy."""
    begins = torch.searchsorted(runs.owner, torch.arange(runs.sequences + 1, dtype=torch.int32), out_int32=True)
    # Each part begins at a multiple of 16 bytes: Triton compiles anew for every way in which they do and do not.
    parts = [
        functional.pad(part, (0, -len(part) % 4))
        for part in (runs.page, runs.start, runs.stop, runs.first, runs.owner, begins)
    ]
    page, start, stop, first, owner, first_run = torch.cat(parts).to(device).split([len(part) for part in parts])
    return DeviceRuns(page, start, stop, first, owner, first_run, runs.sequences, runs.count, runs.one_each)


def decode_runs(reads: Sequence[PageRead], sequences: int) -> DecodeRuns:
    """The runs of some reads in any order."""
    by_owner = sorted(reads, key=lambda read: read.owner)
    first, owner, tokens = [0], list[int](), 0
    for at, read in enumerate(by_owner):
        if not owner or read.owner != owner[-1] or tokens >= RUN_TOKENS:
            if owner:
                first.append(at)
            owner.append(read.owner)
            tokens = 0
        tokens += read.stop - read.start
    first.append(len(by_owner))
    assert all(0 <= read.start < read.stop and 0 <= read.owner < sequences and read.page >= 0 for read in by_owner)
    return DecodeRuns(
        _index([read.page for read in by_owner]),
        _index([read.start for read in by_owner]),
        _index([read.stop for read in by_owner]),
        _index(first),
        _index(owner),
        sequences,
        max(read.page for read in by_owner),
        owner == [*range(sequences)],
    )


def _index(values: Sequence[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)
