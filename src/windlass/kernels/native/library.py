"""The native kernels of this process: found, compiled and loaded when first asked for, or the reason why not."""

import ctypes
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from windlass.kernels.native.compiler import Compiler, Missing, Recipe, compiled, find_compiler, native_flags
from windlass.settings import c_compiler, cache_folder, wants_native

SOURCE = Path(__file__).with_name("decode_attention.c")
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""As the C source numbers them."""

# With torch's OpenMP, else with threads of its own. Another OpenMP beside torch's would have two crews fight for the
# cores, so none is linked: the symbols are found where torch has loaded them, or loading fails.
THREADING = ((("-fopenmp",), ()), ((), ("-pthread",)))


class DecodeJob(ctypes.Structure):
    """`struct decode` of the C source."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in (
            "query", "keys", "values", "page", "start", "stop", "run_first", "run_owner", "partial", "partial_log",
            "out", "log_sum", "scratch",
        )),
        *((name, ctypes.c_int64) for name in (
            "kind", "sequences", "runs", "heads", "key_heads", "page_tokens", "key_dim", "value_dim", "threads",
            "scratch_size", "bits", "page_bytes", "key_scales_at", "values_at", "value_scales_at", "value_group",
        )),
        *((name, ctypes.c_float) for name in ("scaling", "softcap")),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class NativeLibrary:
    """`decode` fills what its job names, `scratch(G, Dk)` counts the floats of a thread, `packed_scratch(G, Dk, bits)`
    those for packed pages; `says` is for people."""

    path: Path
    dtypes: frozenset[torch.dtype]
    says: str
    decode: Callable[[DecodeJob], None]
    scratch: Callable[[int, int], int]
    packed_scratch: Callable[[int, int, int], int]


@cache
def native_library() -> NativeLibrary | Missing:
    """The library for this processor. The first call may take seconds, when a compiler runs."""
    if not wants_native():
        return Missing("WINDLASS_NATIVE is 0")
    if sys.platform not in ("linux", "darwin"):
        return Missing(f"native kernels are for Linux and macOS, this is {sys.platform}")
    compiler = find_compiler(c_compiler())
    return compiler if isinstance(compiler, Missing) else build(compiler, cache_folder() / "native", native_flags())


def build(compiler: Compiler, folder: Path, processor_flags: Sequence[str]) -> NativeLibrary | Missing:
    """Compiles if need be, and loads."""
    reasons = []
    for compiling, linking in THREADING:
        recipe = Recipe(SOURCE, (*processor_flags, *compiling), linking)
        path = compiled(recipe, compiler, folder)
        loaded = path if isinstance(path, Missing) else _load(path, compiler)
        if isinstance(loaded, NativeLibrary):
            return loaded
        reasons.append(loaded.reason)
    return Missing(reasons[-1])


def _load(path: Path, compiler: Compiler) -> NativeLibrary | Missing:
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return Missing(f"cannot load {path}: {error}")
    decode, scratch, kinds = library.windlass_decode_attention, library.windlass_scratch, library.windlass_kinds()
    decode.argtypes, decode.restype = [ctypes.POINTER(DecodeJob)], None
    scratch.argtypes, scratch.restype = [ctypes.c_int64, ctypes.c_int64], ctypes.c_int64
    packed_scratch = library.windlass_packed_scratch
    packed_scratch.argtypes, packed_scratch.restype = [ctypes.c_int64] * 3, ctypes.c_int64
    words = []
    for ask in (library.windlass_instructions, library.windlass_threads):
        ask.restype = ctypes.c_char_p
        words.append(ask().decode())
    dtypes = frozenset(dtype for dtype, kind in KINDS.items() if kinds >> kind & 1)
    says = f"{words[0]}, {words[1]}, compiled by {compiler.version or compiler.command[0]}"
    return NativeLibrary(path, dtypes, says, lambda job: decode(ctypes.byref(job)), scratch, packed_scratch)
