"""Rows come out of JSON lines, CSV and Parquet as other readers of these files see them, and never all at once."""

import csv
import importlib.util
import io
import json
import os
import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from windlass.errors import StorageError, UsageError
from windlass.facts.batch_row import BadRow, BatchRow
from windlass.facts.prompt_form import PromptForm
from windlass.jobs.question_file import read_rows
from windlass.jobs.rows.csv_rows import CsvRows
from windlass.jobs.rows.jsonl_rows import JsonlRows
from windlass.jobs.rows.parquet_rows import ParquetRows
from windlass.jobs.rows.row_source import row_source

TEXT = PromptForm("text")


def file_of(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def parquet_of(folder: Path, columns: Any, **options: Any) -> str:
    path = folder / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
    return str(path)


def prompts(path: str, form: PromptForm | None = TEXT) -> list[str | None]:
    return [row.body.prompt if isinstance(row, BatchRow) else None for row in row_source(path, form).rows()]


def reasons(path: str, form: PromptForm | None = TEXT) -> dict[int, str]:
    return {row.line: row.reason for row in row_source(path, form).rows() if isinstance(row, BadRow)}


def ids(path: str, form: PromptForm | None = TEXT) -> list[str | None]:
    return [row.custom_id for row in row_source(path, form).rows()]


class TestCsv:
    NASTY = (
        'text,label\r\n"one, two","a"\r\n"says ""so""",b\r\n"two\nlines\r\nand more",c\r\n\r\n  spaced ,d\r\n'
        "'single',e\r\n\"naïve 日本語 \U0001f600\",f\r\n"
    )

    def test_quotes_commas_line_ends_and_a_byte_order_mark_are_read_as_arrow_reads_them(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, "rows.csv", "\ufeff" + self.NASTY)
        options = pyarrow.csv.ParseOptions(newlines_in_values=True)
        table = pyarrow.csv.read_csv(path, parse_options=options)
        assert prompts(path) == table.column("text").to_pylist()
        assert prompts(path, PromptForm("label")) == list("abcdef")

    def test_a_row_is_numbered_by_the_line_on_which_an_editor_shows_its_beginning(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, "rows.csv", self.NASTY)
        lines = [row.line for row in row_source(path, TEXT).rows()]
        content = self.NASTY.split("\n")
        assert [content[line - 1][:4] for line in lines] == ['"one', '"say', '"two', "  sp", "'sin", '"naï']
        assert ids(path)[:3] == ["line-2", "line-3", "line-4"]

    def test_tabs_part_the_fields_of_a_tsv(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, "rows.tsv", 'text\tid\none, two\tx\n"a\tb"\ty\n')
        assert (prompts(path), ids(path)) == (["one, two", "a\tb"], ["x", "y"])

    # Before 3.11 the standard library refuses NUL in a CSV.
    @given(
        st.lists(
            st.tuples(*[st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))] * 2), max_size=8
        )
    )
    @example([('a"b\r\n,"', "\n"), ("\r", '""'), ("\u2028\x85\x0b\x1c", ",")])
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_text_comes_back_from_what_python_writes(self, tmp_path: Path, rows: list[tuple[str, str]]) -> None:
        written = io.StringIO(newline="")
        csv.writer(written, quoting=csv.QUOTE_ALL).writerows([("text", "other"), *rows])
        path = file_of(tmp_path, "rows.csv", written.getvalue())
        assert prompts(path) == [text if text.strip() else None for text, _ in rows]
        assert row_source(path, TEXT).count() == len(rows)

    @pytest.mark.parametrize(
        ("broken", "said"),
        [
            (b"only one\n", "1 fields and the header 2"),
            (b"a,b,c\n", "3 fields and the header 2"),
            (b'"says "so" here",b\n', "not CSV: ',' expected after '\"'"),
            (b"caf\xe9,b\n", "not UTF-8; convert the file, for example with iconv"),
            (b",b\n", "column 'text' is empty"),
            (b'"  ",b\n', "column 'text' holds blanks only"),
            (b'"' + b"long\n" * 100 + b'",b\n', "the row has 505 B, and may have 300 B"),
            (b"long " * 100 + b",b\n", "the row has 503 B, and may have 300 B"),
        ],
    )
    def test_a_broken_row_costs_only_itself(self, tmp_path: Path, broken: bytes, said: str) -> None:
        path = file_of(tmp_path, "rows.csv", b"text,label\nfirst,a\n" + broken + b"last,b\n")
        rows = list(CsvRows(path, TEXT, row_bytes=300).rows())
        assert [type(row) for row in rows] == [BatchRow, BadRow, BatchRow]
        assert isinstance(rows[1], BadRow) and said in rows[1].reason and rows[1].line == 3
        assert rows[2].line == 3 + broken.count(b"\n")

    def test_a_quote_left_open_is_an_error_row_and_no_end_of_memory(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, "rows.csv", "text\nfirst\n" + '"open\n' + "more\n" * 1000)
        for limit, said in ((100_000, "never closed"), (300, "is a quote left open")):
            first, last = CsvRows(path, TEXT, row_bytes=limit).rows()
            assert isinstance(first, BatchRow) and isinstance(last, BadRow)
            assert (last.line, said in last.reason) == (3, True)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("", "the header of .* cannot be read: there is no line in it"),
            ("prompt,label\na,b\n", "has no column 'text'; it has 'prompt', 'label'. Name the one .* with --column"),
            ("text;label\na;b\n", "parts its fields by semicolons .'text;label'.; part them by commas"),
            ("text,text\na,b\n", "has the column 'text' 2 times; rename one"),
            ("text,b\ra,b\r", "carriage return"),
            ("text,b\n".encode("utf-16"), "not UTF-8"),
        ],
    )
    def test_a_header_that_serves_no_row_is_refused_before_anything_runs(
        self, tmp_path: Path, content: str | bytes, said: str
    ) -> None:
        with pytest.raises(UsageError, match=said):
            row_source(file_of(tmp_path, "rows.csv", content), TEXT)


