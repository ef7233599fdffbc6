"""A packing job, planned to the byte from headers alone: what is packed, where every byte goes, what tells it apart."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from windlass.errors import UnsupportedModel
from windlass.facts.checkpoint_facts import CheckpointFacts, read_checkpoint
from windlass.facts.config_values import read_config_values
from windlass.facts.number_types import TORCH_NAMES, is_floating
from windlass.facts.own_checkpoint import COLUMNS, FORMAT
from windlass.facts.packed_checkpoint import quantisation_of
from windlass.facts.packed_files import PARTIAL, OutputFile, PackPiece, output_files, pack_pieces, padded_shapes
from windlass.facts.tensor_fact import TensorFact
from windlass.kernels.quantiser import PACKINGS
from windlass.model.config_file import read_config
from windlass.model.multiplied import packed_names
from windlass.model.text_config import text_config_of

METHOD = "alternating least squares"
_STATED = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""What a config may compute in, by safetensors' names."""


@dataclass(frozen=True, slots=True)
class PackingWork:
    """From the folder `source` into `target`. `packed` gives the parameter of each tensor that is packed, by name.

    `config` is what config.json will say, `identity` what tells this job from any other.
    """

    source: Path
    target: Path
    to: str
    files: tuple[OutputFile, ...]
    pieces: tuple[PackPiece, ...]
    packed: Mapping[str, str]
    config: Mapping[str, Any]
    identity: Mapping[str, object]
    calibrated: bool

    @property
    def partial(self) -> Path:
        """The folder to work in, beside the one to be."""
        return self.target.with_name(self.target.name + PARTIAL)

    @property
    def nbytes(self) -> int:
        """Bytes of the files of weights."""
        return sum(file.nbytes for file in self.files)


def planned(source: Path, target: Path, to: str, importance_digest: str | None = None) -> PackingWork:
    """Raises UnsupportedModel for weights that are packed already, CheckpointError for damaged ones."""
    if source.is_file():
        raise UnsupportedModel(
            f"{source} is a GGUF file, which runs as it is and cannot be a source of quantize; name a folder with the "
            "model's float16 or bfloat16 weights in safetensors"
        )
    values = read_config_values(source)
    settings = quantisation_of(values)
    if settings is not None:
        raise UnsupportedModel(
            f"{source} is packed already ({settings.get('quant_method')}), and packing anew what was rounded before "
            "would lose twice; run it as it is, or quantise the model's float16 or bfloat16 checkpoint"
        )
    checkpoint = read_checkpoint(source)
    tensors = checkpoint.plain
    names = packed_names(text_config_of(read_config(source)), _packable(tensors))
    if not names:
        raise UnsupportedModel(
            f"{source} holds no matrix that can be packed: its layers have none that a linear layer multiplies with; "
            "run it as it is"
        )
    files = output_files(list(tensors.values()), names, PACKINGS[to].bits)
    own: dict[str, object] = {
        "quant_method": "windlass", "format": FORMAT, "bits": PACKINGS[to].bits, "group_size": COLUMNS,
        "method": METHOD, "calibrated": importance_digest is not None, "calibration": importance_digest,
        "shapes": padded_shapes(files), "source": _digest(source, checkpoint),
    }  # fmt: skip
    stated = values.get("dtype") or values.get("torch_dtype") or _STATED.get(checkpoint.weights_dtype, "float32")
    identity = {"source": own["source"], "to": to, "format": FORMAT, "calibration": importance_digest}
    return PackingWork(
        source=source,
        target=target,
        to=to,
        files=files,
        pieces=pack_pieces(files),
        packed=names,
        config=values | {"dtype": stated, "quantization_config": own},
        identity=identity,
        calibrated=importance_digest is not None,
    )


def _packable(tensors: Mapping[str, TensorFact]) -> dict[str, TensorFact]:
    """Those of numbers that torch can hold, of more than a byte each."""
    return {
        name: fact
        for name, fact in tensors.items()
        if is_floating(fact.dtype) and fact.dtype in TORCH_NAMES and fact.nbytes >= 2 * prod(fact.shape)
    }


def _digest(source: Path, checkpoint: CheckpointFacts) -> str:
    """Changes when a file of the source does: by size and time, since to read all of them would take as long again."""
    paths = sorted({fact.file for fact in checkpoint.plain.values()} | {str(source / "config.json")})
    facts = [(Path(path).name, os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in paths]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
