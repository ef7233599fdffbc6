"""A line of a batch file is a question or the reason why it is none; nothing in it stops the others."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.facts.batch_answer import answer, refusal
from windlass.facts.batch_row import BadRow, BatchRow, parse_row, parse_rows
from windlass.facts.completion import CompletionOutput, Logprob, RequestOutput
from windlass.facts.echo import Echo
from windlass.facts.sampling_params import SamplingParams


def parsed(row: Any) -> BatchRow | BadRow:
    return parse_row(3, json.dumps(row).encode())


def good(row: Any) -> BatchRow:
    found = parsed(row)
    assert isinstance(found, BatchRow), found
    return found


def reason(row: Any) -> str:
    found = parsed(row)
    assert isinstance(found, BadRow)
    assert found.line == 3
    return found.reason


def completion(**body: Any) -> dict[str, Any]:
    return {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"model": "m", "prompt": "Hi"} | body}


def chat(**body: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Hi"}]
    return {"custom_id": "a", "url": "/v1/chat/completions", "body": {"model": "m", "messages": messages} | body}


def test_the_short_form_is_a_prompt_with_sampling_fields_beside_it() -> None:
    row = good({"prompt": "Hi", "max_tokens": 5, "temperature": 0})
    assert (row.custom_id, row.url, row.body.prompt) == ("line-3", "/v1/completions", "Hi")
    assert row.body.sampling == {"max_tokens": 5, "temperature": 0.0}


def test_the_short_form_may_be_a_conversation_with_a_name() -> None:
    row = good({"custom_id": "q", "messages": [{"role": "user", "content": "Hi"}]})
    assert (row.custom_id, row.url) == ("q", "/v1/chat/completions")
    assert row.body.messages == ({"role": "user", "content": "Hi"},)


def test_openai_rows_of_both_urls_are_read() -> None:
    assert good(completion()).body.prompt == "Hi"
    assert good(chat()).body.messages == ({"role": "user", "content": "Hi"},)


def test_sampling_fields_keep_their_names_and_null_is_as_absent() -> None:
    row = good(completion(top_p=0.5, top_k=3, min_p=0.1, n=2, seed=7, stop="\n", min_tokens=40, max_tokens=None))
    assert row.body.sampling == {
        "top_p": 0.5, "top_k": 3, "min_p": 0.1, "n": 2, "seed": 7, "stop": ("\n",), "min_tokens": 40,
    }  # fmt: skip


def test_max_completion_tokens_is_max_tokens_by_its_newer_name() -> None:
    assert good(chat(max_completion_tokens=9)).body.sampling == {"max_tokens": 9}


def test_logprobs_are_a_number_in_completions_and_a_switch_in_chats() -> None:
    assert good(completion(logprobs=2)).body.sampling == {"logprobs": 2}
    assert good(chat(logprobs=True, top_logprobs=4)).body.sampling == {"logprobs": 4}
    assert good(chat(logprobs=True)).body.sampling == {"logprobs": 0}
    assert "needs logprobs true" in reason(chat(top_logprobs=4))


def test_echo_wants_log_probabilities_of_the_prompt_where_it_wants_any() -> None:
    assert good(completion(echo=True, logprobs=2)).body.sampling == {"logprobs": 2, "prompt_logprobs": 2}
    assert good(completion(echo=True)).body.sampling == {}
    assert good(completion(echo=True)).body.echo and not good(completion(echo=False)).body.echo
    assert "echo must be" in reason(completion(echo=1))
    assert "echo True is not supported" in reason(chat(echo=True))


def test_no_tokens_may_be_asked_for_where_the_prompt_is_the_answer() -> None:
    row = good(completion(echo=True, max_tokens=0))
    assert row.body.scores_only and row.body.sampling == {"max_tokens": 1}
    assert "max_tokens" in reason(completion(max_tokens=0))
    assert "max_tokens" in reason(completion(echo=True, max_tokens=False))


def test_a_prompt_may_be_token_ids_or_a_list_of_one_prompt() -> None:
    assert good({"prompt": [1, 2, 3]}).body.prompt_token_ids == (1, 2, 3)
    assert good({"prompt": ["Hi"]}).body.prompt == "Hi"
    assert good({"prompt": [[1, 2]]}).body.prompt_token_ids == (1, 2)
    assert "write a row for each" in reason({"prompt": ["one", "two"]})


def test_parts_of_text_are_joined_and_a_developer_is_a_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    row = good({"messages": [{"role": "developer", "content": parts}]})
    assert row.body.messages == ({"role": "system", "content": "ab"},)


@pytest.mark.parametrize("field", ["model", "metadata", "user", "store", "stream", "service_tier"])
def test_fields_that_only_label_a_request_are_passed_over(field: str) -> None:
    assert good(completion(**{field: "anything"})).body.sampling == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function"}]),
        ("response_format", {"type": "xml"}),
        ("logit_bias", {"50256": -101}),
        ("logit_bias", [1]),
        ("presence_penalty", 2.5),
        ("frequency_penalty", -3),
        ("repetition_penalty", 0),
        ("allowed_token_ids", []),
        ("prompt_logprobs", 1),
        ("best_of", 3),
        ("temprature", 0.1),
    ],
)
def test_a_field_that_would_change_the_answer_is_refused_by_name(field: str, value: object) -> None:
    assert field in reason(completion(**{field: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [("tools", []), ("best_of", 1), ("use_beam_search", False)],
)
def test_such_a_field_is_passed_over_where_it_asks_for_nothing(field: str, value: object) -> None:
    assert good(completion(**{field: value})).body.sampling == {}


def test_penalties_and_biases_are_read_as_openai_and_vllm_write_them() -> None:
    said = {
        "presence_penalty": 0.5, "frequency_penalty": -1, "repetition_penalty": 1.1, "logit_bias": {"50256": -100},
        "allowed_token_ids": [5, 50256], "bad_words": ["foul"],
    }  # fmt: skip
    params = SamplingParams(**good(completion(**said)).body.sampling)
    assert params.biases == ((50256, -100.0),)
    assert params == SamplingParams(
        presence_penalty=0.5, frequency_penalty=-1.0, repetition_penalty=1.1, logit_bias={50256: -100},
        allowed_token_ids=(5, 50256), bad_words=("foul",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([], "a row is a JSON object, got list"),
        ({}, "prompt is missing"),
        ({"prompt": None}, "prompt is missing"),
        ({"prompt": 5}, "prompt must be a string, got 5"),
        ({"prompt": []}, "prompt is empty"),
        ({"prompt": [1, True]}, "prompt must be a string"),
        ({"prompt": "a\ud800b"}, "half a surrogate pair at character 1"),
        ({"custom_id": 7, "prompt": "Hi"}, "custom_id must be a string, got 7"),
        ({"messages": []}, "messages is missing"),
        ({"prompt": "Hi", "messages": []}, "prompt does not belong to this url"),
        (completion() | {"url": "/v1/embeddings"}, "url must be /v1/completions or /v1/chat/completions"),
        (completion() | {"method": "GET"}, "method must be POST, got 'GET'"),
        (completion() | {"body": "text"}, "body must be a JSON object"),
        (completion() | {"max_tokens": 5}, "unknown field 'max_tokens' beside custom_id"),
        (completion(messages=[]), "does not belong to this url"),
        (chat(messages="Hi"), "messages is missing"),
        (chat(messages=["Hi"]), "messages[0] must be an object"),
        (chat(messages=[{"role": "tool", "content": "Hi"}]), "messages[0].role must be one of assistant, developer"),
        (chat(messages=[{"role": "user", "content": None}]), "messages[0].content must be a string"),
        (
            chat(messages=[{"role": "user", "content": [{"type": "image_url"}]}]),
            "must be of type text, got 'image_url'",
        ),
    ],
)
def test_a_row_of_another_shape_says_what_it_should_be(row: Any, said: str) -> None:
    assert said in reason(row)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("max_tokens", 0, "max_tokens must be 1 or more, got 0"),
        ("max_tokens", "many", "max_tokens must be a whole number, got 'many'"),
        ("max_tokens", True, "max_tokens must be a whole number, got True"),
        ("max_tokens", 1.5, "max_tokens must be a whole number, got 1.5"),
        ("temperature", -1, "temperature must be 0 (greedy) or more, got -1.0"),
        ("temperature", 10**400, "temperature is too large"),
        ("top_p", 1.5, "top_p must be above 0 and at most 1, got 1.5"),
        ("n", 0, "n must be 1 or more"),
        ("n", 10**9, "n must be at most 128"),
        ("logprobs", 500, "logprobs must be at most 20"),
        ("stop", [1], "stop must be a string, got 1"),
        ("stop", "", "stop holds an empty string"),
        ("ignore_eos", "yes", "ignore_eos must be true or false"),
        ("stop_token_ids", 5, "stop_token_ids must be a list of token ids"),
    ],
)
def test_an_absurd_value_is_named_with_its_limit(field: str, value: object, said: str) -> None:
    assert said in reason(completion(**{field: value}))


def test_a_file_may_begin_with_a_byte_order_mark() -> None:
    row = parse_row(1, b'\xef\xbb\xbf{"prompt": "Hi"}')
    assert isinstance(row, BatchRow)
    assert row.body.prompt == "Hi"


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"prompt": "Hi"', "not JSON: Expecting ',' delimiter at column 16"),
        (b"Once upon a time", "not JSON"),
        (b'{"prompt": "\xff"}', "not UTF-8: byte 0xff at position 12"),
        (b'{"prompt": "Hi", "temperature": NaN}', "NaN is no number"),
        (b'{"prompt": "Hi", "temperature": 1e999}', "temperature is too large"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"prompt": "Hi", "seed": ' + b"9" * 5000 + b"}", "a number in the row has more than 4,300 digits"),
    ],
)
def test_a_line_that_is_no_json_says_where(raw: bytes, said: str) -> None:
    found = parse_row(1, raw)
    assert isinstance(found, BadRow)
    assert said in found.reason


def test_lines_count_from_one_and_empty_lines_are_counted_but_skipped() -> None:
    lines = [b'\xef\xbb\xbf{"prompt": "a"}\r', b"", b"  ", b'{"prompt": "b"}', b""]
    assert [(row.line, type(row)) for row in parse_rows(lines)] == [(1, BatchRow), (4, BatchRow)]


def test_the_second_row_of_a_name_is_refused_and_points_to_the_first() -> None:
    first, second = parse_rows([b'{"custom_id": "a", "prompt": "x"}', b'{"custom_id": "a", "prompt": "y"}'])
    assert isinstance(first, BatchRow)
    assert second == BadRow(2, "a", "custom_id 'a' is that of line 1 too")


@given(st.binary() | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["prompt", "messages", "body", "url", "role", "content", "n", "stop", "logprobs"]), inner),
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_line_whatever_raises(raw: bytes) -> None:
    assert isinstance(parse_row(1, raw), BatchRow | BadRow)


def output(**changes: Any) -> RequestOutput:
    table = {5: Logprob(-1.0, 3, "é"), 6: Logprob(-0.1, 1, "b"), 7: Logprob(-0.2, 2, "c")}
    choice = CompletionOutput(0, "éé", (5, 5), **({"logprobs": (table, table), "finish_reason": "stop"} | changes))
    return RequestOutput("0", None, (1, 2, 3), (choice,), True)


def test_a_completion_is_answered_in_openai_s_form() -> None:
    line: Any = answer(good(completion(logprobs=2)), output(), "model", 100)
    assert line["custom_id"] == "a" and line["error"] is None
    assert line["response"]["status_code"] == 200
    body = line["response"]["body"]
    assert (body["object"], body["model"], body["created"]) == ("text_completion", "model", 100)
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    (choice,) = body["choices"]
    assert (choice["index"], choice["text"], choice["finish_reason"]) == (0, "éé", "stop")
    assert choice["logprobs"]["tokens"] == ["é", "é"]
    assert choice["logprobs"]["token_logprobs"] == [-1.0, -1.0]
    assert choice["logprobs"]["text_offset"] == [0, 1]
    assert choice["logprobs"]["top_logprobs"][0] == {"é": -1.0, "b": -0.1, "c": -0.2}


def echoed(max_tokens: int) -> dict[str, Any]:
    """The one choice, and the usage, of an answer that begins with its prompt, "Hi!" in three tokens."""
    row = good(completion(prompt="Hi!", echo=True, logprobs=1, max_tokens=max_tokens))
    row = replace(row, body=replace(row.body, echoed=Echo("Hi!", "H")))
    i, mark = {2: Logprob(-2.0, 2, "i"), 9: Logprob(-0.5, 1, "o")}, {3: Logprob(-0.25, 1, "!")}
    line: Any = answer(row, replace(output(), prompt_logprobs=(None, i, mark)), "m", 0)
    body = line["response"]["body"]
    return body["choices"][0] | {"usage": body["usage"]}


def test_an_echo_is_openai_s_the_prompt_s_tokens_come_first_and_the_first_has_no_number() -> None:
    choice = echoed(max_tokens=2)
    assert choice["text"] == "Hi!éé"
    drawn = {"é": -1.0, "b": -0.1, "c": -0.2}
    assert choice["logprobs"] == {
        "tokens": ["H", "i", "!", "é", "é"],
        "token_logprobs": [None, -2.0, -0.25, -1.0, -1.0],
        "top_logprobs": [None, {"i": -2.0, "o": -0.5}, {"!": -0.25}, drawn, drawn],
        "text_offset": [0, 1, 2, 3, 4],
    }
    assert choice["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def test_an_echo_of_no_tokens_is_the_prompt_and_its_numbers() -> None:
    choice = echoed(max_tokens=0)
    assert (choice["text"], choice["finish_reason"]) == ("Hi!", "length")
    assert choice["logprobs"] == {
        "tokens": ["H", "i", "!"],
        "token_logprobs": [None, -2.0, -0.25],
        "top_logprobs": [None, {"i": -2.0, "o": -0.5}, {"!": -0.25}],
        "text_offset": [0, 1, 2],
    }
    assert choice["usage"] == {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}


def test_a_chat_is_answered_in_openai_s_form() -> None:
    line: Any = answer(good(chat(logprobs=True, top_logprobs=2)), output(), "model", 100)
    body = line["response"]["body"]
    assert body["object"] == "chat.completion"
    (choice,) = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": "éé", "refusal": None}
    first = choice["logprobs"]["content"][0]
    assert (first["token"], first["logprob"], first["bytes"]) == ("é", -1.0, [0xC3, 0xA9])
    # The drawn token is third, so it is not among the two likeliest.
    assert [top["token"] for top in first["top_logprobs"]] == ["b", "c"]


def test_token_ids_come_with_the_answer_when_asked_for() -> None:
    with_ids: Any = answer(good(completion(return_token_ids=True)), output(), "m", 0)
    without: Any = answer(good(completion()), output(logprobs=None), "m", 0)
    assert with_ids["response"]["body"]["choices"][0]["token_ids"] == [5, 5]
    assert "token_ids" not in without["response"]["body"]["choices"][0]
    assert without["response"]["body"]["choices"][0]["logprobs"] is None


def test_a_refusal_holds_the_line_number_and_the_reason() -> None:
    line = refusal(BadRow(12, None, "not JSON"))
    assert (line["custom_id"], line["response"]) == (None, None)
    assert line["error"] == {"code": "invalid_request", "message": "line 12: not JSON", "line": 12}