class TestJsonl:
    def test_rows_say_what_they_ask_where_no_form_does(self, tmp_path: Path) -> None:
        lines = ["\ufeff" + json.dumps({"prompt": "Hi", "max_tokens": 3}), "", "{bad", json.dumps({"prompt": "Ho"})]
        path = file_of(tmp_path, "rows.jsonl", "\n".join(lines))
        rows = list(row_source(path).rows())
        assert [row.line for row in rows] == [1, 3, 4]
        assert isinstance(rows[0], BatchRow) and rows[0].body.sampling == {"max_tokens": 3}
        assert [type(row) for row in rows] == [BatchRow, BadRow, BatchRow]
        assert row_source(path).count() == 3

    def test_a_form_takes_fields_for_columns(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, "rows.jsonl", '{"text": "Hi", "id": 7}\n{"other": 1}\n[1]\n{"text": ["a"]}\n')
        assert prompts(path) == ["Hi", None, None, None]
        assert ids(path) == ["7", "line-2", None, "line-4"]
        assert reasons(path) == {
            2: "there is no column 'text'; the row has 'other'",
            3: "a row is a JSON object, got list",
            4: "column 'text' holds a list, not a text; say how with --template",
        }

    def test_a_line_too_long_is_a_bad_row_and_is_not_kept(self, tmp_path: Path) -> None:
        row = json.dumps({"prompt": "x" * 50})
        path = file_of(tmp_path, "rows.jsonl", "\n".join([row, " " * 10_000 + row, row]))
        source = JsonlRows(path, row_bytes=100)
        assert [type(row) for row in source.rows()] == [BatchRow, BadRow, BatchRow]
        assert source.count() == 3
        bad = list(source.rows())[1]
        assert isinstance(bad, BadRow) and "the line has 9.83 KiB, and a row at most 100 B" in bad.reason

    def test_one_list_in_a_json_file_is_refused_with_the_way_to_lines(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, "rows.json", '[{"prompt": "Hi"},\n {"prompt": "Ho"}]')
        with pytest.raises(UsageError, match=r"one JSON list.*jq -c '\.\[\]'"):
            list(row_source(path).rows())

    def test_a_pipe_gives_its_rows_once_and_says_so(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(b'{"prompt": "Hi"}\n',))
        writer.start()
        source = row_source(str(pipe))
        assert (source.repeatable, source.count(), len(list(source.rows()))) == (False, None, 1)
        writer.join()


