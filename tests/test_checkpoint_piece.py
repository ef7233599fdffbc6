"""A piece holds its tensors as the safetensors library reads them, without a copy, neighbours read in one go."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from windlass.errors import CheckpointError
from windlass.facts.disk_profile import DiskProfile
from windlass.facts.piece import BLOCK, Piece, plan_piece
from windlass.facts.safetensors_header import read_header
from windlass.facts.tensor_fact import TensorFact
from windlass.memory.arena import Arena
from windlass.memory.checkpoint import piece_reads, tensor_view, torch_dtype
from windlass.memory.disk import DiskReader

Fill = Callable[[Piece, int], Arena]


@pytest.fixture
def fill() -> Iterator[Fill]:
    """Reads a piece to an offset of an arena of just the size."""
    reader = DiskReader(DiskProfile(0.0, 4 * BLOCK, 4, True, "a test"))

    def read(piece: Piece, base: int = 0) -> Arena:
        arena = Arena(base + piece.nbytes)
        reader.read(piece_reads(piece, arena, base))
        return arena

    yield read
    reader.close()


TENSORS = {
    "f64": torch.randn(3, 5, dtype=torch.float64), "f32": torch.randn(1000), "f16": torch.randn(7, 9).half(),
    "bf16": torch.randn(33, 3).to(torch.bfloat16), "i64": torch.arange(9), "i32": torch.arange(9, dtype=torch.int32),
    "i16": torch.arange(9, dtype=torch.int16), "i8": torch.arange(-4, 5, dtype=torch.int8),
    "u8": torch.arange(9, dtype=torch.uint8), "bool": torch.tensor([True, False, True]),
    "f8_e4m3": torch.randn(9).to(torch.float8_e4m3fn), "f8_e5m2": torch.randn(9).to(torch.float8_e5m2),
    "c64": torch.randn(3, dtype=torch.complex64), "scalar": torch.tensor(1.5), "empty": torch.zeros(0, 3),
}  # fmt: skip


@pytest.mark.parametrize("base", [0, 3 * BLOCK])
def test_every_dtype_is_what_the_library_reads(tmp_path: Path, fill: Fill, base: int) -> None:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    facts = read_header(path)
    piece = plan_piece(facts)
    arena = fill(piece, base)
    reference = load_file(path)
    for fact in facts:
        tensor = tensor_view(arena, base, piece, fact)
        assert tensor.dtype == reference[fact.name].dtype and tensor.shape == reference[fact.name].shape
        assert torch.equal(
            tensor.contiguous().view(-1).view(torch.uint8), reference[fact.name].view(-1).view(torch.uint8)
        )


def test_views_share_the_bytes_of_the_arena(tmp_path: Path, fill: Fill) -> None:
    save_file({"a": torch.ones(8), "b": torch.ones(8)}, tmp_path / "x.safetensors")
    facts = read_header(tmp_path / "x.safetensors")
    piece = plan_piece(facts)
    arena = fill(piece, 0)
    for fact in facts:
        view = tensor_view(arena, 0, piece, fact)
        assert view.data_ptr() == arena.tensor(piece.places[fact.name], torch.uint8, (1,)).data_ptr()


@pytest.mark.parametrize(("odd", "dtype", "copied"), [(1, torch.bfloat16, True), (2, torch.bfloat16, False),
                                                      (2, torch.float32, True), (1, torch.int8, False)])  # fmt: skip
def test_only_an_offset_that_does_not_suit_the_item_is_copied(
    tmp_path: Path, fill: Fill, odd: int, dtype: torch.dtype, copied: bool
) -> None:
    data = torch.arange(6, dtype=torch.float32).to(dtype)
    name = {torch.bfloat16: "BF16", torch.float32: "F32", torch.int8: "I8"}[dtype]
    (tmp_path / "raw").write_bytes(bytes(odd) + data.view(torch.uint8).numpy().tobytes())
    fact = TensorFact("a", name, (2, 3), str(tmp_path / "raw"), odd, data.nbytes)
    piece = plan_piece([fact])
    arena = fill(piece, 0)
    view = tensor_view(arena, 0, piece, fact)
    assert torch.equal(view, data.view(2, 3))
    assert (view.data_ptr() != arena.tensor(odd, torch.uint8, (1,)).data_ptr()) == copied


def fact_at(name: str, offset: int, nbytes: int, file: str = "/x") -> TensorFact:
    return TensorFact(name, "U8", (nbytes,), file, offset, nbytes)


def test_neighbours_are_one_extent_and_what_is_far_is_another() -> None:
    piece = plan_piece([fact_at("c", 90_000, 10), fact_at("a", 5000, 100), fact_at("b", 9000, 5000)], gap=8192)
    assert [(extent.offset, extent.nbytes, at) for extent, at in piece.extents] == [
        (4096, 9904, 0),
        (86016, 3994, 12288),
    ]
    assert dict(piece.places) == {"a": 904, "b": 4904, "c": 12288 + 3984}
    assert piece.nbytes == 12288 + 4096


def test_tensors_of_different_files_never_share_an_extent() -> None:
    piece = plan_piece([fact_at("a", 0, 10, "/x"), fact_at("b", 10, 10, "/y")])
    assert [extent.file for extent, _ in piece.extents] == ["/x", "/y"]


SPANS = st.lists(
    st.tuples(st.integers(0, 50_000), st.integers(0, 5000), st.sampled_from("xy")), min_size=1, max_size=12
)


@given(SPANS, st.integers(0, 20_000))
def test_extents_hold_every_tensor_and_never_overlap(spans: list[tuple[int, int, str]], gap: int) -> None:
    facts, ends = [], {"x": 0, "y": 0}
    for number, (space, nbytes, file) in enumerate(spans):
        facts.append(fact_at(str(number), ends[file] + space, nbytes, file))
        ends[file] = facts[-1].end
    piece = plan_piece(facts, gap)
    assert piece.nbytes % BLOCK == 0 and set(piece.places) == {fact.name for fact in facts}
    used = 0
    for extent, at in piece.extents:
        assert extent.offset % BLOCK == 0 and at == used
        used += extent.nbytes + -extent.nbytes % BLOCK
    assert used == piece.nbytes
    for fact in facts:
        place = piece.places[fact.name]
        assert any(
            extent.file == fact.file and place - at == fact.offset - extent.offset and fact.end <= extent.end
            for extent, at in piece.extents
            if at <= place
        )


def test_a_dtype_that_torch_lacks_is_refused_by_name() -> None:
    fact = replace(fact_at("experts.w", 0, 6, "/x.safetensors"), dtype="F6_E2M3", shape=(8,))
    with pytest.raises(CheckpointError) as error:
        torch_dtype(fact)
    assert "tensor 'experts.w' of /x.safetensors is F6_E2M3" in str(error.value)
    assert "update torch or use another version of the checkpoint" in str(error.value)


def test_numbers_of_four_bits_come_in_pairs(fill: Fill, tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(range(8)))
    fact = TensorFact("a", "F4", (4, 4), str(tmp_path / "raw"), 0, 8)
    piece = plan_piece([fact])
    assert tensor_view(fill(piece, 0), 0, piece, fact).view(torch.uint8).tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
