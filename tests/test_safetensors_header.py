"""A safetensors header is read as the safetensors library reads it, and foreign rubbish becomes one plain error."""

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from windlass.errors import CheckpointError
from windlass.facts.safetensors_header import read_header


def write(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


TENSORS = {
    "bf16": torch.randn(5, 3).to(torch.bfloat16),
    "f16": torch.randn(7).half(),
    "f32": torch.randn(2, 3, 4),
    "f64": torch.randn(3, dtype=torch.float64),
    "i8": torch.arange(-3, 4, dtype=torch.int8),
    "u8": torch.arange(5, dtype=torch.uint8),
    "i16": torch.arange(5, dtype=torch.int16),
    "i32": torch.arange(5, dtype=torch.int32),
    "i64": torch.arange(5),
    "bool": torch.tensor([True, False, True]),
    "f8": torch.randn(9).to(torch.float8_e4m3fn),
    "f8b": torch.randn(9).to(torch.float8_e5m2),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 4),
}


def test_names_dtypes_shapes_and_bytes_are_those_of_the_library(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path, metadata={"format": "pt"})
    content = path.read_bytes()
    facts = {fact.name: fact for fact in read_header(path)}
    with safe_open(path, "pt") as reference:
        assert set(facts) == set(reference.keys())
        for name, fact in facts.items():
            assert fact.dtype == reference.get_slice(name).get_dtype()
            assert list(fact.shape) == reference.get_slice(name).get_shape()
            expected = reference.get_tensor(name).contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            assert content[fact.offset : fact.end] == expected
            assert fact.nbytes == len(expected)
            assert fact.file == str(path)


def test_tensors_come_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.safetensors", {"b": entry([1], 0, 4), "c": entry([2], 8, 16), "a": entry([1], 4, 8)}, bytes(16)
    )
    assert [fact.name for fact in read_header(path)] == ["b", "a", "c"]


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "x.safetensors", {"a": entry([1], 0, 4)}, bytes(4))
    monkeypatch.chdir(tmp_path)
    assert read_header("x.safetensors")[0].file == os.path.join(os.getcwd(), "x.safetensors")


def test_spaces_after_the_header_are_padding(tmp_path: Path) -> None:
    raw = json.dumps({"a": entry([1], 0, 4)}).encode() + b"   "
    path = write(tmp_path / "x.safetensors", raw, bytes(4))
    assert read_header(path)[0].offset == 8 + len(raw)


def test_numbers_of_less_than_a_byte_are_counted_in_bits(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.safetensors", {"a": entry([3, 4], 0, 6, "F4"), "b": entry([4], 6, 9, "F6_E2M3")}, bytes(9)
    )
    assert [fact.nbytes for fact in read_header(path)] == [6, 3]


@pytest.mark.parametrize(
    ("header", "data", "words"),
    [
        (b"{", b"", "not JSON"),
        (b"\xff\xfe", b"", "not JSON"),
        (b"[" * 100_000, b"", "not JSON"),
        (b'{"a": 1, "a": 2}', b"", "'a' occurs twice"),
        ([1], b"", "must be a JSON object, found list"),
        ({"a": 3}, b"", "'a' is described by 3"),
        ({"a": entry([1], 0, 4, "F99")}, bytes(4), "unknown dtype 'F99'; known are BOOL"),
        ({"a": {"shape": [1], "data_offsets": [0, 4]}}, bytes(4), "unknown dtype None"),
        ({"a": entry([-1], 0, 4)}, bytes(4), "the shape [-1]"),
        ({"a": entry([True], 0, 4)}, bytes(4), "the shape [True]"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4]}}, bytes(4), "the offsets [4]"),
        ({"a": entry([1], 4, 0)}, bytes(4), "expected [begin, end]"),
        ({"a": entry([2], 0, 4)}, bytes(4), "shape [2] needs 8 bytes, its offsets give it 4"),
        ({"a": entry([10**30], 0, 4)}, bytes(4), "its offsets give it 4"),
        ({"a": entry([2], 0, 8), "b": entry([1], 4, 8)}, bytes(8), "'b' overlaps the tensor before it"),
        ({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12), "'b' leaves a hole before it"),
        ({"a": entry([1], 0, 4)}, bytes(5), "longer than its header says"),
    ],
)
def test_a_damaged_header_is_refused_with_the_flaw(tmp_path: Path, header: object, data: bytes, words: str) -> None:
    path = write(tmp_path / "x.safetensors", header, data)
    with pytest.raises(CheckpointError) as error:
        read_header(path)
    assert words in str(error.value) and str(path) in str(error.value)
    assert "Fetch or save the file again" in str(error.value)


def test_a_truncated_shard_says_how_much_was_expected_and_found(tmp_path: Path) -> None:
    path = tmp_path / "model-00001-of-00002.safetensors"
    save_file({"a": torch.zeros(1000, 1000)}, path)
    whole = path.stat().st_size
    os.truncate(path, whole - 1_500_000)
    with pytest.raises(CheckpointError) as error:
        read_header(path)
    assert str(error.value) == (
        f"{path} is damaged: the file is cut short: expected {whole:,} bytes, found {whole - 1_500_000:,}. "
        "Fetch or save the file again"
    )


@pytest.mark.parametrize(
    ("length", "words"), [(2**63, "at most 100,000,000 are allowed"), (5000, "cut short inside its header")]
)
def test_an_absurd_header_length_is_refused_without_reading_it(tmp_path: Path, length: int, words: str) -> None:
    path = write(tmp_path / "x.safetensors", {}, b"", length)
    with pytest.raises(CheckpointError, match=words):
        read_header(path)


def test_a_file_without_room_for_a_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"123")
    with pytest.raises(CheckpointError, match="the file has 3 bytes, a header needs at least 8"):
        read_header(path)


def test_a_git_lfs_pointer_is_called_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4096\n")
    with pytest.raises(CheckpointError, match="Git LFS pointer of .* run `git lfs pull`"):
        read_header(path)


def test_a_missing_file_is_an_error_of_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        read_header(tmp_path / "none.safetensors")


@given(st.binary(max_size=200))
def test_no_bytes_at_all_escape_as_another_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        read_header(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["F32", "data_offsets"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), JSON, min_size=1, max_size=3))
def test_no_json_at_all_escapes_as_another_error(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, object]
) -> None:
    path = write(tmp_path_factory.mktemp("fuzz") / "x.safetensors", header, bytes(4))
    with pytest.raises(CheckpointError):
        read_header(path)