class TestParquet:
    COLUMNS = {
        "text": ["plain", 'quo"ted, \n lines', "nul \0 日本語", "", None],
        "id": [10, 11, None, 13, 14],
        "meta": [{"a": 1}, None, None, None, None],
    }

    def test_rows_are_those_that_were_written_across_row_groups(self, tmp_path: Path) -> None:
        path = parquet_of(tmp_path, self.COLUMNS, row_group_size=2)
        source = row_source(path, TEXT)
        assert prompts(path) == [text or None for text in self.COLUMNS["text"]]
        assert ids(path) == ["10", "11", "line-3", "13", "14"]
        assert reasons(path) == dict.fromkeys((4, 5), "column 'text' is empty; write a text, or leave the row out")
        assert (source.count(), source.repeatable) == (5, True)

    def test_bytes_that_are_utf_8_are_text_and_others_cost_their_row(self, tmp_path: Path) -> None:
        path = parquet_of(tmp_path, {"text": [b"na\xc3\xafve", b"\xff\xfe", b"last"]})
        assert prompts(path) == ["naïve", None, "last"]
        assert "holds 2 bytes that are no UTF-8" in reasons(path)[2]

    def test_text_that_is_broken_inside_costs_its_row(self, tmp_path: Path) -> None:
        broken = pyarrow.array([b"good", b"\xff", b"last"]).view(pyarrow.string())
        assert prompts(parquet_of(tmp_path, {"text": broken})) == ["good", None, "last"]

    def test_only_the_columns_that_are_asked_for_are_read(self, tmp_path: Path) -> None:
        path = parquet_of(tmp_path, {"text": ["a"], "id": ["i"], "picture": [b"\0" * 100], "also": ["b"]})
        seen: list[Sequence[str]] = []

        def render(columns: Any) -> str:
            seen.append(sorted(columns))
            return "x"

        for needs in (frozenset({"also", "absent"}), None):
            list(row_source(path, PromptForm(render=render, needs=needs)).rows())
        assert seen == [["also", "id"], ["also", "id", "picture", "text"]]

    def test_a_column_that_is_not_there_is_refused_with_those_that_are(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="has no column 'prompt'; it has 'text', 'id', 'meta'"):
            row_source(parquet_of(tmp_path, self.COLUMNS))

    def test_a_damaged_file_is_a_storage_error(self, tmp_path: Path) -> None:
        path = Path(parquet_of(tmp_path, {"text": [f"row {place} " * 9 for place in range(5000)]}, compression=None))
        whole = path.read_bytes()
        path.write_bytes(whole[:100] + bytes(2000) + whole[2100:])
        with pytest.raises(StorageError, match="cannot be read as Parquet.*fetch it again"):
            list(row_source(str(path), TEXT).rows())
        path.write_bytes(whole[:-100])
        with pytest.raises(StorageError, match="cannot be read as Parquet"):
            row_source(str(path), TEXT)

    def test_without_pyarrow_the_extra_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = parquet_of(tmp_path, self.COLUMNS)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(UsageError, match=r"pip install 'windlass\[tables\]'"):
            row_source(path, TEXT)


class TestForm:
    def test_a_chat_is_a_user_s_message_after_the_system_s(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, "rows.csv", "prompt,custom_id\nHi,a\n")
        (row,) = row_source(path, PromptForm(chat=True, system="Be brief.")).rows()
        assert isinstance(row, BatchRow)
        assert (row.custom_id, row.url) == ("a", "/v1/chat/completions")
        assert row.body.messages == (
            {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}
        )  # fmt: skip

    def test_custom_id_goes_before_id_and_an_empty_one_is_none(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, "rows.csv", "id,text,custom_id\n1,a,x\n2,b,\n")
        assert ids(path) == ["x", "line-3"]

    def test_the_second_row_of_one_name_is_bad_where_all_rows_are_read(self, tmp_path: Path) -> None:
        rows = read_rows(file_of(tmp_path, "rows.csv", "id,text\n1,a\n1,b\n"), TEXT)
        assert isinstance(rows[1], BadRow) and rows[1].reason == "custom_id '1' is that of line 2 too"


@pytest.mark.parametrize("name", ["none.jsonl", "none.csv", "none.parquet"])
def test_a_file_that_is_not_there_is_refused_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"there is no file .*{name}"):
        row_source(str(tmp_path / name), TEXT)


@pytest.mark.parametrize("name", ["folder.jsonl", "folder.csv", "folder.parquet"])
def test_a_folder_is_refused_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match="is a folder; name a file"):
        row_source(str(tmp_path / name), TEXT)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_text_file_passes_through_a_memory_much_smaller_than_itself(tmp_path: Path, kind: str) -> None:
    row = json.dumps({"text": "x" * 8000}) if kind == "jsonl" else '"' + "x" * 8000 + '"'
    path = file_of(tmp_path, f"rows.{kind}", "\n".join(["text"] * (kind == "csv") + [row] * 1000))
    source = row_source(path, TEXT)
    tracemalloc.start()
    read = sum(isinstance(row, BatchRow) for row in source.rows())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (read, peak < Path(path).stat().st_size / 10) == (1000, True)


def test_a_row_group_passes_through_a_memory_smaller_than_itself(tmp_path: Path) -> None:
    texts = [f"{place:08d}" * 1000 for place in range(4000)]
    path = parquet_of(tmp_path, {"text": texts}, row_group_size=4000, use_dictionary=False, compression=None)
    del texts
    before = pyarrow.total_allocated_bytes()
    used = [pyarrow.total_allocated_bytes() - before for _ in ParquetRows(path, TEXT).rows()]
    assert (len(used), max(used) < Path(path).stat().st_size / 2) == (4000, True)
