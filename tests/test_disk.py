"""A disk reader brings exactly the bytes asked for, whole and in order, however the system cuts or refuses reads."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.errors import StorageError
from windlass.facts.disk_profile import DiskProfile
from windlass.facts.extent import Extent
from windlass.facts.piece import BLOCK
from windlass.memory import disk
from windlass.memory.arena import Arena
from windlass.memory.disk import O_DIRECT, DiskReader
from windlass.memory.ticket import ReaderClosed, Ticket

SIZE = 300_001
needs_direct = pytest.mark.skipif(not O_DIRECT, reason="this platform has no O_DIRECT")
Preadv = Callable[[int, list[memoryview], int], int]


def profile(direct: bool = True, chunk: int = 2 * BLOCK, depth: int = 4) -> DiskProfile:
    return DiskProfile(0.0, chunk, depth, direct, "a test")


@pytest.fixture
def content() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
def file(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "weights"
    path.write_bytes(content)
    return str(path)


@pytest.fixture(params=[True, False], ids=["direct", "buffered"])
def reader(request: pytest.FixtureRequest) -> Iterator[DiskReader]:
    reader = DiskReader(profile(request.param))
    yield reader
    reader.close()


def read(reader: DiskReader, file: str, offset: int, nbytes: int) -> bytes:
    size = nbytes + -nbytes % BLOCK
    arena = Arena(size + BLOCK)
    arena.view(size, BLOCK)[:] = b"\xa5" * BLOCK
    reader.read([(Extent(file, offset, nbytes), arena.view(0, size))])
    assert bytes(arena.view(size, BLOCK)) == b"\xa5" * BLOCK, "read past its target"
    return bytes(arena.view(0, nbytes))


def cut_reads(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Every read gives at most `most` bytes, as signals and network filesystems cause."""
    whole: Preadv = os.preadv
    monkeypatch.setattr(disk.os, "preadv", lambda fd, views, at: whole(fd, [views[0][:most]], at))


def fail_reads(monkeypatch: pytest.MonkeyPatch, number: int, only_direct: bool = False) -> None:
    """Reads fail with error `number`, if asked only those of descriptors opened for direct I/O."""
    whole: Preadv = os.preadv

    def preadv(fd: int, views: list[memoryview], at: int) -> int:
        if only_direct and fd not in direct:
            return whole(fd, views, at)
        raise OSError(number, os.strerror(number))

    opened, direct = os.open, set[int]()

    def open_and_note(path: str, flags: int) -> int:
        descriptor = opened(path, flags)
        direct.discard(descriptor)
        if flags & O_DIRECT:
            direct.add(descriptor)
        return descriptor

    monkeypatch.setattr(disk.os, "preadv", preadv)
    monkeypatch.setattr(disk.os, "open", open_and_note)


