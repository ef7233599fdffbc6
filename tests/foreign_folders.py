"""Checkpoints of tiny random models in other people's formats, each beside the dense one with the same numbers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from foreign_formats import Packed

KEPT = ("embed", "lm_head", "norm", "gate.weight", "router", "wte", "wpe")
Pack = Callable[[int, int, torch.Generator], Packed]


def write_quantised(
    dense: Path,
    settings: dict[str, Any],
    pack: Pack,
    *,
    only: str = "",
    kept: tuple[str, ...] = KEPT,
    part: str | None = None,
) -> Path:
    """A folder beside `dense` whose linear layers are drawn anew and packed; `dense` gets the same numbers, plain.

    Matrices are packed with `only` in their names and nothing of `kept`; `part` of the config says so, else the whole.
    """
    tensors, draw = load_file(dense / "model.safetensors"), torch.Generator().manual_seed(11)
    raw = dict(tensors)
    matrices = [name for name, tensor in tensors.items() if tensor.ndim == 2 and name.endswith(".weight")]
    for name in (name for name in matrices if only in name and not any(word in name for word in kept)):
        packed = pack(*tensors[name].shape, draw)
        tensors[name] = packed.dense.contiguous()
        del raw[name]
        raw |= {name.removesuffix(".weight") + end: tensor for end, tensor in packed.raw.items()}
    return write_beside(dense, tensors, raw, settings, part)


def write_beside(
    dense: Path,
    tensors: dict[str, torch.Tensor],
    raw: dict[str, torch.Tensor],
    settings: dict[str, Any],
    part: str | None = None,
) -> Path:
    """Writes `tensors` to `dense` and `raw` to a folder beside it, whose config says `settings` of its weights."""
    folder = dense.with_name("quantised")
    shutil.copytree(dense, folder)
    save_file(tensors, dense / "model.safetensors", metadata={"format": "pt"})
    save_file(
        {name: t.contiguous() for name, t in raw.items()}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    config = json.loads((folder / "config.json").read_text())
    (config[part] if part else config)["quantization_config"] = settings
    (folder / "config.json").write_text(json.dumps(config))
    return folder
