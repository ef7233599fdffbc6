"""One C source of this folder, compiled for this processor and loaded into this process, or the reason why not."""

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from windlass.kernels.native.compiler import Compiler, Missing, Recipe, compiled, find_compiler, native_flags
from windlass.settings import c_compiler, cache_folder, wants_native

KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""As the C sources number them."""

# With torch's OpenMP, else with threads of its own. Another OpenMP beside torch's would have two crews fight for the
# cores, so none is linked: the symbols are found where torch has loaded them, or loading fails.
THREADING = ((("-fopenmp",), ()), ((), ("-pthread",)))


SHARED_WORK = 1 << 18
"""Numbers of a matrix, for each 8 rows of activations, below which one thread is done before others have begun."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The functions of one source; `dtypes` are those that it reads, `says` is for people."""

    path: Path
    functions: ctypes.CDLL
    dtypes: frozenset[torch.dtype]
    says: str


def threads_for(numbers: int, rows: int) -> int:
    """How many threads share a pass over `numbers` of a matrix for `rows` activations."""
    return torch.get_num_threads() if numbers * (1 + rows // 8) >= SHARED_WORK else 1


def load_here(source: str) -> Loaded | Missing:
    """For this processor and into the user's own cache. The first call may take seconds, when a compiler runs."""
    if not wants_native():
        return Missing("WINDLASS_NATIVE is 0")
    if sys.platform not in ("linux", "darwin"):
        return Missing(f"native kernels are for Linux and macOS, this is {sys.platform}")
    compiler = find_compiler(c_compiler())
    if isinstance(compiler, Missing):
        return compiler
    return load(source, compiler, cache_folder() / "native", native_flags())


def load(source: str, compiler: Compiler, folder: Path, processor_flags: Sequence[str]) -> Loaded | Missing:
    """Compiles `source`, a file's name, if need be, and loads it."""
    reasons = []
    for compiling, linking in THREADING:
        recipe = Recipe(Path(__file__).with_name(source), (*processor_flags, *compiling), linking)
        path = compiled(recipe, compiler, folder)
        loaded = path if isinstance(path, Missing) else _open(path, compiler)
        if isinstance(loaded, Loaded):
            return loaded
        reasons.append(loaded.reason)
    return Missing(reasons[-1])


def _open(path: Path, compiler: Compiler) -> Loaded | Missing:
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return Missing(f"cannot load {path}: {error}")
    words, kinds = [], library.windlass_kinds()
    for ask in (library.windlass_instructions, library.windlass_threads):
        ask.restype = ctypes.c_char_p
        words.append(ask().decode())
    dtypes = frozenset(dtype for dtype, kind in KINDS.items() if kinds >> kind & 1)
    return Loaded(
        path, library, dtypes, f"{words[0]}, {words[1]}, compiled by {compiler.version or compiler.command[0]}"
    )
