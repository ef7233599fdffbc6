"""Packs matrices as other people's formats lay them out, written from their definitions: what the readers must undo.

Each packer draws codes, zero points and scales, and gives the raw tensors by the end of their names together with the
numbers that they stand for (N, K) in float32, which are computed from what was drawn, not from what was packed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # half byte i of a word holds column AWQ_ORDER[i] of its eight


@dataclass(frozen=True)
class Packed:
    """Raw tensors by the end of their names, and the numbers they stand for."""

    raw: dict[str, torch.Tensor]
    dense: torch.Tensor


@dataclass(frozen=True)
class Format:
    """A way to pack every matrix of a model: what config.json says of it, and how one is drawn."""

    name: str
    settings: dict[str, Any]
    pack: Callable[[int, int, torch.Generator], Packed]
    endings: tuple[str, ...]


def stream(numbers: torch.Tensor, bits: int) -> torch.Tensor:
    """numbers (n, c), `bits` bits each, lowest first -> int32 (n, ceil(c bits / 32)); made of single bits."""
    values = numbers.numpy().astype(np.uint64)
    width = -(-values.shape[1] * bits // 32)
    single = np.zeros((values.shape[0], width * 32), dtype=np.uint64)
    for bit in range(bits):
        places = np.arange(values.shape[1]) * bits + bit
        single[:, places] = values >> np.uint64(bit) & np.uint64(1)
    words = (single.reshape(values.shape[0], width, 32) << np.arange(32, dtype=np.uint64)).sum(axis=2)
    return torch.from_numpy(words.astype(np.uint32).view(np.int32).copy())


def drawn(rows: int, groups: int, columns: int, bits: int, draw: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Codes (N, K), zero points (N, G), float16 scales (N, G), such that numbers are about 0.08 large."""
    codes = torch.randint(0, 1 << bits, (rows, columns), generator=draw)
    zeros = torch.randint(0, 1 << bits, (rows, groups), generator=draw)
    scales = (torch.rand(rows, groups, generator=draw) + 0.5) * 0.2 / (1 << bits)
    return codes, zeros, scales.half()


def numbers_of(codes: torch.Tensor, zeros: torch.Tensor, scales: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """scale * (code - zero point), with the group of each column (K)."""
    return scales.float()[:, group] * (codes - zeros[:, group]).float()


def awq(rows: int, columns: int, draw: torch.Generator, size: int = 32) -> Packed:
    """AutoAWQ's "gemm": words of eight columns of N."""
    codes, zeros, scales = drawn(rows, columns // size, columns, 4, draw)

    def words(values: torch.Tensor) -> torch.Tensor:
        return stream(values.T.unflatten(1, (-1, 8))[..., AWQ_ORDER].flatten(1), 4)

    raw = {".qweight": words(codes), ".qzeros": words(zeros), ".scales": scales.T.contiguous()}
    return Packed(raw, numbers_of(codes, zeros, scales, torch.arange(columns) // size))


def gptq(
    rows: int,
    columns: int,
    draw: torch.Generator,
    size: int = 32,
    bits: int = 4,
    less: int = 1,
    order: str = "shuffled",
    empty_bias: bool = False,
) -> Packed:
    """AutoGPTQ's layout: streams down K, zero points less `less`, groups "shuffled", "plain", or "absent".

    With `empty_bias`, as it wrote layers that have none.
    """
    codes, zeros, scales = drawn(rows, columns // size, columns, bits, draw)
    zeros[0, 0] = 0  # stored as the largest number where one is taken away
    group = torch.arange(columns) // size
    if order == "shuffled":
        group = group[torch.randperm(columns, generator=draw)]
    raw = {
        ".qweight": stream(codes, bits).T.contiguous(),
        ".qzeros": stream((zeros.T - less) & ((1 << bits) - 1), bits),
        ".scales": scales.T.contiguous(),
    }
    if order != "absent":
        raw[".g_idx"] = group.int()
    if empty_bias:
        raw[".bias"] = torch.zeros(rows).half()
    return Packed(raw, numbers_of(codes, zeros, scales, group))


def packed_int(
    rows: int, columns: int, draw: torch.Generator, size: int = 32, bits: int = 4, zeros: str = "absent",
    shuffled: bool = False,
) -> Packed:  # fmt: skip
    """compressed-tensors "pack-quantized": words along K; zero points "absent", "packed" down N, or "plain" int8."""
    codes, offsets, scales = drawn(rows, columns // size, columns, bits, draw)
    half = 1 << (bits - 1)
    if zeros == "absent":
        offsets = torch.full_like(offsets, half)
    group = torch.arange(columns) // size
    if shuffled:
        group = group[torch.randperm(columns, generator=draw)]
    raw = {
        ".weight_packed": stream(codes, bits),
        ".weight_scale": scales,
        ".weight_shape": torch.tensor([rows, columns]),
    }
    if zeros == "packed":
        raw[".weight_zero_point"] = stream(offsets.T, bits).T.contiguous()
    if zeros == "plain":
        raw[".weight_zero_point"] = (offsets - half).to(torch.int8)
    if shuffled:
        raw[".weight_g_idx"] = group.int()
    return Packed(raw, numbers_of(codes, offsets, scales, group))


def plain_int(rows: int, columns: int, draw: torch.Generator, groups: int = 1, zeros: bool = False) -> Packed:
    """compressed-tensors "int-quantized": int8 as it is, one scale a row or `groups` of them."""
    codes, offsets, scales = drawn(rows, groups, columns, 8, draw)
    if not zeros:
        offsets = torch.full_like(offsets, 128)
    raw = {".weight": (codes - 128).to(torch.int8), ".weight_scale": scales.bfloat16()}
    if zeros:
        raw[".weight_zero_point"] = (offsets - 128).to(torch.int8)
    group = torch.arange(columns) // (columns // groups)
    return Packed(raw, numbers_of(codes, offsets, scales.bfloat16(), group))


def fp8(
    rows: int, columns: int, draw: torch.Generator, block: tuple[int, int] = (32, 32), ending: str = "_scale_inv",
    dtype: torch.dtype = torch.float32,
) -> Packed:  # fmt: skip
    """E4M3 numbers with one scale a block of (rows, columns); blocks at the edges may be cut."""
    codes = torch.randn(rows, columns, generator=draw).to(torch.float8_e4m3fn)
    down, across = -(-rows // block[0]), -(-columns // block[1])
    scales = ((torch.rand(down, across, generator=draw) + 0.5) * 0.1).to(dtype)
    grid = scales.float().repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :columns]
    return Packed({".weight": codes, f".weight{ending}": scales}, codes.float() * grid)


def compressed(format: str, weights: dict[str, Any]) -> dict[str, Any]:
    """What config.json says of a checkpoint of compressed-tensors with one group of layers."""
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None}
    return {
        "quant_method": "compressed-tensors", "format": format, "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }  # fmt: skip
