"""Answers that must have a form, from models with random weights, who would never write one by themselves.

Every answer that ends is parsed and validated by others (json, jsonschema_rs, re); every answer that is cut could have
been completed.
"""

import json
import re
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from typing import Any

import jsonschema_rs
import llguidance
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LogitsProcessor, PreTrainedModel

from checkpoints import random_model, random_prompts, save
from windlass.engine import grammars
from windlass.engine.grammars import Grammars
from windlass.engine.llm import LLM
from windlass.errors import RequestError, UsageError
from windlass.facts.completion import CompletionOutput
from windlass.facts.request import Request
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.structured_outputs import StructuredOutputsParams
from windlass.facts.workload import Workload
from windlass.packaged_model import packaged_model_folder

VOCABULARY = 1040  # more rows than the tokenizer has ids, as many models have
END = 1
TREE: dict[str, Any] = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer", "minimum": -9, "maximum": 99},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
            },
            "required": ["value", "children"],
            "additionalProperties": False,
        }
    },
}
SHORT = {"type": "string", "maxLength": 6}
SCHEMAS: dict[str, Any] = {
    "nesting": {
        "type": "object",
        "properties": {
            "who": {
                "type": "object",
                "properties": {"first": SHORT, "born": {"type": "integer", "minimum": 1900, "maximum": 2030}},
                "required": ["first", "born"],
                "additionalProperties": False,
            },
            "ok": {"type": "boolean"},
        },
        "required": ["who", "ok"],
        "additionalProperties": False,
    },
    "enums": {"type": "array", "items": {"enum": ["red", 7, None, "Grün", "日本", True]}, "minItems": 2, "maxItems": 4},
    "unicode": {"type": "string", "minLength": 2, "maxLength": 5, "pattern": "^[äöü€😀]+$"},
    "numbers": {"type": "array", "items": {"type": "number", "minimum": -1.5, "maximum": 2.25}, "maxItems": 3},
    "multiples": {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 700},
    "places": {"prefixItems": [{"type": "boolean"}, {"const": "x\"\\y"}], "items": False, "minItems": 2},
    "either": {"anyOf": [{"type": "null"}, SHORT, {"type": "object", "maxProperties": 0}]},
    "patterns": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3,5}(/[a-f]+)?$", "maxLength": 14},
    "formats": {"type": "object", "properties": {"on": {"type": "string", "format": "date"}}, "required": ["on"]},
    "named by pattern": {"type": "object", "additionalProperties": {"type": "integer", "maximum": 9, "minimum": 0}},
    "another's punctuation": {
        "x-guidance": {"item_separator": ";", "key_separator": "=", "whitespace_flexible": True},
        "type": "object",
        "properties": {"a": {"type": "integer", "maximum": 9}, "b": {"type": "array", "items": {"type": "boolean"}}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
    "recursion": TREE,
    "anything": {},
}  # fmt: skip
PATTERNS = ("[0-9]{3}-[a-f]{2,4}", "(yes|no|maybe), ?[äöü]*", r'"(\\.|[^"\\]){0,8}"')
CHOICES = ("yes", "yesterday", "no", "naïve – 日本")


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    """Random weights under the tokenizer of the model in the box."""
    model = random_model("llama", vocab_size=VOCABULARY)
    model.generation_config.eos_token_id = END
    return model


@pytest.fixture(scope="module")
def folder(model: PreTrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save(model, tmp_path_factory.mktemp("llama"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        copyfile(Path(packaged_model_folder()) / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def llm(folder: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)
        with LLM(folder, dtype="float32") as llm:
            yield llm


def form(**said: Any) -> SamplingParams:
    return SamplingParams(max_tokens=90, temperature=1.0, structured_outputs=StructuredOutputsParams(**said))


def prompts(count: int) -> list[dict[str, list[int]]]:
    return [{"prompt_token_ids": ids} for ids in random_prompts(*[5 + n % 7 for n in range(count)])]


def one_each(llm: LLM, params: list[SamplingParams]) -> list[CompletionOutput]:
    return [output.outputs[0] for output in llm.generate(prompts(len(params)), params)]


def completed(llm: LLM, output: CompletionOutput, params: SamplingParams, index: int, count: int) -> str:
    """The answer gone on with by a model that is pushed to whatever closes what is open."""
    closing = {token: _closing(text) for token, text in _texts(llm).items() if _closing(text)} | {END: 100.0}
    ids = tuple(prompts(count)[index]["prompt_token_ids"])
    pushed = replace(params, temperature=0.0, max_tokens=180, logit_bias=closing, n=1)
    (more,) = llm.answer([Request(str(index), None, ids, pushed, (output.token_ids,))], Workload(1, len(ids), 180))
    (whole,) = more.outputs
    assert whole.token_ids[: len(output.token_ids)] == output.token_ids
    assert whole.finish_reason == "stop", whole.text
    return whole.text


def _texts(llm: LLM) -> dict[int, str]:
    return {token: llm.tokenizer.text_alone(token) for token in range(llm.tokenizer.vocab_size)}


def _closing(text: str) -> float:
    """How much a text is wanted: a string is ended before all else, then whatever is open."""
    biases = (('"', 90.0), ("]}", 80.0), (":,0[", 60.0))
    return max((bias for marks, bias in biases if text and set(text) <= set(marks)), default=0.0)


class TestJson:
    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    def test_every_answer_that_ends_validates_and_every_other_could_be_completed(
        self, llm: LLM, temperature: float
    ) -> None:
        seeds = range(4 if temperature else 1)
        asked = [(name, replace(form(json=SCHEMAS[name]), seed=seed, temperature=temperature))
                 for name in SCHEMAS for seed in seeds]  # fmt: skip
        outputs = one_each(llm, [params for _, params in asked])
        ended = set()
        for index, ((name, params), output) in enumerate(zip(asked, outputs, strict=True)):
            text = output.text
            if output.finish_reason == "stop":
                ended.add(name)
            else:
                text = completed(llm, output, params, index, len(asked))
            jsonschema_rs.validator_for(SCHEMAS[name], validate_formats=True).validate(json.loads(text))
        if temperature:
            assert len(ended) >= len(SCHEMAS) - 3, "most of them end by themselves"

    def test_any_object_is_asked_for_by_one_word(self, llm: LLM) -> None:
        outputs = one_each(llm, [replace(form(json_object=True), seed=seed, max_tokens=40) for seed in range(6)])
        for index, output in enumerate(outputs):
            asked = form(json_object=True)
            whole = output.text if output.finish_reason == "stop" else completed(llm, output, asked, index, 6)
            assert isinstance(json.loads(whole), dict)

    def test_members_come_in_the_order_of_the_schema_and_without_space_where_none_is_wanted(self, llm: LLM) -> None:
        schema = {"properties": {"z": {"type": "boolean"}, "a": {"type": "boolean"}}, "required": ["z", "a"],
                  "additionalProperties": False, "type": "object"}  # fmt: skip
        (output,) = one_each(llm, [form(json=schema, disable_any_whitespace=True)])
        assert re.fullmatch('{"z":(true|false),"a":(true|false)}', output.text)


class TestTexts:
    @pytest.mark.parametrize("pattern", PATTERNS)
    def test_are_what_a_regular_expression_says(self, llm: LLM, pattern: str) -> None:
        for output in one_each(llm, [replace(form(regex=pattern), seed=seed) for seed in range(5)]):
            assert output.finish_reason == "stop" and re.fullmatch(pattern, output.text), output.text

    def test_are_one_of_the_choices(self, llm: LLM) -> None:
        asked = [replace(form(choice=CHOICES), seed=seed) for seed in range(24)]
        said = {output.text for output in one_each(llm, asked)}
        assert said <= set(CHOICES) and len(said) >= 3
        (cut,) = one_each(llm, [replace(form(choice=["yesterday"]), max_tokens=2)])
        assert cut.finish_reason == "length" and "yesterday".startswith(cut.text)

    def test_follow_a_grammar_in_either_of_two_notations(self, llm: LLM) -> None:
        lark, gbnf = 'start: "a" start "b" | "-"', 'root ::= "a" root "b" | "-"'
        for output in one_each(llm, [form(grammar=lark), form(grammar=gbnf)]):
            opened, _, closed = output.text.partition("-")
            assert output.finish_reason == "length" or (len(opened) == len(closed) and set(opened) <= {"a"})


def test_greedy_tokens_are_those_of_transformers_under_the_same_masks(llm: LLM, model: PreTrainedModel) -> None:
    """transformers computes everything again at each token; its masks come from a matcher of its own."""

    class Masked(LogitsProcessor):
        def __init__(self, schema: str, prompt: int) -> None:
            spelled = llguidance.LLTokenizer((Path(packaged_model_folder()) / "tokenizer.json").read_text(), VOCABULARY)
            options = {"whitespace_flexible": False}
            grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=options)
            self.matcher, self.read = llguidance.LLMatcher(spelled, grammar), prompt

        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            self.matcher.consume_tokens(input_ids[0, self.read :].tolist())
            self.read = input_ids.shape[1]
            bits = np.unpackbits(np.frombuffer(self.matcher.compute_bitmask(), np.uint8), bitorder="little")
            return scores.masked_fill(torch.from_numpy(bits[:VOCABULARY] == 0), -torch.inf)

    (prompt,) = prompts(1)
    ids = torch.tensor([prompt["prompt_token_ids"]])
    for name in ("nesting", "enums", "recursion", "patterns"):
        theirs = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=60, do_sample=False, pad_token_id=0,
            logits_processor=[Masked(json.dumps(SCHEMAS[name]), ids.shape[1])],
        )[0, ids.shape[1] :].tolist()  # fmt: skip
        asked = replace(form(json=SCHEMAS[name], disable_any_whitespace=True), temperature=0.0, max_tokens=60)
        (ours,) = one_each(llm, [asked])
        assert list(ours.token_ids) == [token for token in theirs if token != END], name


class TestBesideOthers:
    def test_unconstrained_rows_of_a_block_keep_their_tokens(self, llm: LLM) -> None:
        plain = [SamplingParams(max_tokens=20, temperature=float(n % 2), seed=n) for n in range(6)]
        alone = one_each(llm, plain)
        forms = [replace(form(json=SCHEMAS["nesting"]), seed=n, max_tokens=20) for n in range(6)]
        together = llm.generate([*prompts(6), *prompts(6)], [*plain, *forms])
        assert llm.plan.block_size >= 12, "they were one block"
        assert [output.outputs[0].token_ids for output in together[:6]] == [output.token_ids for output in alone]

    def test_every_row_of_a_mixed_block_gets_what_it_gets_alone(self, llm: LLM) -> None:
        asked = [replace(form(json=schema), seed=seed, max_tokens=24) for seed, schema in enumerate(SCHEMAS.values())]
        together = one_each(llm, asked)
        for index, params in enumerate(asked):
            (output,) = llm.generate([prompts(len(asked))[index]], [params])
            assert output.outputs[0].token_ids == together[index].token_ids

    def test_masks_in_time_and_masks_waited_for_give_the_same(self, llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = [replace(form(json=schema), seed=3, max_tokens=24) for schema in SCHEMAS.values()]
        beside = one_each(llm, asked)

        def at_once(self: Grammars, work: Any) -> Future[Any]:
            done = Future[Any]()
            done.set_result(work())
            return done

        monkeypatch.setattr(Grammars, "_submit", at_once)
        assert [output.token_ids for output in one_each(llm, asked)] == [output.token_ids for output in beside]


def test_an_answer_goes_on_from_any_of_its_tokens(llm: LLM) -> None:
    params = replace(form(json=TREE), seed=11, max_tokens=40)
    (whole,) = one_each(llm, [params])
    ids = tuple(prompts(1)[0]["prompt_token_ids"])
    for kept in (1, 7, len(whole.token_ids) - 1, len(whole.token_ids)):
        begun = (whole.token_ids[:kept],)
        (output,) = llm.answer([Request("0", None, ids, params, begun)], Workload(1, len(ids), 40))
        assert output.outputs[0].token_ids == whole.token_ids
        assert (output.outputs[0].text, output.outputs[0].finish_reason) == (whole.text, whole.finish_reason)


class TestWithOtherParameters:
    def test_n_answers_each_keep_the_form_by_draws_of_their_own(self, llm: LLM) -> None:
        asked = replace(form(regex="[a-z]{4}-[0-9]{4}"), n=5, seed=2)
        (output,) = llm.generate(prompts(1), asked)
        texts = [answer.text for answer in output.outputs]
        assert all(re.fullmatch("[a-z]{4}-[0-9]{4}", text) for text in texts) and len(set(texts)) > 1

    def test_penalties_biases_and_filters_choose_among_what_the_form_allows(self, llm: LLM) -> None:
        base = form(regex="[ab]{30}")
        (letter_a,) = llm.tokenizer.encode_plain("a")
        asked = [
            replace(base, logit_bias={letter_a: 100}, top_k=1),
            replace(base, repetition_penalty=1.8, seed=1),
            replace(base, min_p=0.5, top_p=0.4, seed=2),
            replace(base, presence_penalty=2.0, frequency_penalty=2.0, seed=3),
            replace(base, bad_words=["a"], seed=4),
        ]
        outputs = one_each(llm, asked)
        assert all(re.fullmatch("[ab]{30}", output.text) for output in outputs)
        assert outputs[0].token_ids.count(letter_a) >= 25
        assert letter_a not in outputs[4].token_ids

    def test_logprobs_are_those_of_the_raw_logits(self, llm: LLM) -> None:
        asked = replace(form(choice=["no"]), logprobs=3, temperature=0.0)
        (output,) = one_each(llm, [asked])
        (first, *_) = output.logprobs or ()
        assert len(first) == 4 and first[output.token_ids[0]].rank > 3, "the model would have said something else"

    def test_a_stop_string_ends_an_answer_inside_its_form(self, llm: LLM) -> None:
        (output,) = one_each(llm, [replace(form(choice=["one, two"]), stop=",")])
        assert (output.text, output.finish_reason, output.stop_reason) == ("one", "stop", ",")

    def test_an_end_is_put_off_by_min_tokens_only_where_the_form_can_go_on(self, llm: LLM) -> None:
        more, whole = one_each(
            llm,
            [replace(form(regex="a{2,40}"), min_tokens=12, seed=1), replace(form(choice=["ab"]), min_tokens=12)],
        )
        assert len(more.token_ids) >= 12 and re.fullmatch("a{2,40}", more.text)
        assert (whole.text, whole.finish_reason) == ("ab", "stop")

    def test_a_whole_answer_ends_without_an_end_token_also_where_that_is_ignored(self, llm: LLM) -> None:
        (output,) = one_each(llm, [replace(form(regex="a{2,4}"), ignore_eos=True)])
        assert (output.text, output.finish_reason) == ("aaaa", "stop") and END not in output.token_ids

    def test_an_answer_that_is_whole_at_its_last_token_was_not_cut(self, llm: LLM) -> None:
        (output,) = one_each(llm, [form(choice=["yesterday"])])
        (same,) = one_each(llm, [replace(form(choice=["yesterday"]), max_tokens=len(output.token_ids), seed=0)])
        assert same.finish_reason == "stop" or same.text != "yesterday"


class TestWhatCannotBe:
    def test_an_answer_that_nothing_can_go_on_with_is_cut_and_the_others_are_not(self, llm: LLM) -> None:
        digit, brace = llm.tokenizer.encode_plain("7")[0], llm.tokenizer.encode_plain("{")[0]
        plain = SamplingParams(max_tokens=10, temperature=1.0, seed=4)
        (alone,) = one_each(llm, [plain])
        asked = [plain, replace(form(json_object=True), allowed_token_ids=[brace]),
                 replace(form(json_object=True), allowed_token_ids=[digit])]  # fmt: skip
        untouched, begun, nothing = one_each(llm, asked)
        assert untouched.token_ids == alone.token_ids
        assert (begun.text, begun.finish_reason, nothing.text) == ("{", "length", "")
        assert "no token of this model's vocabulary goes on" in str(nothing.stop_reason)

    def test_a_form_that_costs_more_than_may_be_spent_is_cut_and_says_so(
        self, llm: LLM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(grammars, "MOST_STATES", 60)
        (output,) = one_each(llm, [form(regex="[ab]{300}")])
        assert re.fullmatch("[ab]{20,90}", output.text) and output.finish_reason == "length"
        assert "its form cannot be kept: lexer error: too many states" in str(output.stop_reason)

    def test_what_others_spent_in_the_same_form_is_not_held_against_an_answer(
        self, llm: LLM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pattern = "[abc]*c[abc]{12}x"  # of which each answer visits other states, a few hundred
        asked = [replace(form(regex=pattern), seed=n, max_tokens=30) for n in range(30)]
        enough = one_each(llm, asked)
        monkeypatch.setattr(grammars, "MOST_STATES", 400)
        for round_ in range(2):
            again = f"({pattern})"  # the same, compiled anew
            scarce = one_each(llm, [replace(params, structured_outputs={"regex": again}) for params in asked])
            assert [output.stop_reason for output in scarce] == [None] * 30, round_
            assert [output.token_ids for output in scarce] == [output.token_ids for output in enough]

    @pytest.mark.parametrize(
        ("said", "message"),
        [
            ({"regex": "a(b"}, "the regex cannot be followed: unclosed group, at character 2 of the expression"),
            ({"regex": "(?=a)b"}, "look-around, .* at character 1"),
            ({"json": {"properties": {"a": {"items": {"not": {}}}}}}, r"keys: \[\"not\"\], at #/properties/a/items;"),
            ({"json": {"anyOf": [{}, {"$ref": "#/$defs/x"}], "$defs": {"x": {"type": "nope"}}}}, r"at #/\$defs/x;"),
            ({"json": {"enum": []}}, "Unsatisfiable schema: .*, at #;"),
            ({"json": {"items": {"x-guidance": {"lenient": True}, "uniqueItems": True}}}, "uniqueItems"),
            ({"grammar": "start: nope"}, 'the grammar cannot be followed: .*"nope"'),
            ({"grammar": "start: " + "(" * 5000}, "the grammar cannot be followed"),
        ],
    )
    def test_a_form_that_cannot_be_followed_is_refused_in_a_line_with_its_place(
        self, llm: LLM, said: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(RequestError, match=message) as refused:
            llm.check(form(**said))
        assert "\n" not in str(refused.value)

    def test_nothing_can_be_had_in_a_form_without_a_tokenizer(self, model: PreTrainedModel, tmp_path: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)
            with LLM(save(model, tmp_path)) as llm, pytest.raises(UsageError, match="has no tokenizer"):
                llm.check(form(regex="a"))

    def test_what_is_missing_is_named(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        words = Grammars(AutoTokenizer.from_pretrained(folder), VOCABULARY, (END,))
        with pytest.raises(UsageError, match=r"need llguidance, .* pip install 'windlass\[structured\]'"):
            words.check(StructuredOutputsParams(regex="a"))
