"""Checkpoints in Windlass's own blocks, packed by plain rounding, each beside the dense one with the same numbers."""

import json
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from windlass.facts.own_checkpoint import FORMAT
from windlass.facts.packing import Packing
from windlass.kernels.encodings.blocks import COLUMNS, ROWS, join, unpack

KEPT = ("embed", "lm_head", "norm", "gate.weight", "router", "wte", "wpe", "conv")


def rounded_blocks(packing: Packing, weight: torch.Tensor) -> torch.Tensor:
    """weight (N, K) -> uint8 blocks (Bn, Bk, bytes), evenly rounded; the codebook is the first."""
    n, k = weight.shape
    padded = F.pad(weight.float(), (0, -k % COLUMNS, 0, -n % ROWS))
    grid = padded.view(-1, ROWS, padded.shape[1] // COLUMNS, COLUMNS).transpose(1, 2)  # (Bn, Bk, 16, 64)
    half = grid.abs().amax(-1, keepdim=True).clamp_min(1e-6)
    top = 7.4 if packing.bits == 4 else 127.0
    scales = (half / top).bfloat16()
    shift = 7.5 if packing.bits == 4 else 0.0
    codes = (grid / scales.float() + shift).round()
    codes = codes.clamp(0, 15) if packing.bits == 4 else codes.clamp(-128, 127)
    return join(packing, codes, scales[..., 0], torch.zeros_like(scales[..., 0]))


def packs(name: str, tensor: torch.Tensor) -> bool:
    """Whether the tests pack a tensor of a checkpoint: matrices of layers, but no router."""
    return tensor.ndim == 2 and name.endswith("weight") and not any(kept in name for kept in KEPT)


def write_packed(dense: Path, packing: Packing) -> Path:
    """Packs the checkpoint in `dense` into a folder beside it, and writes the numbers it now has back to `dense`."""
    folder = dense.with_name(f"{dense.name}-{packing.name}")
    shutil.copytree(dense, folder)
    tensors = load_file(dense / "model.safetensors")
    packed, shapes = dict(tensors), {}
    for name, tensor in tensors.items():
        if packs(name, tensor):
            blocks = rounded_blocks(packing, tensor)
            shape = (tensor.shape[0], tensor.shape[1])
            numbers = unpack(packing, {"blocks": blocks}, shape, 0, shape[0], torch.float32)
            tensors[name] = numbers.contiguous()
            packed[name], shapes[name] = blocks, list(shape)
    save_file(tensors, dense / "model.safetensors", metadata={"format": "pt"})
    save_file(packed, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "windlass", "format": FORMAT, "bits": packing.bits, "group_size": COLUMNS, "shapes": shapes,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder
