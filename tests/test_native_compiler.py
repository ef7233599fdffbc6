"""Compiling: once, for the user alone, by whoever comes first; and without a compiler torch does it all."""

import logging
import os
import platform
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from windlass.kernels.backend import choose_decode, choose_products, decode_backend
from windlass.kernels.native import loading
from windlass.kernels.native.compiler import Compiler, Missing, Recipe, compiled, find_compiler
from windlass.kernels.native.library import NativeLibrary, build, native_library

CPU = torch.device("cpu")
# One more than any process of Linux ever has; the number of one that has ended may be given to another.
NO_PROCESS = 1 << 22
# Writes the same bytes wherever it is told to, and a line to a log for each compilation.
PRETENDS = """#!/bin/sh
case "$*" in *--version*) echo "pretended 1.0"; exit 0;; *" -c "*) echo one >> "$0.log";; esac
while [ $# -gt 1 ]; do [ "$1" = -o ] && printf library > "$2"; shift; done
"""


@pytest.fixture
def compiler(tmp_path: Path) -> Compiler:
    path = tmp_path / "pretended-cc"
    path.write_text(PRETENDS)
    path.chmod(0o755)
    found = find_compiler([str(path)])
    assert not isinstance(found, Missing)
    return found


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    source = tmp_path / "source" / "kernel.c"
    source.parent.mkdir()
    source.write_text("int nothing;")
    return Recipe(source, (), ())


@pytest.fixture
def asked_anew() -> Iterator[None]:
    """The library is looked for again in the test and after it."""
    native_library.cache_clear()
    yield
    native_library.cache_clear()


def compilations(compiler: Compiler) -> int:
    return Path(f"{compiler.command[0]}.log").read_text().count("one")


def test_it_is_compiled_once_into_a_folder_of_ones_own(compiler: Compiler, recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "native"
    first = compiled(recipe, compiler, folder)
    assert isinstance(first, Path) and first.read_text() == "library"
    assert compiled(recipe, compiler, folder) == first
    assert compilations(compiler) == 1
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(folder.iterdir()) == [first]


def test_another_source_or_flag_is_another_library(compiler: Compiler, recipe: Recipe, tmp_path: Path) -> None:
    first = compiled(recipe, compiler, tmp_path / "native")
    flagged = compiled(Recipe(recipe.source, ("-g",), ()), compiler, tmp_path / "native")
    recipe.source.with_name("lanes.h").write_text("/* changed */")
    assert len({first, flagged, compiled(recipe, compiler, tmp_path / "native")}) == 3


@pytest.mark.parametrize("damage", [b"", b"libr", b"someone else's"], ids=["empty", "truncated", "replaced"])
def test_a_damaged_library_is_compiled_again(compiler: Compiler, recipe: Recipe, tmp_path: Path, damage: bytes) -> None:
    first = compiled(recipe, compiler, tmp_path / "native")
    assert isinstance(first, Path)
    first.write_bytes(damage)
    again = compiled(recipe, compiler, tmp_path / "native")
    assert isinstance(again, Path) and again.read_text() == "library"
    assert compilations(compiler) == 2


def test_several_may_compile_at_once(compiler: Compiler, recipe: Recipe, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: compiled(recipe, compiler, tmp_path / "native"), range(4)))
    assert all(isinstance(path, Path) and path.read_text() == "library" for path in found)
    assert [path.suffix for path in (tmp_path / "native").iterdir()] == [".so"]


def test_what_a_killed_compilation_left_is_removed_by_the_next(
    compiler: Compiler, recipe: Recipe, tmp_path: Path
) -> None:
    """By its maker, where that can be told, else by its age; whoever still compiles is left alone."""
    folder, long_ago = tmp_path / "native", time.time() - 2 * 3600
    here = f"on-{platform.node()}"
    gone = [f"building-{NO_PROCESS}-{here}-a", "building-1-on-another-machine-a", "building-abc"]
    left = [f"building-{os.getpid()}-{here}-a", f"building-{NO_PROCESS}-on-another-machine-a", "building-def"]
    folder.mkdir(mode=0o700)
    for name in gone + left:
        (folder / name).mkdir()
        (folder / name / "object.o").write_text("half")
    for name in gone[1:]:
        os.utime(folder / name, (long_ago, long_ago))
    found = compiled(recipe, compiler, folder)
    assert isinstance(found, Path)
    assert {path.name for path in folder.iterdir()} == {found.name, *left}


