"""The native packer of this process: found, compiled and loaded when first asked for, or the reason why not.

It has no threads of its own: a call gives the interpreter free, and who packs shares rows out to threads.
"""

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from windlass.kernels.native.compiler import Compiler, Missing, Recipe, compiled, find_compiler, native_flags
from windlass.settings import c_compiler, cache_folder, wants_native

SOURCE = Path(__file__).with_name("packer.c")
KINDS = {torch.float32: 0, torch.bfloat16: 1}
"""As the C source numbers them; others are made float32 first."""

EXACT = ("-ffp-contract=off",)
"""A fused product would round differently from torch."""


class PackingJob(ctypes.Structure):
    """`struct packing` of the C source."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in (
            "weights", "importance", "passing", "books", "starts", "blocks", "sums",
        )),
        *((name, ctypes.c_int64) for name in (
            "kind", "rows", "columns", "row_step", "bits", "start_count", "rounds",
        )),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class NativePacker:
    """`pack` fills the blocks that its job names and returns how many numbers were not finite.

    `by_cells` says whether the codebooks float32 (4, 16) at an address allow the fast way of finding levels.
    """

    pack: Callable[[PackingJob], int]
    by_cells: Callable[[int], int]


@cache
def native_packer() -> NativePacker | Missing:
    """The packer for this processor. The first call may take seconds, when a compiler runs."""
    if not wants_native():
        return Missing("WINDLASS_NATIVE is 0")
    if sys.platform not in ("linux", "darwin"):
        return Missing(f"native kernels are for Linux and macOS, this is {sys.platform}")
    compiler = find_compiler(c_compiler())
    return compiler if isinstance(compiler, Missing) else build(compiler, cache_folder() / "native", native_flags())


def build(compiler: Compiler, folder: Path, processor_flags: tuple[str, ...]) -> NativePacker | Missing:
    """Compiles if need be, and loads."""
    path = compiled(Recipe(SOURCE, (*processor_flags, *EXACT), ()), compiler, folder)
    if isinstance(path, Missing):
        return path
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return Missing(f"cannot load {path}: {error}")
    pack, by_cells = library.windlass_pack, library.windlass_packs_by_cells
    pack.argtypes, pack.restype = [ctypes.POINTER(PackingJob)], ctypes.c_int64
    by_cells.argtypes, by_cells.restype = [ctypes.c_void_p], ctypes.c_int
    return NativePacker(lambda job: pack(ctypes.byref(job)), by_cells)
