"""Kernels compiled as for processors with fewer instructions than this one, or without torch's OpenMP."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from windlass.kernels.native import loading
from windlass.kernels.native.compiler import Compiler, Missing, find_compiler, processor
from windlass.settings import c_compiler

Library = TypeVar("Library")
Build = Callable[[Compiler, Path, tuple[str, ...]], Library | Missing]

# By flag: what a processor needs to run what is compiled with it.
NEEDS = {"-march=x86-64": "sse2", "-march=x86-64-v3": "avx2", "-march=x86-64-v4": "avx512f"}
OWN_THREADS = "threads of its own"


def built_for_others(kind: str, build: Build[Library], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """What `build` makes for the processor `kind`, one of NEEDS, or with OWN_THREADS; skips where it cannot run."""
    if kind in NEEDS and f" {NEEDS[kind]} " not in processor():
        pytest.skip(f"this processor has no {NEEDS[kind]}")
    compiler = find_compiler(c_compiler())
    if isinstance(compiler, Missing):
        pytest.skip(compiler.reason)
    if kind not in NEEDS:
        monkeypatch.setattr(loading, "THREADING", loading.THREADING[-1:])
    found = build(compiler, folder / "native", (kind,) if kind in NEEDS else ())
    assert not isinstance(found, Missing), found.reason
    return found
