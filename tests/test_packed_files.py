"""What is packed, and where every byte of a packed checkpoint goes, known before anything is packed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.facts.packed_files import (
    MOST_PIECE_BYTES,
    index_json,
    output_files,
    pack_pieces,
    padded_shapes,
    parts_of,
)
from windlass.facts.packing_rule import Use, is_packed
from windlass.facts.safetensors_header import parse_header
from windlass.facts.tensor_fact import TensorFact

LAYERS = "model.layers"


@pytest.mark.parametrize(
    ("parameter", "use", "shape"),
    [
        ("model.layers.0.mlp.up_proj.weight", "linear", (96, 64)),
        ("model.layers.0.mlp.gate_proj.weight", "linear", (96, 64)),
        ("model.layers.11.mlp.experts.gate_up_proj", "expert", (96, 64)),
        ("model.layers.11.mlp.experts.gate_up_proj", "expert", (4, 96, 64)),
        ("model.layers.0.self_attn.q_proj.weight", "linear", (17, 33)),
    ],
)
def test_matrices_of_layers_are_packed(parameter: str, use: Use, shape: tuple[int, ...]) -> None:
    assert is_packed(parameter, use, shape, LAYERS)


@pytest.mark.parametrize(
    ("parameter", "use", "shape"),
    [
        ("model.embed_tokens.weight", "other", (128, 64)),
        ("lm_head.weight", "linear", (128, 64)),
        ("model.altup_projections.0.weight", "linear", (64, 64)),
        ("model.layers.0.input_layernorm.weight", "other", (64,)),
        ("model.layers.0.self_attn.q_proj.bias", "other", (64,)),
        ("model.layers.0.mlp.gate.weight", "linear", (64, 64)),
        ("model.layers.0.mlp.router.weight", "linear", (64, 64)),
        ("model.layers.0.mlp.router.layer.weight", "linear", (64, 64)),
        ("model.layers.0.mlp.shared_expert_gate.weight", "linear", (64, 64)),
        ("model.layers.0.altup.modality_router.weight", "linear", (64, 64)),
        ("model.layers.0.conv.weight", "other", (64, 1, 4)),
        ("model.layers.0.attn.c_attn.weight", "other", (64, 192)),
        ("model.layers.0.mlp.experts.gate_up_proj", "other", (4, 64, 192)),
        ("model.layers.0.odd.weight", "linear", (2, 64, 64)),
        ("model.layers.0.tiny.weight", "linear", (15, 64)),
        ("model.layers.0.tiny.weight", "linear", (64, 31)),
    ],
)
def test_everything_else_is_kept(parameter: str, use: Use, shape: tuple[int, ...]) -> None:
    assert not is_packed(parameter, use, shape, LAYERS)


def tensors(*shapes: tuple[int, ...], dtype: str = "BF16") -> list[TensorFact]:
    """Named a, b, ... and lying behind each other in one file."""
    found, at = [], 4000
    for name, shape in zip("abcdefgh", shapes, strict=False):
        size = 2
        for length in shape:
            size *= length
        found.append(TensorFact(name, dtype, shape, "/model/x.safetensors", at, size))
        at += size
    return found


def test_headers_are_what_safetensors_reads_and_data_begins_at_a_block() -> None:
    (file,) = output_files(tensors((40, 100), (64,), (3, 32, 64)), ["a", "c"], bits=4)
    size = len(file.header) + file.tensors[-1].offset + file.tensors[-1].nbytes - file.tensors[0].offset
    found = {fact.name: fact for fact in parse_header("out", file.header, size)}
    assert size == file.nbytes and len(file.header) % 4096 == 0
    assert (found["a"].dtype, found["a"].shape) == ("U8", (3, 2, 576))
    assert (found["b"].dtype, found["b"].shape) == ("BF16", (64,))
    assert (found["c"].dtype, found["c"].shape) == ("U8", (3, 2, 1, 576))
    assert {tensor.source.name: tensor.offset for tensor in file.tensors} == {n: f.offset for n, f in found.items()}
    assert padded_shapes([file]) == {"a": [40, 100]}


def test_a_tensor_of_odd_size_leaves_the_others_where_numbers_may_lie() -> None:
    odd = TensorFact("odd", "U8", (3,), "/model/a.safetensors", 100, 3)
    (file,) = output_files([odd, *tensors((64,), (16, 64))], ["b"], bits=8)
    places = {tensor.source.name: tensor.offset for tensor in file.tensors}
    assert places["a"] % 8 == places["b"] % 8 == 0 and places["odd"] == max(places.values())


@pytest.mark.parametrize("bits", [4, 8])
def test_pieces_cover_every_byte_of_the_files_once(bits: int) -> None:
    wide = MOST_PIECE_BYTES // 2 // 40  # 40 rows are a piece and a bit, 32 rows are one
    files = output_files(tensors((100, wide), (4, 40, 96), (MOST_PIECE_BYTES,)), ["a", "b"], bits, most=1 << 24)
    pieces = pack_pieces(files)
    assert len(files) > 1 and sum(piece.tensor == "a" for piece in pieces) == 4
    assert [piece.expert for piece in pieces if piece.tensor == "b"] == [0, 1, 2, 3]
    for file in files:
        at = len(file.header)
        for piece in (piece for piece in pieces if piece.target == file.name):
            assert piece.target_offset == at
            at += piece.target_nbytes
        assert at == file.nbytes
    for fact in {tensor.source for file in files for tensor in file.tensors}:
        of = [piece for piece in pieces if piece.tensor == fact.name]
        assert [piece.offset for piece in of] == [fact.offset + sum(p.nbytes for p in of[:i]) for i in range(len(of))]
        assert sum(piece.nbytes for piece in of) == fact.nbytes
    assert index_json(files)["weight_map"] == {t.source.name: f.name for f in files for t in f.tensors}


@given(start=st.integers(0, 30_000), length=st.integers(1, 30_000), most=st.integers(1, 40_000))
def test_parts_of_a_piece_cover_the_bytes_asked_for_and_no_row_of_blocks_more(
    start: int, length: int, most: int
) -> None:
    (file,) = output_files(tensors((200, 100), (64,)), ["a"], 4)
    for piece in pack_pieces([file]):
        first, last = max(start, piece.target_offset), min(start + length, piece.target_offset + piece.target_nbytes)
        parts = list(parts_of(piece, start, start + length, most))
        if first >= last:
            assert sum(part.target_nbytes for part in parts) == 0
            continue
        ends = [part.target_offset + part.target_nbytes for part in parts]
        assert [part.target_offset for part in parts[1:]] == ends[:-1]
        row, strip = (200, 2 * 576) if piece.rows else (1, 1)
        assert first - strip < parts[0].target_offset <= first and last <= ends[-1] < last + strip
        assert all(part.nbytes <= max(most, 16 * row if piece.rows else 1) for part in parts)
        for part in parts:
            strips = (part.target_offset - piece.target_offset) // strip
            assert part.offset - piece.offset == (strips * 16 * row if piece.rows else strips)
            assert part.nbytes == part.rows * row or not piece.rows
