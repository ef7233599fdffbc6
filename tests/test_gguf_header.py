"""Headers of GGUF files: what the gguf package writes is read, whatever is wrong with one is an error in one line."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gguf_models import finish
from windlass.errors import CheckpointError, ModelError, ModelNotFound, UnsupportedModel
from windlass.facts.gguf_header import read_gguf_header
from windlass.facts.gguf_model import gguf_in, read_gguf


def written(path: Path) -> Path:
    """A small file with values of every type and tensors of three."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint8("a.u8", 200)
    writer.add_int8("a.i8", -3)
    writer.add_uint16("a.u16", 60_000)
    writer.add_int16("a.i16", -30_000)
    writer.add_uint64("a.u64", 1 << 60)
    writer.add_int64("a.i64", -(1 << 60))
    writer.add_float32("a.f32", 0.5)
    writer.add_float64("a.f64", 0.1)
    writer.add_bool("a.bool", True)
    writer.add_string("a.text", "Ωmega")
    writer.add_array("a.texts", ["", "ab", "東京"])
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_array("a.flags", [True, False])
    draw = np.random.default_rng(0)
    writer.add_tensor("x", draw.standard_normal((3, 64), dtype=np.float32))
    writer.add_tensor("y", draw.standard_normal((2, 5, 32)).astype(np.float16))
    blocks = draw.integers(0, 256, (4, 34), dtype=np.uint8)
    writer.add_tensor("z", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    finish(writer)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path / "model.gguf")


def test_values_and_tensors_are_those_that_the_gguf_package_reads(file: Path) -> None:
    header, theirs = read_gguf_header(file), gguf.GGUFReader(file)
    found = {name: value if np.isscalar(value) else list(value) for name, value in header.metadata.items()}
    assert found == {name: field.contents() for name, field in theirs.fields.items() if name[:5] != "GGUF."}
    content = file.read_bytes()
    for fact, tensor in zip(header.tensors, theirs.tensors, strict=True):
        assert (fact.name, fact.dtype) == (tensor.name, tensor.tensor_type.name)
        assert fact.shape == tuple(int(size) for size in reversed(tensor.shape))
        assert content[fact.offset : fact.end] == tensor.data.tobytes()


def test_a_file_cut_anywhere_is_refused(file: Path) -> None:
    content, end = file.read_bytes(), max(fact.end for fact in read_gguf_header(file).tensors)
    for length in (*range(0, end, 7), end - 1):
        file.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"model\.gguf is damaged: .* Fetch the file again"):
            read_gguf_header(file)


def begun(values: bytes, tensors: int = 0, count: int = 1, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, count) + values


def named(name: bytes, kind: int) -> bytes:
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind)


