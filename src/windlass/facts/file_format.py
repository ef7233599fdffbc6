"""Which format the name of a file of rows or of answers stands for, and what to do with one that is not read."""

from enum import Enum
from pathlib import Path

from windlass.errors import UsageError


class FileFormat(Enum):
    """The value is how a message names it."""

    JSONL = "JSON lines"
    CSV = "CSV"
    TSV = "tab-separated values"
    PARQUET = "Parquet"

    @property
    def is_table(self) -> bool:
        """Whether rows have columns, so that a column or a template must say what is asked."""
        return self is not FileFormat.JSONL


_BY_SUFFIX = {
    ".jsonl": FileFormat.JSONL,
    ".ndjson": FileFormat.JSONL,
    ".json": FileFormat.JSONL,
    ".csv": FileFormat.CSV,
    ".tsv": FileFormat.TSV,
    ".parquet": FileFormat.PARQUET,
}
_UNPACKERS = {".gz": "gunzip", ".bz2": "bunzip2", ".xz": "unxz", ".zst": "unzstd", ".zip": "unzip", ".lz4": "unlz4"}
_FOREIGN = {
    ".xlsx": "a spreadsheet; save it as CSV",
    ".xls": "a spreadsheet; save it as CSV",
    ".ods": "a spreadsheet; save it as CSV",
    ".arrow": "an Arrow file; write it as Parquet",
    ".feather": "an Arrow file; write it as Parquet",
    ".orc": "an ORC file; write it as Parquet",
    ".avro": "an Avro file; write it as Parquet or JSON lines",
}
_STANDARD = "-"


def row_format(path: str) -> FileFormat:
    """Of a file of rows, by its suffix; JSON lines for standard input and for a suffix that says nothing.

    Raises UsageError for a suffix that names something else, with what to make of it.
    """
    suffix = _suffix(path)
    if suffix in _UNPACKERS:
        raise UsageError(f"{path} is compressed ({suffix}); unpack it first: {_UNPACKERS[suffix]} {path}")
    if suffix in _FOREIGN:
        raise UsageError(f"{path} is {_FOREIGN[suffix]} (.csv, .tsv, .jsonl and .parquet are read)")
    return _BY_SUFFIX.get(suffix, FileFormat.JSONL)


def answer_format(path: str, is_folder: bool) -> FileFormat:
    """Of answers: a folder of Parquet parts where the path is or will be a folder or ends in .parquet, else JSON lines.

    `is_folder`: a folder of that name is there. Raises UsageError for what is read but not written.
    """
    suffix = _suffix(path)
    if path.endswith("/") or is_folder or suffix == ".parquet":
        return FileFormat.PARQUET
    if suffix in _UNPACKERS:
        raise UsageError(f"answers are not compressed, and {path} ends in {suffix}; name a file as in answers.jsonl")
    if suffix in _FOREIGN or _BY_SUFFIX.get(suffix, FileFormat.JSONL) is not FileFormat.JSONL:
        raise UsageError(
            f"answers are written as JSON lines or Parquet, and {path} ends in {suffix}; name a file as in "
            f"answers.jsonl, or a folder as in answers/"
        )
    return FileFormat.JSONL


def is_guessed(path: str) -> bool:
    """Whether answers go as JSON lines to a file whose suffix says something else that is not known here."""
    return _suffix(path) not in {"", *_BY_SUFFIX} and not path.endswith("/") and not Path(path).is_dir()


def _suffix(path: str) -> str:
    return "" if path == _STANDARD else Path(path).suffix.lower()
