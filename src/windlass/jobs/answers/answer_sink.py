"""What every place for answers gives to the job that fills it, and which one a path gets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from windlass.facts.file_format import FileFormat, answer_format
from windlass.jobs.answers.jsonl_answers import JsonlAnswers
from windlass.jobs.answers.parquet_answers import ParquetAnswers

Position = Mapping[str, object]


class AnswerSink(Protocol):
    """Rows in the order in which they are appended. Nothing that was there is touched before `append` or `rewind`."""

    def append(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Takes all of the rows; when StorageError is raised, none of them, and they may be appended again."""
        ...

    def sync(self) -> None:
        """What is written survives a power cut when this returns, and `position` counts it. Raises StorageError."""
        ...

    def position(self) -> dict[str, object]:
        """How far the answers are known good, to be kept as JSON: `rows` of them, the rest is for `rewind` alone.

        Rows appended later must be appended again after a kill.
        """
        ...

    def rewind(self, position: Position) -> None:
        """Cuts back to a position, a torn end included, and goes on from there.

        Raises StorageError naming what is wrong where less, or something else, is there than the position says.
        """
        ...

    def close(self) -> None:
        """Writes what waits, and syncs. `position` may still be asked. Raises StorageError."""
        ...


def answer_sink(path: str, may_exist: bool = False) -> AnswerSink:
    """The sink for a path: Parquet for a folder, a name that ends in / or one in .parquet; else JSON lines.

    `may_exist`: answers that are there may be cut, by `rewind` to go on or by the first rows to begin anew; without it
    they raise UsageError, as does a path that cannot be written.
    """
    if answer_format(path, path != "-" and Path(path).is_dir()) is FileFormat.PARQUET:
        return ParquetAnswers(path, may_exist)
    return JsonlAnswers(path, may_exist)
