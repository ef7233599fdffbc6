"""Times products with packed matrices by rows of activations, beside torch's and the machine's own rates.

Run: python -m benchmarks packed_products [--rounds 10] [--outputs 4096] [--inputs 4096] [--packings int4 Q4_K awq]
Each case is verified against float64 before it is timed. Matrices take turns, so that none rests in a cache; the best
of the rounds counts, since whatever else runs on the machine only adds. `tiles` is what there is without the kernel:
unpacked by torch (GGUF's types by another kernel) and multiplied by torch. Mweights/s are of one thread. Percentages
are of what torch reads from memory and multiplies in bfloat16 here, measured in the same run.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F

from windlass.facts.packing import Packing
from windlass.kernels.backend import PackedChoice, choose_packed
from windlass.kernels.encodings.blocks import COLUMNS, INT4, INT8, ROWS, block_shape, join
from windlass.kernels.native.rows import TYPES
from windlass.kernels.packed_matrix import PackedMatrix
from windlass.kernels.packed_product import packed_linear, unpacked

ROW_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
WALKED = 96 << 20
"""Bytes of packed matrices that take turns: more than caches hold."""
LONGEST = 2.0
GROUP = 128
"""Columns that share a scale in other programs' formats."""
TILES = PackedChoice("tiles", "unpacked by tiles, multiplied by torch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, help="as many as torch takes by itself")
    parser.add_argument("--outputs", type=int, default=4096)
    parser.add_argument("--inputs", type=int, default=4096)
    parser.add_argument("--packings", nargs="+", default=["int4", "int8", "Q4_0", "Q4_K", "Q6_K", "Q8_0"])
    parser.add_argument("--rows", type=int, nargs="+", default=ROW_COUNTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    shape = (options.outputs, options.inputs)
    memory, arithmetic = memory_rate(options.rounds), arithmetic_rate(options.rounds)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, matrices of {shape}, best of {options.rounds}"
    )
    print(f"memory is read at {memory / 1e9:.1f} GB/s, bfloat16 is multiplied at {arithmetic / 1e9:.0f} GFLOP/s")
    print(
        f"{'matrix':11s} {'way':10s} {'rows':>5s} {'ms':>8s} {'GB/s':>7s} {'%':>4s} {'GFLOP/s':>8s} {'%':>4s}"
        f" {'Mweights/s':>10s}"
    )

    def say(name: str, way: str, rows: int, nbytes: int, seconds: float) -> None:
        read, done = nbytes / seconds, 2 * rows * shape[0] * shape[1] / seconds
        print(
            f"{name:11s} {way:10s} {rows:5d} {seconds * 1e3:8.3f} {read / 1e9:7.1f} {100 * read / memory:4.0f}"
            f" {done / 1e9:8.1f} {100 * done / arithmetic:4.0f}"
            f" {shape[0] * shape[1] / seconds / torch.get_num_threads() / 1e6:10.0f}",
            flush=True,
        )

    for name in options.packings:
        matrices = several(lambda seed, name=name: random_matrix(name, *shape, seed))
        for rows in options.rows:
            x = activations(rows, shape[1])
            for choice in dict.fromkeys((choose_packed(matrices[0], rows), TILES)):
                verify(packed_linear(matrices[0], x, choice), matrices[0], x)
                calls = [lambda m=m, c=choice, x=x: packed_linear(m, x, c) for m in matrices]
                say(name, choice.name, rows, matrices[0].nbytes, best(calls, options.rounds))
    for name, make in (("bfloat16", plain), ("torch int4", torch_int4)):
        calls_of = several(lambda seed, make=make: make(*shape))
        for rows in options.rows:
            x = activations(rows, shape[1])
            calls = [lambda call=call, x=x: call(x) for call in calls_of]
            nbytes = shape[0] * shape[1] * 2 if name == "bfloat16" else shape[0] * shape[1] * 9 // 16
            say(name, "torch", rows, nbytes, best(calls, options.rounds))


def several(make: Callable[[int], object]) -> list:
    """As many as memory is walked over by, at least three."""
    first = make(0)
    size = first.nbytes if isinstance(first, PackedMatrix) else 16 << 20
    return [first, *(make(seed) for seed in range(1, max(3, WALKED // size)))]


def activations(rows: int, columns: int) -> torch.Tensor:
    """bfloat16 (rows, columns)."""
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)).bfloat16()


def random_matrix(name: str, rows: int, columns: int, seed: int) -> PackedMatrix:
    """Any codes; scales of a weight's size."""
    draw = torch.Generator().manual_seed(seed)
    if name in TYPES:
        numbers, nbytes = TYPES[name]
        # Half-precision numbers lie anywhere in a block; bytes up to 0x3b make none that is large.
        blocks = torch.randint(0, 0x3C, (rows, columns // numbers * nbytes), dtype=torch.uint8, generator=draw)
        return PackedMatrix(Packing(name, 4, 32, 1), (rows, columns), {"blocks": blocks})
    if name in FOREIGN:
        packing, parts = FOREIGN[name]
        packing = replace(packing, group=packing.group or columns)
        return PackedMatrix(packing, (rows, columns), parts(rows, columns, draw))
    packing = {"int4": INT4, "int8": INT8}[name]
    high, deep, _ = block_shape(packing, rows, columns)
    low, most = (0, 16) if packing is INT4 else (-128, 128)
    codes = torch.randint(low, most, (high, deep, ROWS, COLUMNS), generator=draw)
    scales, offsets = torch.rand(2, high, deep, ROWS, generator=draw) * 0.01
    return PackedMatrix(packing, (rows, columns), {"blocks": join(packing, codes, scales, offsets)})


def any_words(*shape: int, draw: torch.Generator) -> torch.Tensor:
    """int32 of any bits."""
    return torch.randint(-(1 << 31), 1 << 31, shape, generator=draw).int()


def any_bytes(*shape: int, draw: torch.Generator, least: int = 0, most: int = 256) -> torch.Tensor:
    """uint8 from `least` to `most` - 1."""
    return torch.randint(least, most, shape, generator=draw).to(torch.uint8)


def any_scales(*shape: int, draw: torch.Generator) -> torch.Tensor:
    """float16 up to 0.01."""
    return (torch.rand(shape, generator=draw) * 0.01).half()


def awq(rows: int, columns: int, draw: torch.Generator) -> dict[str, torch.Tensor]:
    return {
        "codes": any_words(columns, rows // 8, draw=draw),
        "zeros": any_words(columns // GROUP, rows // 8, draw=draw),
        "scales": any_scales(columns // GROUP, rows, draw=draw),
    }


def gptq(rows: int, columns: int, draw: torch.Generator, bits: int = 4) -> dict[str, torch.Tensor]:
    return {
        "codes": any_words(columns * bits // 32, rows, draw=draw),
        "zeros": any_words(columns // GROUP, rows * bits // 32, draw=draw),
        "scales": any_scales(columns // GROUP, rows, draw=draw),
    }


def in_any_order(rows: int, columns: int, draw: torch.Generator) -> dict[str, torch.Tensor]:
    """Act-order."""
    groups = torch.randperm(columns, generator=draw) // GROUP
    return {**gptq(rows, columns, draw), "groups": groups.int()}


def packed_int(rows: int, columns: int, draw: torch.Generator, bits: int = 4) -> dict[str, torch.Tensor]:
    codes = any_words(rows, columns * bits // 32, draw=draw)
    return {"codes": codes, "scales": any_scales(rows, columns // GROUP, draw=draw)}


def plain_int(rows: int, columns: int, draw: torch.Generator) -> dict[str, torch.Tensor]:
    codes = any_bytes(rows, columns, draw=draw).view(torch.int8)
    return {"codes": codes, "scales": any_scales(rows, 1, draw=draw)}


def fp8(rows: int, columns: int, draw: torch.Generator) -> dict[str, torch.Tensor]:
    codes = torch.randn(rows, columns, generator=draw).to(torch.float8_e4m3fn)
    return {"codes": codes, "scales": any_scales(rows // GROUP, columns // GROUP, draw=draw).float()}


def mxfp4(rows: int, columns: int, draw: torch.Generator) -> dict[str, torch.Tensor]:
    codes = any_bytes(rows, columns // 32, 16, draw=draw)
    return {"codes": codes, "scales": any_bytes(rows, columns // 32, draw=draw, least=117, most=123)}


Parts = Callable[[int, int, torch.Generator], dict[str, torch.Tensor]]
FOREIGN: dict[str, tuple[Packing, Parts]] = {
    "awq": (Packing("awq", 4, GROUP), awq),
    "gptq-int4": (Packing("gptq", 4, GROUP, options=(("zero_shift", 1),)), gptq),
    "gptq-order": (Packing("gptq", 4, GROUP, options=(("zero_shift", 1),)), in_any_order),
    "gptq-int8": (Packing("gptq", 8, GROUP, options=(("zero_shift", 1),)), partial(gptq, bits=8)),
    "packed-int4": (Packing("packed-int", 4, GROUP), packed_int),
    "packed-int8": (Packing("packed-int", 8, GROUP), partial(packed_int, bits=8)),
    "plain-int8": (Packing("plain-int", 8, 0), plain_int),
    "fp8": (Packing("fp8", 8, GROUP, options=(("row_block", GROUP),)), fp8),
    "mxfp4": (Packing("mxfp4", 4, 32), mxfp4),
}
"""Other programs' formats as their readers give them, groups of 128, or a scale a row where that is 0."""


def plain(rows: int, columns: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """torch's own product of bfloat16."""
    weight = torch.randn(rows, columns).bfloat16()
    return lambda x: F.linear(x, weight)


def torch_int4(rows: int, columns: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """torch's product with 4-bit weights whose scale and zero are shared by 64 columns."""
    codes = torch.randint(0, 16, (rows, columns), dtype=torch.int32)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    ends = torch.rand(columns // 64, rows, 2).bfloat16()
    return lambda x: torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, 64, ends)


def verify(out: torch.Tensor, matrix: PackedMatrix, x: torch.Tensor) -> None:
    """Refuses to time what is wrong: some outputs against float64."""
    wanted = x.double() @ unpacked(matrix, 0, 64, torch.float32).double().T
    worst, limit = (out[:, :64] - wanted).abs().max().item(), 0.01 * wanted.abs().max().item()
    assert worst <= limit, f"{matrix.packing.name} differs from float64 by {worst:.2e}, more than {limit:.2e}"


def best(calls: Sequence[Callable[[], torch.Tensor]], rounds: int) -> float:
    """Seconds of one call: the best of all, each made once a round, until LONGEST seconds have gone by.

    Of one thread they are seconds that it ran, without those in which other work had its core.
    """
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    calls[0]()
    times: list[float] = []
    for call in [*calls] * rounds:
        start = clock()
        call()
        times.append(clock() - start)
        if sum(times) > LONGEST:
            break
    return min(times)


def memory_rate(rounds: int) -> float:
    """Bytes/s of reading more than caches hold."""
    memory = torch.ones(64 << 20)
    return memory.nbytes / best([memory.sum], rounds)


def arithmetic_rate(rounds: int) -> float:
    """FLOP/s of torch's largest bfloat16 products."""
    a, b = torch.randn(2, 1024, 4096).bfloat16()
    return 2 * 1024 * 1024 * 4096 / best([lambda: F.linear(a, b)], rounds)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
