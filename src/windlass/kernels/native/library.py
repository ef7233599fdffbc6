"""The native kernel of decode attention of this process: loaded when first asked for, or the reason why not."""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from windlass.kernels.native.compiler import Compiler, Missing
from windlass.kernels.native.loading import Loaded, load, load_here

SOURCE = "decode_attention.c"


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
    return _bound(load_here(SOURCE))


def build(compiler: Compiler, folder: Path, processor_flags: Sequence[str]) -> NativeLibrary | Missing:
    """Compiles if need be, and loads."""
    return _bound(load(SOURCE, compiler, folder, processor_flags))


def _bound(loaded: Loaded | Missing) -> NativeLibrary | Missing:
    if isinstance(loaded, Missing):
        return loaded
    decode, scratch = loaded.functions.windlass_decode_attention, loaded.functions.windlass_scratch
    decode.argtypes, decode.restype = [ctypes.POINTER(DecodeJob)], None
    scratch.argtypes, scratch.restype = [ctypes.c_int64, ctypes.c_int64], ctypes.c_int64
    packed_scratch = loaded.functions.windlass_packed_scratch
    packed_scratch.argtypes, packed_scratch.restype = [ctypes.c_int64] * 3, ctypes.c_int64
    return NativeLibrary(
        loaded.path, loaded.dtypes, loaded.says, lambda job: decode(ctypes.byref(job)), scratch, packed_scratch
    )
