"""The name of a file says its format; one that is not read or written is refused with what to make of it."""

import pytest

from windlass.errors import UsageError
from windlass.facts.file_format import FileFormat, answer_format, row_format


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("rows.jsonl", FileFormat.JSONL),
        ("rows.NDJSON", FileFormat.JSONL),
        ("-", FileFormat.JSONL),
        ("rows", FileFormat.JSONL),
        ("/dev/fd/63", FileFormat.JSONL),
        ("a.parquet/rows.csv", FileFormat.CSV),
        ("rows.tsv", FileFormat.TSV),
        ("v1.2/rows.Parquet", FileFormat.PARQUET),
    ],
)
def test_rows_are_read_by_the_suffix_and_as_json_lines_where_it_says_nothing(path: str, expected: FileFormat) -> None:
    assert row_format(path) is expected
    assert expected.is_table == (expected is not FileFormat.JSONL)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("rows.jsonl.gz", "compressed (.gz); unpack it first: gunzip rows.jsonl.gz"),
        ("rows.csv.zst", "unpack it first: unzstd rows.csv.zst"),
        ("rows.xlsx", "a spreadsheet; save it as CSV"),
        ("rows.feather", "an Arrow file; write it as Parquet"),
    ],
)
def test_what_is_not_read_is_refused_with_the_next_step(path: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        row_format(path)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("path", "is_folder", "expected"),
    [
        ("answers.jsonl", False, FileFormat.JSONL),
        ("answers", False, FileFormat.JSONL),
        ("-", False, FileFormat.JSONL),
        ("answers", True, FileFormat.PARQUET),
        ("answers/", False, FileFormat.PARQUET),
        ("answers.parquet", False, FileFormat.PARQUET),
    ],
)
def test_answers_are_parquet_in_a_folder_and_json_lines_in_a_file(
    path: str, is_folder: bool, expected: FileFormat
) -> None:
    assert answer_format(path, is_folder) is expected


@pytest.mark.parametrize("path", ["answers.csv", "answers.tsv", "answers.xlsx", "answers.jsonl.gz"])
def test_answers_in_another_format_are_refused_and_the_two_there_are_named(path: str) -> None:
    with pytest.raises(UsageError, match=r"answers\.jsonl"):
        answer_format(path, False)
