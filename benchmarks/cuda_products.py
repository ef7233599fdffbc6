"""Times the kernels for packed weights, and decode attention, on a CUDA device, beside what that card measures.

Run: PYTHONPATH=src python -m benchmarks cuda_products [--rows 1 4 16 64 256 2048]

Few rows are bound by the bytes of the weights, so their rate stands beside that of a copy; many by arithmetic, so
theirs stands beside torch's bfloat16 product of two large matrices, in the same run. Each product is verified against
plain torch before it is timed. Weights are many enough that no cache of the device holds them between two calls. The
device's own time is that of a graph of such calls; beside it stands how long the host takes to begin one.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle

import torch

from windlass.facts.attention_rule import AttentionRule
from windlass.facts.packing import Packing
from windlass.kernels.attention import decode_sizes
from windlass.kernels.attention_batch import AttentionBatch
from windlass.kernels.backend import choose_products
from windlass.kernels.cuda.backend import DeviceKernels, device_kernels
from windlass.kernels.cuda.product import device_linear, product_on
from windlass.kernels.cuda.timing import seconds
from windlass.kernels.decode_attention import decode_attention
from windlass.kernels.encodings.blocks import INT4, INT8, join
from windlass.kernels.encodings.table import ENCODINGS, unpack_rows
from windlass.kernels.packed_matrix import PackedMatrix
from windlass.kernels.page_store import PageStore
from windlass.kernels.token_span import TokenSpan
from windlass.units import GIB

DEVICE = torch.device("cuda")
SHAPES = ((4096, 4096), (14336, 4096), (4096, 14336))
"""(N, K) of a layer of 8 billion parameters."""
ROWS = (1, 4, 16, 64, 256, 2048)
UNCACHED_BYTES = GIB // 4
"""Of weights that are used in turn."""
GRAPH_RUNS = 64
"""Calls in a graph."""
GGUF = {"Q4_0": (32, 18, 4), "Q8_0": (32, 34, 8), "Q4_K": (256, 144, 4), "Q6_K": (256, 210, 6)}
"""Numbers and bytes of a block, and bits of a code."""
Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What this card measures, now: bytes/s read and written by a copy, operations/s of torch's bfloat16 product."""

    bandwidth: float
    arithmetic: float


def ceilings() -> Ceilings:
    """Of a copy of 1 GiB and of the product of two matrices of 8192."""
    source, target = torch.empty(2, GIB, dtype=torch.uint8, device=DEVICE)
    copied = 2 * GIB / seconds(lambda: target.copy_(source))
    square = torch.randn(8192, 8192, dtype=torch.bfloat16, device=DEVICE)
    return Ceilings(copied, 2 * 8192**3 / seconds(lambda: square @ square))


