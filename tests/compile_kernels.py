"""Compiles every kernel as it would be launched, for a device that need not be there: python compile_kernels.py 80.

What runs in the interpreter need not compile. Triton is told of a device of the given compute capability, and that
launches end where the device would begin.
"""

import sys
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from windlass.facts.packing import Packing
from windlass.kernels.cuda import launchers
from windlass.kernels.cuda.device_pages import stored_pages
from windlass.kernels.cuda.tile import product_tiles, row_tiles
from windlass.kernels.decode_runs import decode_runs, runs_on
from windlass.kernels.encodings.blocks import INT4, INT8, block_shape
from windlass.kernels.page_read import PageRead
from windlass.kernels.page_store import PageStore

TYPES = (torch.float32, torch.bfloat16, torch.float16)
MULTIPROCESSORS = 132


class AbsentDevice:
    """What Triton asks of a driver before it launches."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)


def compile_products() -> None:
    for packing in (INT4, INT8):
        for dtype in TYPES:
            compile_product(packing, (4096, 4096), dtype, 1)
        for shape in ((1000, 770), (1, 64), (16, 1)):  # sizes of 1, which Triton treats as constants, and ragged ones
            compile_product(packing, shape, torch.bfloat16, 4)


def compile_product(packing: Packing, shape: tuple[int, int], dtype: torch.dtype, step: int) -> None:
    """Every `step`th of the tiles that would be tried."""
    words = torch.empty(block_shape(packing, *shape), dtype=torch.uint8).view(torch.int32)
    launchers.unpack_blocks(words, shape, dtype)
    for tile in row_tiles(shape, MULTIPROCESSORS)[::step]:
        launchers.one_row(words, torch.empty(1, shape[1], dtype=dtype), shape, tile)
    for count in (2, 17, 100):
        for tile in product_tiles(shape, count, dtype.itemsize, MULTIPROCESSORS)[::step]:
            launchers.many_rows(words, torch.empty(count, shape[1], dtype=dtype), shape, tile)


def compile_unpacking() -> None:
    for name in launchers.GGUF_TYPES:
        launchers.unpack_gguf(name, torch.empty(4, 1, dtype=torch.uint8), (4, 256), torch.bfloat16)

    codes, zeros, scales = (torch.empty(64, 16, dtype=t) for t in (torch.int32, torch.int32, torch.float16))
    launchers.unpack_awq(codes, zeros[:2], scales.view(16, 64)[:2], 16, 64, torch.bfloat16)


def compile_decode() -> None:
    reads = [PageRead(0, 0, 0, 64), PageRead(1, 0, 0, 9), PageRead(2, 2, 3, 64)]
    runs = runs_on(torch.device("cpu"), decode_runs(reads, 3))
    for dtype in TYPES:
        for heads, key_heads, dim in ((32, 8, 128), (8, 8, 80), (128, 1, 64), (16, 8, 256)):
            store = PageStore(3, 64, key_heads, dim, key_heads, dim, dtype, "cpu")
            query = torch.empty(3, heads, dim, dtype=dtype)
            for softcap in (None, 30.0) if dim == 128 else (None,):
                launchers.decode_pages(query, stored_pages(store), runs, dim**-0.5, softcap)


def main() -> None:
    driver.set_active(AbsentDevice(int(sys.argv[1])))
    run, compiled = JITFunction.run, set()

    def compile_only(self: JITFunction, *given: Any, grid: Any, warmup: bool, **named: Any) -> Any:
        kernel = run(self, *given, grid=grid, warmup=True, **named)
        compiled.add((self.fn.__name__, kernel.hash))
        return kernel

    JITFunction.run = compile_only
    compile_products()
    compile_unpacking()
    compile_decode()
    names = {name for name, _ in compiled}
    print(f"{len(compiled)} kernels of {len(names)} names")


if __name__ == "__main__":
    main()
