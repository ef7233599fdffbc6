"""What a checkpoint folder holds: every tensor, with the file and the bytes where it lies.

Only headers are read, so a checkpoint of hundreds of gigabytes is known, and found whole, in milliseconds. Missing or
truncated shards must show here: later they would show in the middle of a run.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from windlass.errors import CheckpointError, ModelNotFound
from windlass.facts.packed_tensor import PackedTensor
from windlass.facts.safetensors_header import read_header
from windlass.facts.tensor_fact import TensorFact

SINGLE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
_NUMBERED = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<total>\d{5})\.safetensors")
_PICKLED = {".bin", ".pt", ".pth"}


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """The tensors of the checkpoint in `folder` (an absolute path), by name.

    `stated_dtype` is what its weights are computed in (safetensors' name), where that is not how they are stored.
    """

    folder: str
    tensors: Mapping[str, TensorFact | PackedTensor]
    stated_dtype: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(fact.nbytes for fact in self.tensors.values())

    @property
    def plain(self) -> dict[str, TensorFact]:
        """Those whose numbers are not packed, by name."""
        return {name: fact for name, fact in self.tensors.items() if isinstance(fact, TensorFact)}

    @property
    def weights_dtype(self) -> str:
        """The dtype that is stated, or that most bytes have, by safetensors' name."""
        if self.stated_dtype is not None:
            return self.stated_dtype
        sizes: dict[str, int] = {}
        for fact in self.tensors.values():
            sizes[fact.dtype] = sizes.get(fact.dtype, 0) + fact.nbytes
        return max(sizes, key=lambda dtype: sizes[dtype])


def read_checkpoint(folder: str | Path) -> CheckpointFacts:
    """Reads the headers of `model.safetensors`, or of the shards in its index, or of a lone or numbered set of files.

    Raises ModelNotFound if `folder` is not a model folder, CheckpointError if its weights are missing or damaged.
    """
    root = Path(os.path.abspath(folder))
    if not root.is_dir():
        raise ModelNotFound(f"{root} is not a folder; give the folder that holds config.json and the safetensors files")
    if (root / SINGLE_NAME).exists():
        tensors = _read_shards(root, [SINGLE_NAME], {})
    elif (root / INDEX_NAME).exists():
        index = read_index(root / INDEX_NAME)
        tensors = _read_shards(root, sorted(set(index.values())), index)
    else:
        tensors = _read_shards(root, _find_shards(root), {})
    return CheckpointFacts(str(root), tensors)


def checkpoint_of(
    place: str, headers: Iterable[tuple[str, Iterable[TensorFact]]], index: Mapping[str, str]
) -> CheckpointFacts:
    """The checkpoint whose shards hold these tensors; where a name is in several, the index (may be empty) decides.

    Raises CheckpointError for a name that is in two shards or in none.
    """
    return CheckpointFacts(place, _one_of_each(place, headers, index))


def read_index(path: Path) -> dict[str, str]:
    """Tensor name -> shard, as the index says; every shard is a plain path below the folder. Raises CheckpointError."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; fetch the file again") from error
    index = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(index, dict) or not index or not all(isinstance(shard, str) for shard in index.values()):
        raise CheckpointError(f"{path} has no weight_map of tensor names and files; fetch the file again")
    for shard in set(index.values()):
        if not shard or PurePath(shard).is_absolute() or ".." in PurePath(shard).parts:
            raise CheckpointError(
                f"{path} names the file {shard!r}, which is outside the folder; do not trust this checkpoint"
            )
    return index


def _read_shards(root: Path, shards: list[str], index: Mapping[str, str]) -> dict[str, TensorFact]:
    """The tensors of all shards; where a name is in several, the index decides."""
    missing = [shard for shard in shards if not (root / shard).exists()]
    if missing:
        raise CheckpointError(
            f"{root} lacks {len(missing)} of {len(shards)} shards: {_some(missing)}; download the missing files"
        )
    return _one_of_each(str(root), ((shard, read_header(root / shard)) for shard in shards), index)


def _one_of_each(
    place: str, headers: Iterable[tuple[str, Iterable[TensorFact]]], index: Mapping[str, str]
) -> dict[str, TensorFact]:
    tensors: dict[str, TensorFact] = {}
    for shard, facts in headers:
        for fact in facts:
            if index.get(fact.name, shard) != shard:
                continue
            if fact.name in tensors:
                raise CheckpointError(
                    f"tensor {fact.name!r} is in both {tensors[fact.name].file} and {fact.file}; "
                    f"remove the file that does not belong, or add {INDEX_NAME}"
                )
            tensors[fact.name] = fact
    _check_names(place, tensors, index)
    return tensors


def _check_names(place: str, tensors: Mapping[str, TensorFact], index: Mapping[str, str]) -> None:
    absent = [name for name in index if name not in tensors]
    if absent:
        raise CheckpointError(
            f"{place}/{index[absent[0]]} lacks {_some(absent)}: {INDEX_NAME} lists {len(index):,} tensors, "
            f"the shards hold {len(index) - len(absent):,} of them; fetch the index and the shard again"
        )
    if not tensors:
        raise CheckpointError(f"{place} holds no tensor at all in its safetensors files; fetch them again")


def _find_shards(root: Path) -> list[str]:
    """The shards of a folder that has neither the usual file nor an index."""
    names = sorted(entry.name for entry in root.iterdir() if entry.name.endswith(".safetensors"))
    numbered = [match for name in names if (match := _NUMBERED.fullmatch(name))]
    series = {(match["stem"], match["total"]) for match in numbered}
    if len(series) == 1:
        (stem, total) = series.pop()
        return [f"{stem}-{number:05d}-of-{total}.safetensors" for number in range(1, int(total) + 1)]
    if len(names) == 1:
        return names
    if names:
        raise CheckpointError(
            f"{root} holds {len(names)} safetensors files ({_some(names)}) and no {INDEX_NAME} that says which "
            f"belong to the model; add the index, or leave only the model's files"
        )
    raise _no_safetensors(root)


def pickled_only(place: str, names: Iterable[str], target: str) -> CheckpointError | None:
    """The refusal of a folder or hub id whose weights are all pickled; None if none of `names` is pickled.

    It names the line that converts them once, into the folder `target`.
    """
    pickled = sorted(name for name in names if PurePath(name).suffix in _PICKLED)
    if not pickled:
        return None
    convert = (
        f"from transformers import AutoModelForCausalLM as M; "
        f"M.from_pretrained({place!r}, dtype='auto').save_pretrained({target!r}, safe_serialization=True)"
    )
    return CheckpointError(
        f"{place} holds pickled weights only ({_some(pickled)}), which can run code when they are loaded; only "
        f'safetensors are read. Where you trust the files, convert them once: python -c "{convert}"'
    )


def _no_safetensors(root: Path) -> CheckpointError | ModelNotFound:
    refusal = pickled_only(str(root), (entry.name for entry in root.iterdir()), f"{root}-safetensors")
    if refusal is not None:
        return refusal
    if (root / "config.json").exists():
        return CheckpointError(f"{root} has a config.json but no *.safetensors file; download the weights")
    return ModelNotFound(
        f"{root} is not a model folder: it has no config.json and no *.safetensors file; "
        f"give the folder that holds them, or a Hugging Face id"
    )


def _some(names: list[str]) -> str:
    """The first three names, and how many more there are."""
    rest = len(names) - 3
    return ", ".join(names[:3]) + (f" and {rest} more" if rest > 0 else "")
