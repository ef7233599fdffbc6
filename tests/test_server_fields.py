"""Which fields of a question are honoured, passed over and refused; the rule is in server/questions/fields.py."""

from typing import Any

import pytest
from pydantic import ValidationError

from windlass.server.batches.routes import BatchBody
from windlass.server.chats.body import ChatBody
from windlass.server.completions.body import CompletionBody
from windlass.server.errors.api_error import ApiError
from windlass.server.questions.fields import BELONGS_ELSEWHERE, FOREIGN

TALK = [{"role": "user", "content": "Hi"}]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"temprature": 1}, "temperature"),
    ({"max_token": 5}, "max_tokens"),
    ({"audio": {"voice": "alloy"}}, "audio"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"chat_template": "{{ 1 }}"}, "chat_template"),
    ({"suffix": "end"}, "suffix"),
    ({"guided_json": {}}, "guided_json"),
    ({"use_beam_search": True}, "use_beam_search"),
    ({"echo": True}, "echo"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, "max_completion_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
]
PASSED: list[dict[str, Any]] = [
    {"user": "me", "metadata": {"a": "b"}, "store": True, "service_tier": "auto", "prediction": None},
    {"modalities": ["text"], "function_call": "auto", "functions": [], "use_beam_search": False, "audio": None},
    {"keep_alive": "5m", "cache_prompt": True, "some_thing_of_another_server": [1]},
    {"tool_choice": "auto", "parallel_tool_calls": True, "tools": []},
    {"max_tokens": 3, "max_completion_tokens": 3},
]


@pytest.mark.parametrize(("fields", "named"), REFUSED, ids=[name for _, name in REFUSED])
def test_what_would_change_the_answer_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ApiError) as caught:
        ChatBody(messages=TALK, **fields).check()
    assert caught.value.status == 400
    assert named in caught.value.message
    assert caught.value.param in {named, *fields}


@pytest.mark.parametrize("fields", PASSED)
def test_what_would_not_is_passed_over(fields: dict[str, Any]) -> None:
    ChatBody(messages=TALK, **fields).check()


def test_null_asks_for_nothing_wherever_it_stands() -> None:
    names = (FOREIGN.keys() | BELONGS_ELSEWHERE.keys() | ChatBody.model_fields.keys()) - {"messages"}
    ChatBody(messages=TALK, **dict.fromkeys(names)).check()


@pytest.mark.parametrize("wrong", ["x", 101, None, True, float("nan")])
def test_of_many_wrong_entries_one_is_told(wrong: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        ChatBody(messages=TALK, logit_bias={"3": 1, **{str(number): wrong for number in range(5, 1000)}})
    assert [error["loc"] for error in caught.value.errors()] == [("logit_bias", "5")]
    with pytest.raises(ValidationError) as caught:
        BatchBody(
            input_file_id="f",
            endpoint="/v1/completions",
            metadata={"a": "b", **dict.fromkeys(map(str, range(1000)), 5)},
        )
    assert [error["loc"] for error in caught.value.errors()] == [("metadata", "0")]


def test_right_entries_are_taken_whole_and_too_many_labels_are_not() -> None:
    bias = {str(number): number / 10 for number in range(1000)}
    assert ChatBody(messages=TALK, logit_bias=bias).logit_bias == bias
    assert BatchBody(input_file_id="f", endpoint="/v1/completions", metadata=None).metadata is None
    labels = {str(number): "b" for number in range(16)}
    assert BatchBody(input_file_id="f", endpoint="/v1/completions", metadata=labels).metadata == labels
    with pytest.raises(ValidationError, match="at most 16 items"):
        BatchBody(input_file_id="f", endpoint="/v1/completions", metadata=labels | {"one": "more"})


def test_no_field_is_both_honoured_and_refused() -> None:
    honoured = ChatBody.model_fields.keys() | CompletionBody.model_fields.keys()
    assert not honoured & FOREIGN.keys()
    for name, place in BELONGS_ELSEWHERE.items():
        assert name in (CompletionBody if place == "/v1/completions" else ChatBody).model_fields


def test_best_of_is_taken_where_it_is_n() -> None:
    CompletionBody(prompt="a", best_of=2, n=2).check()
    with pytest.raises(ApiError, match="best_of 3 is not n, 1"):
        CompletionBody(prompt="a", best_of=3).check()


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": "1"},
        {"n": True},
        {"n": 0},
        {"max_tokens": 1.5},
        {"top_p": 0},
        {"temperature": float("nan")},
        {"seed": 2**70},
        {"logit_bias": [1]},
        {"logit_bias": {"5": 101}},
        {"stop": ""},
        {"stop": 5},
        {"stream": "yes"},
        {"prompt": []},
        {"prompt": [[]]},
        {"prompt": ["a", 1]},
        {"prompt": [-1]},
        {"prompt": None},
    ],
)
def test_values_of_another_kind_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CompletionBody(**({"prompt": "a"} | fields))


def test_a_bias_on_what_is_no_id_is_refused() -> None:
    with pytest.raises(ApiError, match="'the' is no token id"):
        CompletionBody(prompt="a", logit_bias={"the": 5}).given()


def test_developer_is_system_and_parts_of_text_are_joined() -> None:
    parts = [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief"}]
    body = ChatBody(messages=[{"role": "developer", "content": parts}, *TALK])
    assert body.conversation() == [{"role": "system", "content": "Be brief"}, *TALK]


def test_arguments_of_past_calls_reach_the_template_as_objects() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    body = ChatBody(
        messages=[
            *TALK,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "2"},
        ]
    )
    [_, asked, told] = body.conversation()
    assert asked["tool_calls"][0]["function"] == {"name": "f", "arguments": {"a": 1}}
    assert told == {"role": "tool", "content": "2", "tool_call_id": "c"}
    call["function"] = {"name": "f", "arguments": "{"}
    with pytest.raises(ApiError, match=r"messages\[0\].tool_calls\[0\].function.arguments is not JSON"):
        ChatBody(messages=[{"role": "assistant", "tool_calls": [call]}]).conversation()
