"""A conversation goes into a file and comes back the same; a file of anything else is refused with what it lacks."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.errors import StorageError, UsageError
from windlass.facts.conversation import Conversation
from windlass.jobs.conversation_file import read_conversation, write_conversation

TALK = Conversation("Be brief.", (("Hi", "Hello."), ("2+2?", "4")))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.none() | TEXTS, st.lists(st.tuples(TEXTS, TEXTS)).map(tuple))
def test_json_and_back_is_the_same_conversation(system: str | None, exchanges: tuple[tuple[str, str], ...]) -> None:
    conversation = Conversation(system, exchanges)
    assert Conversation.from_json(conversation.as_json()) == conversation


def test_the_file_holds_the_messages_that_openai_clients_take() -> None:
    assert json.loads(TALK.as_json()) == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "2+2?"},
            {"role": "assistant", "content": "4"},
        ]
    }


def test_a_turn_makes_a_new_conversation() -> None:
    longer = TALK.answered("Why?", "Because.")
    assert longer.exchanges[:2] == TALK.exchanges and longer.exchanges[2] == ("Why?", "Because.")
    assert TALK.cleared() == Conversation("Be brief.")
    assert TALK.under(None).messages == TALK.messages[1:]
    assert [message.role for message in TALK.asking("Why?")][-2:] == ["assistant", "user"]


def test_without_a_template_it_is_one_text_that_ends_with_the_question() -> None:
    story = Conversation("A tale.", (("Once", " there was a dog."), ("It", " ran.")))
    assert story.continuing("Then") == "A tale.\nOnce there was a dog.\nIt ran.\nThen"
    assert Conversation().continuing("Once") == "Once"


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("root:x:0:0", "it is no JSON"),
        ("[" * 100_000, "it is no JSON"),
        ("[]", 'it holds no list "messages"'),
        ('{"messages": {}}', 'it holds no list "messages"'),
        ('{"messages": ["Hi"]}', "messages[0] must be an object with role and content, got 'Hi'"),
        ('{"messages": [{"role": "user"}]}', "messages[0].content must be a string, got None"),
        (
            '{"messages": [{"role": "tool", "content": "x"}]}',
            "messages[0].role must be system, user or assistant, got 'tool'",
        ),
        (
            '{"messages": [{"role": "assistant", "content": "x"}]}',
            "messages[0].role must be user, as the two take turns, got assistant",
        ),
        (
            '{"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]}',
            "messages[1].role must be assistant, as the two take turns, got system",
        ),
        ('{"messages": [{"role": "user", "content": "x"}]}', "messages[0] is a question without an answer"),
        ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "messages[0].content holds half a surrogate pair"),
    ],
)
def test_a_file_that_is_something_else_says_what_it_lacks(tmp_path: Path, text: str, flaw: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(UsageError) as error:
        read_conversation(str(file))
    assert f"{file} is no conversation: {flaw}" in str(error.value)
    assert 'a conversation file holds {"messages": [...]}' in str(error.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"\x80\x00")
    with pytest.raises(UsageError, match="is no conversation: byte 0 is not UTF-8"):
        read_conversation(str(tmp_path / "weights"))


def test_a_conversation_replaces_an_earlier_one_and_nothing_else(tmp_path: Path) -> None:
    file, other = tmp_path / "talk.json", tmp_path / "thesis.txt"
    other.write_text("ten years of work")
    for conversation in (Conversation(), TALK):
        write_conversation(str(file), conversation)
        assert read_conversation(str(file)) == conversation
    with pytest.raises(UsageError, match="exists and is no conversation, so it stays as it is; name another file"):
        write_conversation(str(other), TALK)
    assert other.read_text() == "ten years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["talk.json", "thesis.txt"]


def test_a_disk_that_fails_leaves_the_earlier_conversation_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "talk.json"
    write_conversation(str(file), TALK)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("windlass.jobs.conversation_file.os.replace", full)
    with pytest.raises(StorageError, match="cannot write .*No space left on device; name a file in a folder"):
        write_conversation(str(file), Conversation())
    assert read_conversation(str(file)) == TALK
    assert [path.name for path in tmp_path.iterdir()] == ["talk.json"]


def test_a_full_device_is_said() -> None:
    with pytest.raises(StorageError, match="cannot write /dev/full: No space left on device"):
        write_conversation("/dev/full", TALK)


@pytest.mark.parametrize("job", [read_conversation, lambda name: write_conversation(name, TALK)])
def test_a_folder_is_no_place_for_a_conversation(tmp_path: Path, job: Callable[[str], object]) -> None:
    with pytest.raises(UsageError, match="is a folder; name a file"):
        job(str(tmp_path))
