"""A template sees the columns of its row and nothing else; whatever it tries beyond that is an error of one line."""

import json
from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.errors import RequestError, UsageError
from windlass.facts.batch_row import BadRow, BatchRow
from windlass.facts.prompt_form import PromptForm
from windlass.jobs.rows.prompt_template import PromptTemplate, read_template
from windlass.jobs.rows.row_source import row_source

ROW: dict[str, Any] = {"text": "A <b> & 'c'", "n": 3, "nothing": None, "raw": b"\xff", "Last Name": "Lovelace"}


def rendered(template: str, **columns: Any) -> str:
    return PromptTemplate(template, "prompt.j2").render(ROW | columns)


def refusal(template: str) -> str:
    with pytest.raises(RequestError) as refused:
        rendered(template)
    return str(refused.value)


@given(st.dictionaries(st.sampled_from(["text", "label", "other"]), st.text() | st.integers(), min_size=3))
@settings(max_examples=40, deadline=None)
def test_a_template_renders_as_plain_jinja_does(columns: dict[str, Any]) -> None:
    text = (
        "{% for name in [text, label] %}\n  {% if name %}\n{{ loop.index }}: {{ name }}\n  {% endif %}\n{% endfor %}\n"
    )
    plain = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False).from_string(text)
    assert PromptTemplate(text).render(columns) == plain.render(columns)


def test_texts_are_written_as_they_are_and_json_too() -> None:
    assert rendered("{{ text }} {{ n + 1 }} {{ n * 2 }}") == "A <b> & 'c' 4 6"
    assert json.loads(rendered("{{ {'t': text, 'é': [n]} | tojson }}")) == {"t": ROW["text"], "é": [3]}
    assert "<b> & 'c'" in rendered("{{ text | tojson }}")


def test_a_column_whose_name_is_no_variable_is_had_from_the_row() -> None:
    assert rendered('{{ row["Last Name"] }}') == "Lovelace"


def test_a_template_knows_which_columns_it_needs() -> None:
    assert PromptTemplate("{{ text }}{% if n %}{{ n }}{% endif %}{% set a = 1 %}{{ a }}").needs == {"text", "n"}
    assert PromptTemplate("{{ row['Last Name'] }}").needs is None


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ absent }}", "'absent' is undefined (the row has no column 'absent')"),
        ("{{ text.absent }}", "has no attribute 'absent'"),
        ("{{ nothing }}", "writes the column 'nothing', which holds no text"),
        ("{{ raw }}", "writes the column 'raw', which holds no text; make it a column of text in UTF-8"),
        ("{{ n / 0 }}", "fails for this row: division by zero"),
        ("{{ text + n }}", "fails for this row: can only concatenate str"),
        ("{{ text | int / nothing }}", "fails for this row: unsupported operand"),
    ],
)
def test_what_a_row_lacks_is_that_row_s_error_with_the_column(template: str, said: str) -> None:
    assert refusal(template).startswith("prompt.j2")
    assert said in refusal(template)


def test_a_template_may_say_what_to_do_without_a_value() -> None:
    template = "{{ nothing or 'none' }}{% if absent is defined %}x{% endif %}{{ absent | default('-') }}"
    assert rendered(template) == "none-"


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''['__class__'] }}",
        "{{ '' | attr('__class__') }}",
        "{{ ['a'] | map(attribute='__class__') | join }}",
        "{{ row.__init__.__globals__ }}",
        "{{ lipsum.__globals__['os'].popen('id').read() }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ self.__init__.__globals__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ '{0.__class__}'.format(text) }}",
        "{{ '%s' | format(text.__class__) }}",
        "{{ (text.format)('x').__class__ }}",
        "{{ row.clear() }}",
        "{{ row.update({'text': 1}) }}",
        "{{ [1].append(2) }}",
        "{{ 9 ** 9 ** 9 ** 9 }}",
        "{{ 'x' * 10000000000 }}",
        "{{ [0] * 10000000000 }}",
        "{% for i in range(10000000000) %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_a_hostile_template_is_an_error_row_and_no_more(template: str) -> None:
    before = dict(ROW)
    row = PromptForm(render=PromptTemplate(template).render).row(1, ROW)
    assert isinstance(row, BadRow)
    assert row.reason.startswith("template")
    assert before == ROW


@pytest.mark.parametrize("name", ["include", "import", "extends"])
def test_other_files_are_refused_when_the_template_is_read(tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    tail = " as s" if name == "import" else ""
    with pytest.raises(UsageError, match="prompt.j2, line 2: a template reads no other file"):
        PromptTemplate(f"Hello\n{{% {name} '{secret}'{tail} %}}", "prompt.j2")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"one\n{{ text\n", "prompt.j2, line 2: unexpected end of template"),
        (b"{% if text %}", "prompt.j2, line 1: .*endif"),
        (b"\n\n{{ text | nofilter }}", "prompt.j2, line 3: No filter named 'nofilter'"),
        (b"caf\xe9", "prompt.j2 is not UTF-8 .byte 3."),
    ],
)
def test_a_file_that_is_no_template_is_misuse_with_file_and_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "prompt.j2"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read_template(str(path))


def test_a_template_that_is_not_there_is_misuse(tmp_path: Path) -> None:
    for path in (tmp_path / "none.j2", tmp_path):
        with pytest.raises(UsageError, match="there is no file .*--template"):
            read_template(str(path))


def test_rows_of_a_table_are_asked_by_a_template_and_an_empty_prompt_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "prompt.j2").write_text("{{ question }}{% if hint %} ({{ hint }}){% endif %}\n")
    (tmp_path / "rows.csv").write_text("question,hint,id\nWhy?,think,a\nHow?,,b\n,,c\n")
    template = read_template(str(tmp_path / "prompt.j2"))
    rows = list(row_source(str(tmp_path / "rows.csv"), PromptForm(render=template.render, needs=template.needs)).rows())
    assert [row.body.prompt for row in rows if isinstance(row, BatchRow)] == ["Why? (think)", "How?"]
    assert rows[2] == BadRow(
        4, "c", "the template gives an empty prompt for this row; fill its columns, or leave it out"
    )