HOSTILE = {
    "no GGUF": (b"not a GGUF file at all, though long enough", "begins with b'not '"),
    "an endless string": (begun(struct.pack("<Q", 1 << 62)), "a string of"),
    "an endless array of texts": (begun(named(b"a", 9) + struct.pack("<IQ", 8, 1 << 61)), "strings of 'a'"),
    "an endless array of numbers": (begun(named(b"a", 9) + struct.pack("<IQ", 0, 1 << 62)), "numbers of 'a'"),
    "an array of arrays": (begun(named(b"a", 9) + struct.pack("<IQ", 9, 1 << 62)), "items of the type 9"),
    "an unknown type": (begun(named(b"a", 77)), "unknown type 77"),
    "endless values": (begun(named(b"a", 0) + b"\1", count=1 << 62), "begins a number"),
    "endless tensors": (begun(b"", tensors=1 << 62, count=0), "begins a number"),
    "a value twice": (begun(2 * (named(b"a", 0) + b"\1"), count=2), "'a' occurs twice"),
    "an alignment of nothing": (begun(named(b"general.alignment", 4) + struct.pack("<I", 0)), "a power of two"),
    "dimensions": (begun(struct.pack("<Q1sI", 1, b"t", 1 << 30), tensors=1, count=0), "1073741824 dimensions"),
    "a tensor of everything": (
        begun(struct.pack("<Q1sI4QIQ", 1, b"t", 4, *[1 << 62] * 4, 0, 0), tensors=1, count=0),
        "is cut short: tensor 't'",
    ),
    "half a block": (
        begun(struct.pack("<Q1sIQIQ", 1, b"t", 1, 33, 8, 0), tensors=1, count=0),
        "rows of 33 numbers, Q8_0 has blocks of 32",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_refused_at_once(name: str, tmp_path: Path) -> None:
    content, flaw = HOSTILE[name]
    file = tmp_path / "model.gguf"
    file.write_bytes(content + bytes(64 if name == "an alignment of nothing" else 0))
    with pytest.raises(CheckpointError, match=f"{flaw}"):
        read_gguf_header(file)


@given(place=st.integers(0, 900), byte=st.integers(0, 255))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_byte_changed_anywhere_is_read_or_refused(place: int, byte: int, file: Path) -> None:
    content = bytearray(file.read_bytes())
    before, content[place] = content[place], byte
    file.write_bytes(content)
    try:
        header = read_gguf_header(file)
        assert all(fact.end <= len(content) for fact in header.tensors)
    except ModelError as error:
        assert str(file) in str(error)
    content[place] = before
    file.write_bytes(content)


def test_other_versions_and_types_are_not_read(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(begun(b"", count=0, version=1))
    with pytest.raises(UnsupportedModel, match="version 1 .*fetch a newer file"):
        read_gguf_header(file)
    file.write_bytes(begun(struct.pack("<Q1sIQIQ", 1, b"t", 1, 32, 99, 0), tensors=1, count=0))
    with pytest.raises(UnsupportedModel, match=r"tensor t has the GGUF type number 99.*Q4_K_M"):
        read_gguf_header(file)


def test_a_git_lfs_pointer_is_named(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match="Git LFS pointer.*git lfs pull"):
        read_gguf_header(file)


class TestSets:
    """A model in several files, any of which may be given."""

    @pytest.fixture
    def files(self, tmp_path: Path) -> list[Path]:
        writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=2)
        writer.add_string("general.name", "whole")
        for name in "abcde":
            writer.add_tensor(name, np.full((2, 32), ord(name), dtype=np.float32))
        finish(writer)
        return sorted(tmp_path.glob("*.gguf"))

    def test_any_file_gives_the_whole_model(self, files: list[Path]) -> None:
        assert len(files) == 3
        for given_file in files:
            model = read_gguf(given_file)
            assert (model.path, sorted(model.tensors), model.text("general.name")) == (files[0], list("abcde"), "whole")
            for name, fact in model.tensors.items():
                content = Path(fact.file).read_bytes()[fact.offset : fact.end]
                assert (np.frombuffer(content, dtype=np.float32) == ord(name)).all()

    def test_a_missing_file_is_named(self, files: list[Path]) -> None:
        files[1].unlink()
        with pytest.raises(CheckpointError, match=r"lacks 1 of 3 files of the model: m-00002-of-00003\.gguf"):
            read_gguf(files[0])

    def test_a_file_under_another_name_is_told_how_to_be_called(self, files: list[Path]) -> None:
        other = files[0].rename(files[0].with_name("first.gguf"))
        with pytest.raises(CheckpointError, match=r"one of a set of 3 files.*NAME-00001-of-00003\.gguf"):
            read_gguf(other)

    def test_files_of_two_sets_do_not_mix(self, files: list[Path]) -> None:
        files[1].write_bytes(files[2].read_bytes())
        with pytest.raises(CheckpointError, match="tensor 'e' is in both"):
            read_gguf(files[0])

    def test_a_folder_holds_one_model(self, files: list[Path], tmp_path: Path) -> None:
        (tmp_path / "mmproj-m.gguf").write_bytes(b"")
        assert gguf_in(tmp_path) == files[0]
        written(tmp_path / "other.gguf")
        with pytest.raises(ModelNotFound, match=r"holds 2 GGUF models \(m-00001-of-00003\.gguf, other\.gguf\)"):
            gguf_in(tmp_path)
