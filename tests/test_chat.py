"""A chat as lines in and events out: what is asked of the model, what stays of the conversation, what a person hears.

The engine is a stand-in whose answers are known; the prompts it is given are compared with the plain form, and on a
real model with transformers' own chat template.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from fake_llm import FakeLLM, FakeTokenizer
from windlass.engine.llm import LLM
from windlass.errors import BudgetError, RequestError, UsageError
from windlass.facts.chat_event import AnswerEnd, AnswerText, ChatEvent, Farewell, Notice
from windlass.facts.conversation import Conversation
from windlass.facts.plan import Plan
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.jobs.chat import Chat
from windlass.jobs.demo_checkpoint import write_checkpoint
from windlass.jobs.local_answerer import WITHOUT_TEMPLATE, LocalAnswerer


class Words(FakeTokenizer):
    """Characters; the template writes each message on a line, after the first letter of who says it."""

    def __init__(self, has_chat_template: bool) -> None:
        self.has_chat_template = has_chat_template

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def chat_text(self, messages: Sequence[Mapping[str, str]], tools: object = None) -> str:
        return "".join(f"{m['role'][0]}:{m['content']}\n" for m in messages) + "a:"


class Engine(FakeLLM):
    """Answers with x; budgets above `most_room` tokens are refused."""

    def __init__(
        self,
        template: bool = True,
        max_model_len: int = 512,
        most_room: int = 1 << 30,
        ends_after: int | None = None,
    ) -> None:
        super().__init__(max_model_len, ends_after)
        self.tokenizer = Words(template)
        self.prompts: list[str] = []
        self._most_room = most_room

    def prepare(self, workload: Workload) -> Plan:
        if workload.prompt_len + workload.gen_len > self._most_room:
            raise BudgetError("it needs more; use --host-memory 9MiB")
        return super().prepare(workload)

    def stream(self, prompts: Any, params: Any) -> Iterator[Any]:
        self.prompts.append(self.tokenizer.decode(prompts[0]["prompt_token_ids"]))
        return super().stream(prompts, params)


def chat(engine: Engine, max_tokens: int = 3, **settings: Any) -> Chat:
    return Chat(LocalAnswerer(engine, SamplingParams(max_tokens=max_tokens, temperature=0.0)), **settings)


def after(talk: Chat, *lines: str) -> list[ChatEvent]:
    """The events of the last line."""
    events: list[ChatEvent] = []
    for line in lines:
        events = list(talk.take(line))
    return events


def text_of(events: Sequence[ChatEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, AnswerText))


def said(events: Sequence[ChatEvent]) -> str:
    return "\n".join(line for event in events if isinstance(event, Notice) for line in event.lines)


class TestAnswers:
    def test_come_in_pieces_and_end_once(self) -> None:
        events = after(chat(Engine()), "Hi")
        assert [event.text for event in events if isinstance(event, AnswerText)] == ["x", "x", "x"]
        (end,) = [event for event in events if isinstance(event, AnswerEnd)]
        assert (end.question, end.stopped, end.output is not None and end.output.finished) == ("Hi", False, True)

    def test_are_asked_with_all_that_was_said(self) -> None:
        engine = Engine()
        talk = chat(engine, system="Be brief")
        after(talk, "Hi", "Why?")
        assert engine.prompts == ["s:Be brief\nu:Hi\na:", "s:Be brief\nu:Hi\na:xxx\nu:Why?\na:"]
        assert talk.conversation == Conversation("Be brief", (("Hi", "xxx"), ("Why?", "xxx")))

    def test_go_on_from_the_text_where_there_is_no_template(self) -> None:
        engine = Engine(template=False)
        talk = chat(engine, system="A tale")
        assert talk.first_notice().lines == (WITHOUT_TEMPLATE,)
        after(talk, "Once", "Then")
        assert engine.prompts == ["A tale\nOnce", "A tale\nOncexxx\nThen"]

    def test_that_were_cut_say_why(self) -> None:
        assert "cut at 3 tokens, as --max-tokens has it" in said(after(chat(Engine()), "Hi"))
        short = chat(Engine(max_model_len=10), max_tokens=50)
        assert "cut: the conversation fills the 10 tokens that the model takes; /clear begins" in said(
            after(short, "Hi")
        )

    def test_to_nothing_are_not_asked_for(self) -> None:
        engine = Engine()
        assert after(chat(engine), "", "   ", '""" """') == [] == engine.prompts


class TestMessages:
    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (("one \\", "two"), "one \ntwo"),
            (('"""one', "", 'two"""'), "one\n\ntwo"),
            (('"""', "one", '"""'), "one"),
            (('"""one"""',), "one"),
            (('"""/clear', 'is a command"""'), "/clear\nis a command"),
            ((" /clear",), " /clear"),
            (('"""a\\', '"""'), "a\\"),
            (("pasted\nat once",), "pasted\nat once"),
            (('say """ twice',), 'say """ twice'),
        ],
    )
    def test_of_many_lines_are_one(self, lines: Sequence[str], message: str) -> None:
        engine = Engine()
        talk = chat(engine)
        *earlier, last = lines
        for line in earlier:
            assert list(talk.take(line)) == [] and talk.is_open
        after(talk, last)
        assert engine.prompts == [f"u:{message}\na:"] and not talk.is_open

    @pytest.mark.parametrize(("line", "opener"), [('"""one', '"""'), ("one\\", "a backslash")])
    def test_that_never_end_are_not_passed_over(self, line: str, opener: str) -> None:
        talk = chat(Engine())
        after(talk, line)
        with pytest.raises(UsageError, match=f"inside a message that {opener} keeps open, and it was not asked"):
            talk.close()
        talk.drop()
        talk.close()


class TestStopping:
    def test_keeps_what_was_said(self) -> None:
        answers = iter([False, True])
        talk = chat(Engine(), max_tokens=9, stopped=lambda: next(answers))
        events = after(talk, "Hi")
        assert (text_of(events), said(events)) == ("xx", "stopped")
        assert talk.conversation.exchanges == (("Hi", "xx"),)

    def test_by_force_keeps_it_too(self) -> None:
        talk = chat(Engine(ends_after=2), max_tokens=9)
        events = after(talk, "Hi")
        assert any(isinstance(event, AnswerEnd) and event.stopped for event in events)
        assert talk.conversation.exchanges == (("Hi", "xx"),)

    def test_before_a_word_takes_the_message_back(self) -> None:
        talk = chat(Engine(ends_after=0))
        assert "the message was taken back" in said(after(talk, "Hi"))
        assert talk.conversation == Conversation()

    def test_by_leaving_the_events_keeps_what_was_said(self) -> None:
        talk = chat(Engine(), max_tokens=9)
        events = talk.take("Hi")
        next(events)
        events.close()
        assert talk.conversation.exchanges == (("Hi", "x"),)


class TestRoom:
    def test_is_made_in_advance_and_no_turn_asks_for_another_plan(self) -> None:
        engine = Engine(max_model_len=100_000)
        talk = chat(engine, max_tokens=1024)
        talk.open()
        after(talk, "Hi", "Why?")
        assert set(engine.workloads) == {Workload(1, 3072, 1024)}

    def test_doubles_when_it_is_outgrown(self) -> None:
        engine = Engine(max_model_len=100_000)
        talk = chat(engine)
        talk.open()
        after(talk, "Hi" * 3000)
        assert engine.workloads[-1] == Workload(1, 8189, 3)

    def test_is_as_much_as_the_budget_has(self) -> None:
        talk = chat(Engine(most_room=1100, max_model_len=100_000), max_tokens=2000)
        talk.open()
        assert "the budget has room for a conversation of 1024 tokens" in talk.first_notice().lines
        assert "cut: the budget has room for 1024 tokens" in said(after(talk, "Hi"))
        with pytest.raises(BudgetError, match="use --host-memory 9MiB, or begin a shorter conversation with /clear"):
            after(talk, "Hi" * 1000)

    def test_is_refused_where_the_budget_has_hardly_any(self) -> None:
        with pytest.raises(BudgetError):
            chat(Engine(most_room=200, max_model_len=100_000)).open()

    def test_ends_with_the_model_and_nothing_is_dropped_in_silence(self) -> None:
        engine = Engine(max_model_len=32)
        talk = chat(engine)
        after(talk, "Hello")
        before = talk.conversation
        with pytest.raises(RequestError) as error:
            after(talk, "y" * 30)
        assert "the conversation has 49 tokens with this message, and the model takes 32" in str(error.value)
        assert "the message was not added" in str(error.value) and "/clear" in str(error.value)
        assert talk.conversation == before and len(engine.prompts) == 1
        after(talk, "/clear", "Hi")
        assert engine.prompts[-1] == "u:Hi\na:"


class TestCommands:
    def test_system_is_set_and_taken_away(self) -> None:
        engine = Engine()
        talk = chat(engine)
        after(talk, "/system Be brief", "Hi", "/clear", "Ho", "/system", "/clear", "Ha")
        assert engine.prompts == ["s:Be brief\nu:Hi\na:", "s:Be brief\nu:Ho\na:", "u:Ha\na:"]

    def test_a_saved_conversation_is_gone_on_with(self, tmp_path: Path) -> None:
        file, engine = tmp_path / "a talk.json", Engine()
        talk = chat(engine)
        assert f"2 messages kept in {file}" in said(after(talk, "Hi", f"/save {file}"))
        other = chat(engine)
        assert f"2 messages loaded from {file}" in said(after(other, f"/load {file}"))
        after(other, "Why?")
        assert engine.prompts[-1] == "u:Hi\na:xxx\nu:Why?\na:"

    def test_stats_stand_beside_their_limits(self) -> None:
        talk = chat(Engine())
        text = said(after(talk, "Hi", "/stats"))
        assert "context  10 of 512 tokens, 1 answer(s)" in text  # 7 of the template and message, 3 of the answer
        assert "tok/s" in text and "budget" in text and "bound by" in text

    def test_exit_leaves(self) -> None:
        for line in ("/exit", "/bye", "/quit"):
            assert after(chat(Engine()), line) == [Farewell()]

    def test_help_names_every_command(self) -> None:
        text = said(after(chat(Engine()), "/help"))
        assert all(name in text for name in ("/system", "/save", "/load", "/stats", "/clear", "/help", "/exit", '"""'))

    @pytest.mark.parametrize(
        ("line", "flaw"),
        [
            ("/hlep", "/hlep is no command (did you mean /help)"),
            ("/etc/passwd says what?", "/etc/passwd is no command (/help lists them); put a space before"),
            ("/save", "/save needs the name of a file"),
            ("/load", "/load needs the name of a file"),
            ("/clear all", "/clear takes nothing after it, got 'all'"),
            ("/load nowhere.json", "there is no file nowhere.json; name a file that /save wrote"),
        ],
    )
    def test_that_make_no_sense_change_nothing(self, line: str, flaw: str) -> None:
        talk = chat(Engine())
        after(talk, "Hi")
        before = talk.conversation
        with pytest.raises(UsageError) as error:
            after(talk, line)
        assert flaw in str(error.value) and talk.conversation == before


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose tokens are bytes, with a chat template."""
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"], hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, vocab_size=259, max_position_embeddings=256, bos_token_id=1,
        eos_token_id=2, initializer_range=0.1, dtype="float32",
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "chatty"
    write_checkpoint(folder, config)
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}[assistant]"
    (folder / "chat_template.jinja").write_text(template)
    return folder


class TestARealModel:
    def test_says_what_transformers_says_turn_after_turn_with_one_loading(self, folder: Path) -> None:
        model, words = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        params = SamplingParams(max_tokens=4, temperature=0.0, ignore_eos=True)
        messages: list[dict[str, str]] = [{"role": "system", "content": "Be brief"}]
        with LLM(folder, device="cpu") as llm:
            talk = Chat(LocalAnswerer(llm, params), "Be brief")
            talk.open()
            engine = llm._engine
            for question in ("Once", "Why?"):
                messages.append({"role": "user", "content": question})
                ids = words.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
                made = model.generate(
                    torch.tensor([ids]), max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0
                )
                (end,) = [event for event in after(talk, question) if isinstance(event, AnswerEnd)]
                assert end.output is not None
                assert list(end.output.prompt_token_ids) == ids
                assert list(end.output.outputs[0].token_ids) == made[0, len(ids) :].tolist()
                messages.append({"role": "assistant", "content": end.output.outputs[0].text})
            assert llm._engine is engine

    def test_stays_loaded_and_right_after_an_answer_was_stopped(self, folder: Path) -> None:
        params = SamplingParams(max_tokens=24, temperature=0.0, ignore_eos=True)
        spoken: list[str] = []
        with LLM(folder, device="cpu") as llm:
            alone = text_of(after(Chat(LocalAnswerer(llm, params)), "Why?"))
            talk = Chat(LocalAnswerer(llm, params), stopped=lambda: any(spoken))
            talk.open()
            engine = llm._engine
            for event in talk.take("Once"):
                spoken += [event.text] if isinstance(event, AnswerText) else []
            assert isinstance(event, Notice) and event.lines == ("stopped",)
            assert talk.conversation.exchanges == (("Once", "".join(spoken)),)
            spoken.clear()
            assert text_of(after(talk, "/clear", "Why?")) == alone != ""
            assert llm._engine is engine