def test_it_is_said_once_what_one_waits_for_and_where_it_is_kept(
    compiler: Compiler, recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "native"
    with caplog.at_level(logging.WARNING, "windlass"):
        for flags in ((), (), ("-g",)):
            compiled(Recipe(recipe.source, flags, ()), compiler, folder)
    assert compilations(compiler) == 2
    assert caplog.messages == [
        f"compiling kernels for this processor, which takes some seconds, once; they are kept in {folder}"
    ]


def test_what_is_there_already_is_used_without_a_word(
    compiler: Compiler, recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, elsewhere = tmp_path / "native", tmp_path / "other"
    first = compiled(recipe, compiler, folder)
    assert isinstance(first, Path)
    elsewhere.mkdir(mode=0o700)
    first.rename(elsewhere / first.name)
    caplog.clear()
    assert compiled(recipe, compiler, elsewhere) == elsewhere / first.name
    assert caplog.messages == [] and compilations(compiler) == 1


def test_a_folder_that_others_may_write_to_is_refused(compiler: Compiler, recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "native"
    folder.mkdir()
    folder.chmod(0o777)
    refused = compiled(recipe, compiler, folder)
    assert isinstance(refused, Missing) and "must be a folder of mode 700" in refused.reason
    assert list(folder.iterdir()) == []
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    os.symlink(tmp_path / "elsewhere", tmp_path / "link")
    assert isinstance(compiled(recipe, compiler, tmp_path / "link"), Missing)


def test_a_cache_that_cannot_be_made_is_a_reason(compiler: Compiler, recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = compiled(recipe, compiler, tmp_path / "file" / "native")
    assert isinstance(refused, Missing) and "set WINDLASS_CACHE" in refused.reason


def test_what_the_compiler_says_is_the_reason(compiler: Compiler, recipe: Recipe, tmp_path: Path) -> None:
    Path(compiler.command[0]).write_text("#!/bin/sh\necho 'unknown flag' >&2\nexit 1\n")
    refused = compiled(recipe, compiler, tmp_path / "native")
    assert isinstance(refused, Missing) and refused.reason.endswith("failed: unknown flag")
    assert list((tmp_path / "native").iterdir()) == []


def test_what_does_not_load_is_a_reason(compiler: Compiler, tmp_path: Path) -> None:
    refused = build(compiler, tmp_path / "native", ())
    assert isinstance(refused, Missing) and refused.reason.startswith("cannot load")


@pytest.mark.usefixtures("asked_anew")
@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [("WINDLASS_NATIVE", "0", "WINDLASS_NATIVE is 0"), ("CC", "no-such-cc", "no C compiler: there is no no-such-cc")],
)
def test_without_it_torch_attends_and_the_reason_is_kept(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(name, value)
    assert decode_backend().startswith(f"plain torch, since {reason}")
    for dtype in (torch.float32, torch.bfloat16):
        assert choose_decode(dtype, CPU, 3) == choose_products(dtype, CPU, 3)


@pytest.mark.usefixtures("asked_anew")
def test_other_systems_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading.sys, "platform", "win32")
    assert "this is win32" in decode_backend()


def test_dtypes_and_devices_that_it_cannot_read_are_torchs() -> None:
    assert choose_decode(torch.float64, CPU, 1).name != "native"
    assert choose_decode(torch.float32, torch.device("meta"), 1).name == "exact"


@pytest.mark.slow
def test_a_truncated_library_is_built_and_loaded_again(tmp_path: Path) -> None:
    compiler = find_compiler(())
    if isinstance(compiler, Missing):
        pytest.skip(compiler.reason)
    first = build(compiler, tmp_path / "native", ())
    assert isinstance(first, NativeLibrary)
    whole = first.path.read_bytes()
    first.path.unlink()  # what is loaded stays as it is
    first.path.write_bytes(whole[:1000])
    again = build(compiler, tmp_path / "native", ())
    assert isinstance(again, NativeLibrary) and len(again.path.read_bytes()) > 1000
