"""Rows read from disk are the rows of the table, whatever their pattern, in bounded memory."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from windlass.facts.disk_profile import DiskProfile
from windlass.facts.piece import BLOCK
from windlass.facts.safetensors_header import read_header
from windlass.facts.tensor_fact import TensorFact
from windlass.memory import rows
from windlass.memory.disk import DiskReader
from windlass.memory.rows import read_rows
from windlass.units import KIB

TABLE = torch.randn(3000, 24).to(torch.bfloat16)


@pytest.fixture(scope="module")
def fact(tmp_path_factory: pytest.TempPathFactory) -> TensorFact:
    path = tmp_path_factory.mktemp("table") / "model.safetensors"
    save_file({"before": torch.ones(77, dtype=torch.uint8), "embed": TABLE, "wide": torch.randn(40, 5000)}, path)
    return next(fact for fact in read_header(path) if fact.name == "embed")


@pytest.fixture(scope="module")
def reader() -> Iterator[DiskReader]:
    reader = DiskReader(DiskProfile(0.0, 16 * BLOCK, 8, True, "a test"))
    yield reader
    reader.close()


def rows_of(reader: DiskReader, fact: TensorFact, indices: list[int], limit: int) -> torch.Tensor:
    out = torch.full((len(indices), fact.shape[1]), float("nan"), dtype=TABLE.dtype)
    read_rows(reader, fact, indices, out, limit)
    return out


@settings(max_examples=40)
@given(st.lists(st.integers(0, 2999), max_size=200, unique=True), st.sampled_from([1, 16 * KIB, 64 * KIB, 1 << 20]))
def test_any_rows_are_those_of_the_table(reader: DiskReader, fact: TensorFact, picks: list[int], limit: int) -> None:
    indices = sorted(picks)
    assert torch.equal(rows_of(reader, fact, indices, limit), TABLE[indices])


def test_the_whole_table_is_read_in_little_scratch(reader: DiskReader, fact: TensorFact) -> None:
    assert torch.equal(rows_of(reader, fact, list(range(3000)), 32 * KIB), TABLE)


@pytest.mark.parametrize("limit", [1, 20 * KIB, 100 * KIB])
def test_scratch_stays_within_its_limit(
    monkeypatch: pytest.MonkeyPatch, reader: DiskReader, fact: TensorFact, limit: int
) -> None:
    sizes = []

    class Noted(rows.Arena):
        def __init__(self, nbytes: int) -> None:
            sizes.append(nbytes)
            super().__init__(nbytes)

    monkeypatch.setattr(rows, "Arena", Noted)
    rows_of(reader, fact, list(range(0, 3000, 7)), limit)
    assert 0 < max(sizes) <= max(limit, 4 * BLOCK)


def test_neighbouring_rows_are_one_read(monkeypatch: pytest.MonkeyPatch, reader: DiskReader, fact: TensorFact) -> None:
    monkeypatch.setattr(rows, "ROW_GAP", 1000)
    before = reader.bytes_read
    rows_of(reader, fact, [1000, 1001, 1010, 2900], 1 << 20)
    assert reader.bytes_read - before < 11 * 48 + 48 + 2 * BLOCK


def test_other_dtypes_and_wide_rows_are_read_too(reader: DiskReader, fact: TensorFact) -> None:
    wide = next(other for other in read_header(fact.file) if other.name == "wide")
    out = torch.empty(3, 5000)
    read_rows(reader, wide, [0, 20, 39], out, scratch_limit=1)
    whole = torch.empty(40, 5000)
    read_rows(reader, wide, list(range(40)), whole)
    assert torch.equal(out, whole[[0, 20, 39]]) and whole.std() > 0.9


@pytest.mark.parametrize("indices", [[2, 1], [1, 1], [-1, 0], [3000]])
def test_indices_that_do_not_rise_within_the_table_are_our_mistake(
    reader: DiskReader, fact: TensorFact, indices: list[int]
) -> None:
    with pytest.raises(AssertionError, match="must rise within 0 and 2999"):
        rows_of(reader, fact, indices, 1 << 20)
