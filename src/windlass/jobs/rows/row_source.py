"""What every file of rows gives, and which reader a path gets."""

from collections.abc import Iterator
from typing import Protocol

from windlass.facts.batch_row import BadRow, BatchRow
from windlass.facts.file_format import FileFormat, row_format
from windlass.facts.prompt_form import PromptForm
from windlass.jobs.rows.csv_rows import CsvRows
from windlass.jobs.rows.jsonl_rows import JsonlRows
from windlass.jobs.rows.parquet_rows import ParquetRows
from windlass.jobs.rows.row_file import check_readable


class RowSource(Protocol):
    """Rows of one file. `repeatable`: `rows` may be called again; a pipe gives its rows once."""

    repeatable: bool

    def rows(self) -> Iterator[BatchRow | BadRow]:
        """In the order of the file, read as they are asked for. The same file gives the same rows and lines.

        A custom_id that two rows share is not looked for, since that needs all of them. Raises UsageError where the
        file cannot be what was said, StorageError where it cannot be read.
        """
        ...

    def count(self) -> int | None:
        """How many rows there are; None where it would take long to know."""
        ...

    def describe(self) -> str:
        """The file and its format, for messages."""
        ...


def row_source(path: str, form: PromptForm | None = None) -> RowSource:
    """The reader for a path. `form` says what a table's rows ask, by default their column `prompt`.

    JSON lines without a form say themselves what they ask. What is wrong with the file as a whole is found here:
    raises UsageError (format, header, extra not installed) and StorageError.
    """
    kind = row_format(path)
    if kind is FileFormat.PARQUET:
        return ParquetRows(path, form or PromptForm())
    check_readable(path)
    if kind is FileFormat.JSONL:
        return JsonlRows(path, form)
    return CsvRows(path, form or PromptForm(), "\t" if kind is FileFormat.TSV else ",")