def own_matrix(packing: Packing, shape: tuple[int, int]) -> PackedMatrix:
    """Random codes of a size that a layer's weights have."""
    lead = (shape[0] // 16, shape[1] // 64)
    low, high, scale = (0, 16, 0.005) if packing is INT4 else (-128, 128, 0.0003)
    codes = torch.randint(low, high, (*lead, 16, 64), device=DEVICE)
    scales = (scale * (1 + torch.rand(*lead, 16, device=DEVICE))).bfloat16()
    return PackedMatrix(packing, shape, {"blocks": join(packing, codes, scales, 0.1 * scales)})


def gguf_matrix(name: str, shape: tuple[int, int]) -> PackedMatrix:
    """Random bytes with scales of 2^-10."""
    numbers, size, bits = GGUF[name]
    blocks = torch.randint(0, 256, (shape[0], shape[1] // numbers, size), dtype=torch.uint8, device=DEVICE)
    for at in {"Q4_K": (0, 2), "Q6_K": (208,)}.get(name, (0,)):
        blocks[..., at : at + 2] = torch.tensor([0, 20], dtype=torch.uint8)  # float16 2^-10
    return PackedMatrix(Packing(name, bits, numbers, row_step=1), shape, {"blocks": blocks.flatten(1)})


def verify(matrix: PackedMatrix, x: torch.Tensor) -> None:
    """Ends the run where a product is further from float64 than twice torch's distance."""
    exact = x.double() @ unpack_rows(matrix, 0, matrix.shape[0], torch.float64).T
    theirs = x @ unpack_rows(matrix, 0, matrix.shape[0], x.dtype).T
    ours = device_linear(matrix, x)
    if not (ours - exact).norm() <= 2 * (theirs - exact).norm():
        raise SystemExit(f"{matrix.packing.name} {matrix.shape} times {len(x)} rows is wrong: nothing was timed")


def in_turn(make: Callable[[], Run], nbytes: int) -> Run:
    """Runs on as many equal inputs in turn as no cache holds."""
    runs = cycle([make() for _ in range(max(1, -(-UNCACHED_BYTES // nbytes)))])
    return lambda: next(runs)()


def products(shape: tuple[int, int], rows: int) -> Iterator[tuple[str, int, Run]]:
    """Name, bytes of the weights, and the product, ours first."""
    x = torch.randn(rows, shape[1], dtype=torch.bfloat16, device=DEVICE)
    for packing in (INT4, INT8):
        matrix = own_matrix(packing, shape)
        verify(matrix, x)
        yield packing.name, matrix.nbytes, in_turn(lambda matrix=matrix: _linear(_copy(matrix), x), matrix.nbytes)
    for name in GGUF.keys() & ENCODINGS:
        matrix = gguf_matrix(name, shape)
        verify(matrix, x)
        yield name, matrix.nbytes, in_turn(lambda matrix=matrix: _linear(_copy(matrix), x), matrix.nbytes)
    dense = torch.randn(shape, dtype=torch.bfloat16, device=DEVICE)
    yield "torch bfloat16", dense.nbytes, in_turn(lambda: _dense(dense.clone(), x), dense.nbytes)
    if torch.cuda.get_device_capability() >= (8, 0):
        codes = torch.randint(0, 256, (shape[0], shape[1] // 2), dtype=torch.uint8, device=DEVICE)
        scales = torch.ones(shape[1] // 64, shape[0], 2, dtype=torch.bfloat16, device=DEVICE)
        packed = torch.ops.aten._convert_weight_to_int4pack(codes, 8)
        nbytes = packed.nbytes + scales.nbytes
        yield "torch int4", nbytes, in_turn(lambda: _int4(packed.clone(), scales.clone(), x), nbytes)


def _copy(matrix: PackedMatrix) -> PackedMatrix:
    return PackedMatrix(matrix.packing, matrix.shape, {role: part.clone() for role, part in matrix.parts.items()})


def _linear(matrix: PackedMatrix, x: torch.Tensor) -> Run:
    return lambda: device_linear(matrix, x)


def _dense(weight: torch.Tensor, x: torch.Tensor) -> Run:
    return lambda: x @ weight.T


def _int4(packed: torch.Tensor, scales: torch.Tensor, x: torch.Tensor) -> Run:
    return lambda: torch.ops.aten._weight_int4pack_mm(x, packed, 64, scales)


def in_a_graph(run: Run) -> tuple[float, float]:
    """Seconds that the device takes for a run, begun by itself, and that the host takes to begin one."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(GRAPH_RUNS):
        run()
    begun = (time.perf_counter() - begin) / GRAPH_RUNS
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(GRAPH_RUNS):
            run()
    return seconds(graph.replay) / GRAPH_RUNS, begun


def line(name: str, taken: float, nbytes: float, operations: float, card: Ceilings) -> str:
    """Both rates, and the larger share of what the card measures."""
    read, computed = nbytes / taken, operations / taken
    share = max(read / card.bandwidth, computed / card.arithmetic)
    return f"{name:34} {taken * 1e6:9.1f} us {read / 1e9:8.0f} GB/s {computed / 1e12:8.1f} TFLOP/s {share:7.0%}"


def product_lines(rows: tuple[int, ...], card: Ceilings) -> Iterator[str]:
    """Of all shapes."""
    for shape in SHAPES:
        for count in rows:
            yield f"\n{count} rows times ({shape[0]}, {shape[1]})"
            for name, nbytes, run in products(shape, count):
                moved = nbytes + 2 * count * sum(shape)
                taken, begun = in_a_graph(run)
                rates = line(name, taken, moved, 2 * count * shape[0] * shape[1], card)
                yield f"{rates}   begun in {begun * 1e6:.0f} us"


def unpacking_lines(card: Ceilings) -> Iterator[str]:
    """Bytes read and written."""
    yield "\nunpacking (4096, 14336) to bfloat16"
    product = product_on(DEVICE)
    for name in (INT4, INT8, *(GGUF.keys() & ENCODINGS)):
        matrix = gguf_matrix(name, SHAPES[2]) if isinstance(name, str) else own_matrix(name, SHAPES[2])
        run = in_turn(lambda matrix=matrix: _unpack(product, _copy(matrix)), matrix.nbytes)
        moved = matrix.nbytes + 2 * matrix.shape[0] * matrix.shape[1]
        yield line(matrix.packing.name, seconds(run), moved, 0.0, card)


def _unpack(product: object, matrix: PackedMatrix) -> Run:
    return lambda: product.unpack(matrix, 0, matrix.shape[0], torch.bfloat16)


def decode_lines(sequences: int, tokens: int, card: Ceilings) -> Iterator[str]:
    """Keys and values in bfloat16, by our kernel and by torch over gathered pages."""
    pages = tokens // 64
    store = PageStore(sequences * pages, 64, 8, 128, 8, 128, torch.bfloat16, DEVICE)
    store.keys.normal_()
    store.values.normal_()
    order = torch.randperm(store.num_pages).tolist()
    spans = [TokenSpan(s, 1, tokens - 1, order[s * pages : (s + 1) * pages]) for s in range(sequences)]
    rule = AttentionRule(128**-0.5)
    plan = AttentionBatch(spans, 64, DEVICE).decode_plan(rule, decode_sizes(32, store))
    query = torch.randn(sequences, 32, 128, dtype=torch.bfloat16, device=DEVICE)
    nbytes, operations = store.keys.nbytes * 2, 4 * sequences * tokens * 32 * 128
    yield f"\ndecode attention, {sequences} sequences of {tokens} tokens, 32 heads over 8 of 128"
    by_torch = choose_products(query.dtype, DEVICE, 4)
    for name, choice in (("our kernel", None), ("torch", by_torch)):
        taken = seconds(lambda choice=choice: decode_attention(query, store, plan, rule, choice=choice))
        yield line(name, taken, nbytes, operations, card)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    rows = tuple(parser.parse_args().rows)
    kernels = device_kernels()
    if not isinstance(kernels, DeviceKernels):
        raise SystemExit(f"no CUDA device to measure: {kernels.reason}")
    torch.manual_seed(0)
    card = ceilings()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {kernels.says}")
    print(f"a copy {card.bandwidth / 1e9:.0f} GB/s, bfloat16 products {card.arithmetic / 1e12:.0f} TFLOP/s")
    decoding = (decode_lines(sequences, tokens, card) for sequences, tokens in ((64, 2048), (4, 16384)))
    for part in (product_lines(rows, card), unpacking_lines(card), *decoding):
        for text in part:
            print(text, flush=True)


if __name__ == "__main__":
    main()