@settings(max_examples=30)
@given(blocks=st.integers(0, SIZE // BLOCK), nbytes=st.integers(1, SIZE), direct=st.booleans())
def test_any_aligned_extent_is_read_exactly(
    tmp_path_factory: pytest.TempPathFactory, blocks: int, nbytes: int, direct: bool
) -> None:
    content = bytes(number * number % 251 for number in range(SIZE))
    path = tmp_path_factory.mktemp("disk") / "weights"
    path.write_bytes(content)
    reader, offset = DiskReader(profile(direct)), blocks * BLOCK
    nbytes = min(nbytes, SIZE - offset)
    assert read(reader, str(path), offset, nbytes) == content[offset : offset + nbytes]
    assert reader.bytes_read == nbytes
    reader.close()


def test_the_end_of_a_file_that_is_no_block_is_read(reader: DiskReader, file: str, content: bytes) -> None:
    offset = SIZE // BLOCK * BLOCK
    assert read(reader, file, offset, SIZE - offset) == content[offset:]


@pytest.mark.parametrize("most", [1000, BLOCK, BLOCK + 1000])
def test_short_reads_go_on(
    monkeypatch: pytest.MonkeyPatch, reader: DiskReader, file: str, content: bytes, most: int
) -> None:
    if most < BLOCK and reader.profile.direct:
        pytest.skip("a direct read of less than a block makes no way")
    cut_reads(monkeypatch, most)
    assert read(reader, file, BLOCK, 5 * BLOCK + 77) == content[BLOCK : 6 * BLOCK + 77]


def test_many_extents_of_many_files_are_one_request(reader: DiskReader, tmp_path: Path) -> None:
    arena, reads = Arena(8 * BLOCK), []
    for number in range(8):
        (tmp_path / str(number)).write_bytes(bytes([number]) * 2 * BLOCK)
        reads.append((Extent(str(tmp_path / str(number)), BLOCK, 100), arena.view(number * BLOCK, BLOCK)))
    reader.read(reads)
    assert [bytes(arena.view(number * BLOCK, 100)) for number in range(8)] == [bytes([n]) * 100 for n in range(8)]


def test_requests_are_served_in_the_order_they_came(file: str) -> None:
    reader, arena, served = DiskReader(profile(depth=1)), Arena(BLOCK), list[Ticket]()
    tickets = [
        reader.submit([(Extent(file, number * BLOCK, BLOCK), arena.view(0, BLOCK))], served.append)
        for number in range(20)
    ]
    for ticket in tickets:
        ticket.wait()
    reader.close()
    assert served == tickets and all(ticket.done for ticket in tickets)


def test_what_is_waited_for_goes_before_what_is_read_ahead(file: str) -> None:
    reader, arena, served = DiskReader(profile(depth=1)), Arena(BLOCK), list[str]()
    gate = threading.Event()

    def ask(name: str, urgent: bool) -> Ticket:
        def note(_: Ticket) -> None:
            gate.wait()  # the first one holds the only thread until all have been asked for
            served.append(name)

        return reader.submit([(Extent(file, 0, BLOCK), arena.view(0, BLOCK))], note, urgent=urgent)

    tickets = [ask("first", True), ask("ahead", False), ask("further", False), ask("row", True), ask("expert", True)]
    gate.set()
    for ticket in tickets:
        ticket.wait()
    reader.close()
    assert served == ["first", "row", "expert", "ahead", "further"]


def test_an_empty_request_is_served_at_once(reader: DiskReader) -> None:
    ticket = reader.submit([])
    assert ticket.done
    ticket.wait()


def test_time_with_reads_in_flight_is_counted(reader: DiskReader, file: str) -> None:
    assert reader.busy_seconds == 0.0
    read(reader, file, 0, SIZE)
    assert 0.0 < reader.busy_seconds == reader.busy_seconds


@needs_direct
def test_a_filesystem_that_refuses_to_open_for_direct_reads_is_read_buffered(
    monkeypatch: pytest.MonkeyPatch, file: str, content: bytes
) -> None:
    opened = os.open

    def refuse(path: str, flags: int) -> int:
        if flags & O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return opened(path, flags)

    monkeypatch.setattr(disk.os, "open", refuse)
    reader = DiskReader(profile())
    assert read(reader, file, 0, SIZE) == content
    assert not reader.direct(file)
    reader.close()


@needs_direct
def test_a_filesystem_that_refuses_the_first_direct_read_is_read_buffered(
    monkeypatch: pytest.MonkeyPatch, file: str, content: bytes
) -> None:
    fail_reads(monkeypatch, errno.EINVAL, only_direct=True)
    reader = DiskReader(profile())
    assert reader.direct(file)
    assert read(reader, file, 0, SIZE) == content
    assert not reader.direct(file)
    reader.close()


def test_a_failing_disk_is_named_with_file_and_offset(
    monkeypatch: pytest.MonkeyPatch, reader: DiskReader, file: str
) -> None:
    fail_reads(monkeypatch, errno.EIO)
    with pytest.raises(StorageError) as error:
        read(reader, file, 2 * BLOCK, 10)
    assert f"{file} cannot be read at byte 8,192: Input/output error; check the disk's health" in str(error.value)


def test_a_file_cut_short_after_its_header_was_read_is_named(reader: DiskReader, file: str) -> None:
    os.truncate(file, 3 * BLOCK + 5)
    with pytest.raises(StorageError) as error:
        read(reader, file, 2 * BLOCK, 2 * BLOCK)
    assert f"{file} ends at byte {3 * BLOCK + 5:,}, but bytes to {4 * BLOCK:,} are needed" in str(error.value)
    assert "fetch the file again and start over" in str(error.value)


def test_a_missing_file_is_an_error_of_its_ticket_alone(reader: DiskReader, file: str, content: bytes) -> None:
    with pytest.raises(
        StorageError,
        match="none cannot be read at byte 0: No such file.*; it was there when the model was opened: put it",
    ):
        read(reader, file + "none", 0, 10 * BLOCK)
    assert read(reader, file, 0, 10) == content[:10]


def test_an_error_is_raised_at_every_wait(reader: DiskReader, file: str) -> None:
    arena = Arena(BLOCK)
    ticket = reader.submit([(Extent(file + "none", 0, 10), arena.view(0, BLOCK))])
    for _ in range(2):
        with pytest.raises(StorageError):
            ticket.wait()


def test_what_is_queued_when_the_reader_closes_is_dropped(monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    reader, arena = DiskReader(profile(depth=1)), Arena(BLOCK)
    both_asked = threading.Event()

    def close(_: Ticket) -> None:
        """Closes the queue behind the first request before the reader goes on to the second."""
        both_asked.wait()
        reader._closed = True

    first = reader.submit([(Extent(file, 0, 10), arena.view(0, BLOCK))], close)
    second = reader.submit([(Extent(file, 0, 10), arena.view(0, BLOCK))])
    both_asked.set()
    first.wait()
    with pytest.raises(ReaderClosed):
        second.wait()
    reader.close()


def test_closing_closes_every_file(reader: DiskReader, file: str) -> None:
    """Descriptors of this file are counted: others come and go with what else the process does."""

    def is_open(descriptor: str) -> bool:
        try:
            return os.path.samefile(f"/dev/fd/{descriptor}", file)
        except OSError:  # closed since it was listed
            return False

    def open_descriptors() -> int:
        return sum(map(is_open, os.listdir("/dev/fd")))

    assert open_descriptors() == 0
    reader.direct(file)
    assert open_descriptors() == 1
    reader.close()
    assert open_descriptors() == 0


@pytest.mark.parametrize(("offset", "room"), [(100, BLOCK), (0, 100)])
def test_an_extent_that_is_not_aligned_is_our_mistake(reader: DiskReader, file: str, offset: int, room: int) -> None:
    with pytest.raises(AssertionError):
        reader.submit([(Extent(file, offset, 100), memoryview(bytearray(room)))])
