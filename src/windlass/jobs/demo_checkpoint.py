"""Checkpoints of random weights in the Hugging Face layout, for showing Windlass where there is no network.

The big one is written shard by shard, so that making a model larger than a budget does not take that much memory.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig

from windlass.errors import StorageError
from windlass.model.parameter_map import tied_names
from windlass.model.shape_checkpoint import spread_of
from windlass.units import MIB, format_bytes

_SHARD_BYTES = 256 * MIB
_SPECIAL = ("<unk>", "<s>", "</s>")
_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
_config = partial(
    LlamaConfig, architectures=["LlamaForCausalLM"], max_position_embeddings=2048, bos_token_id=1, eos_token_id=2,
    tie_word_embeddings=False,
)  # fmt: skip


def big_config() -> LlamaConfig:
    """1.0 billion parameters, 2.0 GB in bfloat16: 22 layers of 2048, as TinyLlama has them."""
    return _config(hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32,
                   num_key_value_heads=4, vocab_size=8192, initializer_range=0.02, dtype="bfloat16")  # fmt: skip


def twin_config() -> LlamaConfig:
    """The same family in float32, small enough to compare with transformers: 26 million parameters, 0.1 GB.

    Its weights are wide, so that the layers have their say: with small ones a model repeats its last token.
    """
    return _config(hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8,
                   num_key_value_heads=4, vocab_size=512, initializer_range=0.05, dtype="float32")  # fmt: skip


def write_checkpoint(folder: Path, config: PreTrainedConfig, seed: int = 0) -> int:
    """Writes config, shards, index and tokenizer of a causal model into a new `folder`; returns the weights' bytes.

    Raises StorageError where the disk has not got the room.
    """
    dtype = dtype_of(config)
    shapes = _shapes(config)
    total = sum(shape.numel() for shape in shapes.values()) * dtype.itemsize
    _check_room(folder.parent, total)
    folder.mkdir()
    config.save_pretrained(folder)
    _write_tokenizer(folder)
    shards = list(_shards(shapes, dtype.itemsize))
    generator = torch.Generator().manual_seed(seed)
    index: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: _weight(name, shapes[name], dtype, spread_of(config), generator) for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": index})
    )
    return total


def dtype_of(config: PreTrainedConfig) -> torch.dtype:
    """The dtype that the config asks for, written there as a name or as torch has it."""
    return _DTYPES[str(config.dtype).removeprefix("torch.")]


def _shapes(config: PreTrainedConfig) -> dict[str, torch.Size]:
    """Of every tensor by name; tied ones once."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    tied = tied_names(model)
    return {name: part.shape for name, part in model.state_dict().items() if name not in tied}


def _check_room(folder: Path, nbytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < 1.1 * nbytes:
        raise StorageError(
            f"the demonstration writes {format_bytes(nbytes)} and {folder} has {format_bytes(free)} free; "
            f"name a folder on another disk with --folder"
        )


def _shards(shapes: Mapping[str, torch.Size], itemsize: int) -> Iterator[list[str]]:
    """Names in order, cut where a shard would grow past its size."""
    names: list[str] = []
    size = 0
    for name, shape in shapes.items():
        nbytes = shape.numel() * itemsize
        if names and size + nbytes > _SHARD_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += nbytes
    yield names


def _weight(
    name: str, shape: torch.Size, dtype: torch.dtype, spread: float, generator: torch.Generator
) -> torch.Tensor:
    """Norms scale by one and nothing is shifted; everything else is drawn as a fresh model would be."""
    if name.endswith("bias"):
        return torch.zeros(shape, dtype=dtype)
    if len(shape) == 1:
        return torch.ones(shape, dtype=dtype)
    return torch.empty(shape, dtype=dtype).normal_(0.0, spread, generator=generator)


def _write_tokenizer(folder: Path) -> None:
    """Every byte is one token, after three special ones."""
    vocab = {token: index for index, token in enumerate([*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>"))
    tokenizer.decoder = decoders.ByteFallback()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"} | dict(
        zip(("unk_token", "bos_token", "eos_token"), _SPECIAL, strict=True)
    )
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
