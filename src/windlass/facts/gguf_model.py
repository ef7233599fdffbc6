"""A model in GGUF files: one, or several numbered ones, each with a part of the tensors."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from windlass.errors import CheckpointError, ModelNotFound
from windlass.facts.gguf_header import GgufHeader, GgufValue, read_gguf_header
from windlass.facts.tensor_fact import TensorFact

SUFFIX = ".gguf"
_NUMBERED = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<total>\d{5})\.gguf")
# The part of a model that sees images lies in a file of its own, beside that of the text.
_PROJECTOR = re.compile(r"mmproj|clip", re.IGNORECASE)
_MOST_FILES = 9999


@dataclass(frozen=True, slots=True)
class GgufModel:
    """What the file `path`, or the first of the set that it belongs to, says; and the tensors of all files by name."""

    path: Path
    metadata: Mapping[str, GgufValue]
    tensors: Mapping[str, TensorFact]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the kind of model."""
        return str(self.metadata.get("general.architecture", ""))

    def text(self, name: str, default: str = "") -> str:
        """A value that must be a string. Raises CheckpointError."""
        value = self.metadata.get(name, default)
        if not isinstance(value, str):
            raise self._refusal(name, value, "a string")
        return value

    def whole(self, name: str, default: int | None = None) -> int:
        """A value that must be a whole number, and there where it has no default. Raises CheckpointError."""
        value = self.metadata.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._refusal(name, value, "a whole number")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A value that must be a number, and there where it has no default. Raises CheckpointError."""
        value = self.metadata.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._refusal(name, value, "a number")
        return float(value)

    def strings(self, name: str) -> list[str]:
        """A value that must be an array of strings; none where it is absent. Raises CheckpointError."""
        value = self.metadata.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._refusal(name, value, "an array of strings")
        return [str(item) for item in value]

    def numbers(self, name: str) -> list[float]:
        """A value that must be an array of numbers; none where it is absent. Raises CheckpointError."""
        value = self.metadata.get(name, [])
        if isinstance(value, str | int | float) or any(isinstance(item, str) for item in value):
            raise self._refusal(name, value, "an array of numbers")
        return [float(item) for item in value]

    def wholes(self, name: str) -> list[int]:
        """A value that must be an array of whole numbers; none where it is absent. Raises CheckpointError."""
        numbers = self.numbers(name)
        if not all(number.is_integer() for number in numbers):
            raise self._refusal(name, self.metadata[name], "an array of whole numbers")
        return [int(number) for number in numbers]

    def positive(self, name: str, default: float | None = None) -> float:
        """A value that must be a finite number above 0. Raises CheckpointError."""
        value = self.number(name, default)
        if not 0 < value < math.inf:
            raise self._refusal(name, value, "a number above 0")
        return value

    def _refusal(self, name: str, value: object, wanted: str) -> CheckpointError:
        found = "is missing" if value is None else f"is {value!r:.60}"
        return CheckpointError(f"{self.path}: {name} {found}, expected {wanted}; fetch another file of the model")


def read_gguf(path: str | Path) -> GgufModel:
    """The model of a GGUF file, or of the numbered set that the file is one of.

    Raises CheckpointError for files that are missing or damaged, UnsupportedModel for what is not read.
    """
    given = Path(path).absolute()
    if not given.is_file():
        raise ModelNotFound(f"there is no file {given}; check the path")
    header = read_gguf_header(given)
    total = header.metadata.get("split.count", 1)
    if not isinstance(total, int) or not 0 <= total <= _MOST_FILES:
        raise CheckpointError(f"{given} says split.count is {total!r:.60}; fetch the file again")
    headers = [header] if total < 2 else _set_of(given, total)
    tensors = _joined(headers)
    announced = headers[0].metadata.get("split.tensors.count", len(tensors))
    if announced != len(tensors):
        raise CheckpointError(
            f"{given} and its set of {len(headers)} files hold {len(tensors):,} tensors, {announced!r:.20} are "
            f"announced; fetch all files of one set again"
        )
    return GgufModel(Path(headers[0].file), headers[0].metadata, tensors)


def is_gguf(path: Path) -> bool:
    """Whether a path is that of a GGUF file which is there."""
    return path.suffix == SUFFIX and path.is_file()


def gguf_in(folder: Path) -> Path | None:
    """The GGUF model that a folder holds, None where it holds none. Raises ModelNotFound where it holds several."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(SUFFIX))
    models: dict[str, str] = {}
    for name in names:
        if not _PROJECTOR.search(name):
            numbered = _NUMBERED.fullmatch(name)
            models.setdefault(f"{numbered['stem']}/{numbered['total']}" if numbered else name, name)
    if len(models) > 1:
        some = ", ".join(list(models.values())[:4])
        raise ModelNotFound(f"{folder} holds {len(models)} GGUF models ({some}); give the file of the one to run")
    return folder / next(iter(models.values())) if models else None


def _set_of(given: Path, total: int) -> list[GgufHeader]:
    """The headers of all files of a numbered set, in order."""
    numbered = _NUMBERED.fullmatch(given.name)
    if numbered is None or int(numbered["total"]) != total:
        raise CheckpointError(
            f"{given} is one of a set of {total} files, which are found by their names: call it "
            f"NAME-00001-of-{total:05d}.gguf, and the others likewise"
        )
    files = [given.with_name(f"{numbered['stem']}-{number:05d}-of-{total:05d}.gguf") for number in range(1, total + 1)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(
            f"{given.parent} lacks {len(missing)} of {total} files of the model: {', '.join(missing[:3])}; fetch the "
            f"missing files"
        )
    return [read_gguf_header(file) for file in files]


def _joined(headers: list[GgufHeader]) -> dict[str, TensorFact]:
    tensors: dict[str, TensorFact] = {}
    for header in headers:
        for fact in header.tensors:
            if fact.name in tensors:
                raise CheckpointError(
                    f"tensor {fact.name!r} is in both {tensors[fact.name].file} and {fact.file}; fetch one set of files"
                )
            tensors[fact.name] = fact
    return tensors
