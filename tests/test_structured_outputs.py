"""What form an answer must have, as it is said: by vLLM's names, OpenAI's response_format, and on the command line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from windlass.cli.sampling_flags import SamplingFlags
from windlass.errors import RequestError, UsageError
from windlass.facts.batch_row import BadRow, BatchRow, parse_row
from windlass.facts.job_identity import JobIdentity
from windlass.facts.response_format import read_response_format
from windlass.facts.sampling_facts import sampling_facts
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.structured_outputs import StructuredOutputsParams

SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "string"}}, "required": ["b"]}


def test_one_form_is_kept_with_the_order_of_its_members() -> None:
    said = StructuredOutputsParams(json=SCHEMA)
    assert (said.kind, said.form) == ("json", json.dumps(SCHEMA))
    assert said == StructuredOutputsParams(json=json.dumps(SCHEMA, indent=3))
    turned = SCHEMA | {"properties": dict(reversed(SCHEMA["properties"].items()))}
    assert said != StructuredOutputsParams(json=turned), "members come in the order of the schema"
    assert StructuredOutputsParams(choice=["a", "b", "a"]).form == ("a", "b")
    assert StructuredOutputsParams(json_object=True).kind == "json_object"


@pytest.mark.parametrize(
    "said",
    [
        {"json": SCHEMA, "whitespace_pattern": " ?"},
        {"regex": "[a-z]+"},
        {"choice": ["yes", "nö"]},
        {"grammar": 'start: "a"'},
        {"json_object": True, "disable_any_whitespace": True},
    ],
)
def test_a_form_comes_back_from_what_json_holds_of_it(said: dict[str, Any]) -> None:
    form = StructuredOutputsParams(**said)
    assert StructuredOutputsParams(**json.loads(json.dumps(form.as_dict()))) == form
    params = SamplingParams(structured_outputs=form)
    assert params == SamplingParams(structured_outputs=form.as_dict()) != SamplingParams()
    assert hash(params) == hash(replace(params, structured_outputs=form.as_dict()))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "exactly one of json, regex, choice, grammar, json_object, got none"),
        ({"regex": "a", "choice": ["b"]}, "got regex and choice; leave the others out"),
        ({"json_object": False}, "got none"),
        ({"json": "{"}, "json is no JSON: .* at line 1 column 2"),
        ({"json": "[]"}, r'json must be a JSON schema, got \[\]; write it as {"type": "object"}'),
        ({"json": '{"minimum": NaN}'}, "NaN is no number"),
        ({"json": {"const": {1, 2}}}, "json holds something that JSON cannot say"),
        ({"json": {"const": "\ud800"}}, "half a surrogate pair"),
        ({"json": '{"a":' * 100 + "1" + "}" * 100}, "nested more than 64 deep; take parts out into"),
        ({"json": '{"items":' * 100_000}, "has 900000 characters, and at most 131072 are read"),
        ({"json": {"$ref": "http://a.b/c.json"}}, r"refers to 'http://a.b/c.json' at #/\$ref, and nothing is fetched"),
        ({"json": {"properties": {"a/b": {"items": {"$ref": "x.json"}}}}}, r"at #/properties/a~1b/items/\$ref"),
        (
            {"json": {"items": {"multipleOf": 100_003}}},
            r"at #/items/multipleOf for multiples of 100003.* at most 10000",
        ),
        ({"json": {"allOf": [{"multipleOf": 0.97}, {"multipleOf": 0.89}, {"multipleOf": 0.83}]}}, "716539 cases"),
        ({"json": {"minimum": -1e19, "maximum": -1e19}}, r"has -1e\+19 at #/maximum, and bounds are kept to 9e\+18"),
        ({"json": {"allOf": [{"minimum": -2e19}, {"exclusiveMaximum": 9 - 2**63}]}}, "#/allOf/1/exclusiveMaximum, and"),
        ({"json": {"minimum": 2**63}}, "has 9223372036854775808 at #/minimum, and bounds are"),
        ({"json": {"const": 2**53 + 1}}, "at #/const, and whole numbers are told apart up to 9007199254740992"),
        ({"json": {"items": {"enum": ["a", {"b": [-(2**60)]}]}}}, "at #/items/enum, and whole numbers"),
        ({"json": '{"default": {"a": [1' + "0" * 400 + "]}}"}, "has 1000.* at #/default, which no double holds"),
        ({"json": {"x-mine": {"a": 10**309}}}, "at #/x-mine/a, which no double holds"),
        ({"regex": ""}, "regex must be a text, got ''"),
        ({"choice": "ab"}, "choice must be a list of texts, got 'ab'; write it as"),
        ({"choice": []}, "choice must be a list of texts"),
        ({"choice": ["a", ""]}, "choice holds '' at 1"),
        ({"grammar": 3}, "grammar must be a text, got 3"),
        ({"grammar": 'a: "b"\n' * 700}, "grammar has 700 rules, counted by their colons, and at most 600 are read"),
        ({"grammar": 'start: %json {"type": "null"}'}, "grammar holds %json, .* give a schema as json="),
        ({"json": {}, "whitespace_pattern": " ", "disable_any_whitespace": True}, "leave one of them out"),
        ({"json": {}, "structural_tag": "{}"}, "structural_tag does not exist here"),
        ({"json": {}, "disable_additional_properties": True}, 'write "additionalProperties": false'),
    ],
)
def test_a_form_that_makes_no_sense_is_refused_with_its_place(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        StructuredOutputsParams(**wrong)


def test_numbers_that_mean_what_they_say_are_taken() -> None:
    kept = {"maximum": 2**64, "minimum": -(2**63), "const": 2**53, "enum": [1e300, -(2**53)], "default": 10**300}
    assert StructuredOutputsParams(json=kept).form == json.dumps(kept)


def chain(length: int, depth: int) -> dict[str, Any]:
    """A schema whose definitions refer to the next, each `depth` arrays deep."""

    def nested(number: int) -> dict[str, Any]:
        inner: dict[str, Any] = {"$ref": f"#/$defs/d{number + 1}"}
        for _ in range(depth):
            inner = {"type": "array", "items": inner}
        return inner

    return {"$ref": "#/$defs/d0", "$defs": {f"d{n}": nested(n) for n in range(length)} | {f"d{length}": {}}}


def test_references_lead_only_so_deep_since_a_compiler_follows_them_on_its_stack() -> None:
    for length, depth in ((100, 3), (10, 50), (20, 20)):
        StructuredOutputsParams(json=chain(length, depth))
    for length, depth in ((1500, 1), (300, 1), (50, 40)):
        with pytest.raises(UsageError, match=r"references that lead more than 600 steps deep, counted to #/\$defs/d"):
            StructuredOutputsParams(json=chain(length, depth))
    family = {"$defs": {f"d{n}": {"items": {"$ref": f"#/$defs/d{(n * 7) % 90}"}} for n in range(90)}}
    StructuredOutputsParams(json=family | {"$ref": "#/$defs/d3"})


def test_a_reference_that_is_only_a_name_or_a_value_is_none() -> None:
    named = {"properties": {"$ref": {"type": "string"}, "multipleOf": {"type": "integer"}}}
    StructuredOutputsParams(json=named | {"const": {"$ref": "http://a"}, "enum": [{"multipleOf": 10**9}]})


def test_parameters_take_a_mapping_by_the_same_names_and_nothing_else() -> None:
    with pytest.raises(UsageError, match="structured_outputs has no 'jsn'; it takes one of json, regex"):
        SamplingParams(structured_outputs={"jsn": {}})
    with pytest.raises(UsageError, match="structured_outputs must be a StructuredOutputsParams, got 'a'"):
        SamplingParams(structured_outputs="a")


class TestResponseFormat:
    def test_says_text_an_object_or_a_schema(self) -> None:
        named = {"name": "person", "schema": SCHEMA, "strict": True, "description": "one"}
        assert read_response_format({"type": "text"}) is None
        assert read_response_format({"type": "json_object"}) == StructuredOutputsParams(json_object=True)
        said = {"type": "json_schema", "json_schema": named}
        assert read_response_format(said) == StructuredOutputsParams(json=SCHEMA)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ("json", "response_format must be an object"),
            ({"type": "xml"}, "type must be one of text, json_object, json_schema, got 'xml'"),
            ({"type": "text", "schema": {}}, "response_format has an unknown field 'schema'"),
            ({"type": "json_schema"}, "response_format.json_schema must be an object, got None"),
            ({"type": "json_schema", "json_schema": {"schema": {}}}, "json_schema.name must be a string"),
            ({"type": "json_schema", "json_schema": {"name": "a"}}, "json_schema.schema must be an object"),
            ({"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "strict": 1}}, "strict must be true"),
            (
                {"type": "json_schema", "json_schema": {"name": "a", "schema": {"items": {"$ref": "b"}}}},
                r"json_schema.schema: json refers to 'b' at #/items/\$ref",
            ),
        ],
    )
    def test_names_the_field_that_is_wrong(self, wrong: Any, message: str) -> None:
        with pytest.raises(RequestError, match=message):
            read_response_format(wrong)


def row(**body: Any) -> BatchRow | BadRow:
    return parse_row(1, json.dumps({"prompt": "Hi", **body}).encode())


class TestARowOfABatch:
    def test_may_say_its_form_in_either_way(self) -> None:
        schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
        for said in ({"response_format": schema}, {"structured_outputs": {"json": SCHEMA}}):
            asked = row(**said)
            assert isinstance(asked, BatchRow)
            params = SamplingParams(**asked.body.sampling)
            assert params.structured_outputs == StructuredOutputsParams(json=SCHEMA)

    def test_may_ask_for_text_where_the_job_asks_for_a_form(self) -> None:
        asked = row(response_format={"type": "text"})
        assert isinstance(asked, BatchRow)
        job = SamplingParams(structured_outputs={"json_object": True})
        assert replace(job, **asked.body.sampling) == SamplingParams()

    def test_says_it_once_and_soundly_or_is_a_bad_row(self) -> None:
        both = row(response_format={"type": "json_object"}, structured_outputs={"regex": "a"})
        assert isinstance(both, BadRow) and "leave one out" in both.reason
        wrong = row(structured_outputs={"regex": "a", "choice": ["b"]})
        assert isinstance(wrong, BadRow) and "got regex and choice" in wrong.reason

    def test_is_another_row_under_another_form_and_the_same_as_before_under_none(self) -> None:
        def identity(**said: Any) -> JobIdentity:
            return JobIdentity("m", {}, {}, sampling_facts(SamplingParams(**said)))

        plain, form = identity(), identity(structured_outputs={"json": SCHEMA})
        assert "structured_outputs" not in plain.defaults and "schema" not in plain.defaults
        assert [change[:29] for change in form.changes_since(plain)] == ['--schema was not given, is {"']
        turned = identity(structured_outputs={"json": json.dumps(SCHEMA, sort_keys=True)})
        keys = {job.row_key(asked) for job in (plain, form, turned) if isinstance(asked := row(), BatchRow)}
        assert len(keys) == 3


class TestFlags:
    def test_read_a_schema_a_pattern_or_choices(self, tmp_path: Path) -> None:
        path = tmp_path / "schema.json"
        path.write_text(json.dumps(SCHEMA))
        defaults = SamplingParams()
        for flags, form in (
            (SamplingFlags(schema=str(path)), {"json": SCHEMA}),
            (SamplingFlags(regex="[0-9]+"), {"regex": "[0-9]+"}),
            (SamplingFlags(choice="yes, no"), {"choice": ["yes", "no"]}),
        ):
            path.unlink(missing_ok=True)  # it may be a pipe, so it is read once
            assert flags.applied_to(defaults).structured_outputs == StructuredOutputsParams(**form)
        assert SamplingFlags().applied_to(defaults).structured_outputs is None

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ({"schema": "{folder}/none.json"}, "there is no file .*none.json; name a JSON schema with --schema"),
            ({"schema": "{folder}"}, "there is no file"),
            ({"schema": "{folder}/bad.json"}, "the schema in .*bad.json is no JSON: .* line 1 column 2"),
            ({"regex": "a", "choice": "b"}, "--regex and --choice both say what form the answer has"),
            ({"choice": "a,,b"}, "choice holds '' at 1"),
        ],
    )
    def test_that_make_no_sense_are_misuse(self, flags: dict[str, str], message: str, tmp_path: Path) -> None:
        (tmp_path / "bad.json").write_text("{")
        with pytest.raises(UsageError, match=message):
            SamplingFlags(**{name: value.format(folder=tmp_path) for name, value in flags.items()})

    def test_say_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(UsageError, match=r"need llguidance, .* pip install 'windlass\[structured\]'"):
            SamplingFlags(regex="a")
