"""Calls of tools in an answer: whole, cut into pieces anywhere, damaged, and never invented."""

import json

import pytest

from windlass.server.chats.tool_calls import ToolCall, ToolCallReader

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Türin"}}\n</tool_call>'
PARSED = ToolCall("weather", '{"city": "Türin"}')


def read(*pieces: str, most: int | None = None) -> tuple[str, list[ToolCall]]:
    """The text and the calls of an answer that comes in pieces."""
    reader = ToolCallReader(most)
    parts = [part for piece in pieces for part in reader.feed(piece)] + reader.feed("", ended=True)
    calls = [part for part in parts if isinstance(part, ToolCall)]
    assert reader.found == len(calls)
    return "".join(part for part in parts if isinstance(part, str)), calls


def test_an_answer_without_a_call_is_its_text_to_the_last_space() -> None:
    assert read("It is < 5, and \n </tool_call> is a word. \n") == ("It is < 5, and \n </tool_call> is a word. \n", [])


def test_a_call_is_found_and_the_text_before_it_kept() -> None:
    assert read(f"Let me see.\n{CALL}") == ("Let me see.", [PARSED])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 11])
def test_however_the_answer_is_cut_the_same_is_found(size: int) -> None:
    text = f"One.\n\n{CALL}\n{CALL}\nTwo <tool"
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert read(*pieces) == read(text) == ("One.\nTwo <tool", [PARSED, PARSED])


def test_nothing_of_a_mark_is_shown_before_it_is_known_not_to_be_one() -> None:
    reader = ToolCallReader()
    assert reader.feed("a <tool_") == ["a"]
    assert reader.feed("box>") == [" <tool_box>"]


@pytest.mark.parametrize(
    "inside", ["no json", "[1]", '{"arguments": {}}', '{"name": 3}', '{"name": "a", "arguments": 3}']
)
def test_what_is_no_call_stays_text(inside: str) -> None:
    block = f"<tool_call>{inside}</tool_call>"
    assert read(block) == (block, [])


def test_a_call_whose_end_was_cut_off_counts_only_when_it_is_whole() -> None:
    whole = CALL.removesuffix("\n</tool_call>")
    assert read(whole) == ("", [PARSED])
    assert read(whole[:-1]) == (whole[:-1], [])


def test_arguments_that_are_a_string_already_stay_as_they_are() -> None:
    call = json.dumps({"name": "f", "arguments": '{"a": 1}'})
    assert read(f"<tool_call>{call}</tool_call>") == ("", [ToolCall("f", '{"a": 1}')])


def test_a_call_without_arguments_has_an_empty_object() -> None:
    assert read('<tool_call>{"name": "now"}</tool_call>') == ("", [ToolCall("now", "{}")])


def test_only_as_many_calls_as_are_wanted_are_shown() -> None:
    assert read(f"A {CALL}", f"{CALL} more", most=1) == ("A", [PARSED])
