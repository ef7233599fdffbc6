"""OpenAI's own clients against a real server on loopback: its answers are those of `generate`."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import openai
import pytest
from pydantic import ValidationError

from server_world import KEY, MODEL, Server, model_with_template, running
from windlass import LLM, SamplingParams
from windlass.packaged_model import packaged_model_folder
from windlass.server.chats.body import ChatBody
from windlass.server.completions.body import CompletionBody

PROMPT = "ROMEO:\n"
TALK: list[Any] = [{"role": "user", "content": "Good morrow!"}]
TOOLS: list[Any] = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(Server(model_with_template(tmp_path_factory.mktemp("model") / "box"))) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    """The same model without a server."""
    with LLM(model_with_template(tmp_path_factory.mktemp("alone") / "box"), dtype="float32") as llm:
        yield llm


class TestCompletions:
    def test_a_text_is_gone_on_with_as_generate_does(self, client: openai.OpenAI, alone: LLM) -> None:
        [expected] = alone.generate([PROMPT], SamplingParams(max_tokens=16, temperature=0.0))
        answer = client.completions.create(model=MODEL, prompt=PROMPT)
        assert answer.choices[0].text == expected.outputs[0].text
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(expected.prompt_token_ids), 16)

    def test_a_list_of_prompts_has_n_answers_each_in_their_order(self, client: openai.OpenAI, alone: LLM) -> None:
        prompts = [PROMPT, "JULIET:\n"]
        params = SamplingParams(n=2, max_tokens=6, temperature=0.9, seed=5)
        expected = [choice.text for output in alone.generate(prompts, params) for choice in output.outputs]
        answer = client.completions.create(
            model=MODEL, prompt=prompts, n=2, best_of=2, max_tokens=6, temperature=0.9, seed=5
        )
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        assert [choice.text for choice in answer.choices] == expected

    def test_token_ids_are_taken_and_given_back(self, client: openai.OpenAI, alone: LLM) -> None:
        ids = [alone.tokenizer.encode(text) for text in (PROMPT, "O")]
        expected = alone.generate(
            [{"prompt_token_ids": each} for each in ids], SamplingParams(max_tokens=3, temperature=0.0)
        )
        answer = client.completions.create(
            model=MODEL, prompt=ids, max_tokens=3, extra_body={"return_token_ids": True}
        ).model_dump()
        assert [tuple(each["token_ids"]) for each in answer["choices"]] == [o.outputs[0].token_ids for o in expected]

    def test_echo_gives_the_prompt_back_with_what_it_is_worth(self, client: openai.OpenAI, alone: LLM) -> None:
        [expected] = alone.generate([PROMPT], SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=1))
        choice = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=0, echo=True, logprobs=1).choices[0]
        assert choice.text == PROMPT
        assert choice.logprobs is not None and choice.logprobs.tokens is not None
        assert "".join(choice.logprobs.tokens) == f"<s>{PROMPT}"
        assert choice.logprobs.text_offset == [0, 0, 5, 6]
        tables = [table for table in expected.prompt_logprobs or () if table is not None]
        wanted = [table[token].logprob for token, table in zip(expected.prompt_token_ids[1:], tables, strict=True)]
        assert choice.logprobs.token_logprobs == [None, *wanted]

    def test_log_probabilities_are_those_of_generate(self, client: openai.OpenAI, alone: LLM) -> None:
        [expected] = alone.generate([PROMPT], SamplingParams(max_tokens=4, temperature=0.0, logprobs=2))
        choice = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=4, logprobs=2).choices[0]
        assert choice.logprobs is not None and choice.logprobs.token_logprobs is not None
        assert sum(choice.logprobs.token_logprobs) == pytest.approx(expected.outputs[0].cumulative_logprob, abs=1e-5)
        assert [len(top) for top in choice.logprobs.top_logprobs or ()] == [2] * 4

    def test_stop_ends_it_before_the_text(self, client: openai.OpenAI) -> None:
        whole = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=12).choices[0].text
        answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=12, stop=[whole[6:9], "@@"]).choices[
            0
        ]
        assert (answer.text, answer.finish_reason) == (whole[: whole.index(whole[6:9])], "stop")

    def test_a_stream_gives_the_same_text_in_pieces_and_counts_at_the_end(self, client: openai.OpenAI) -> None:
        whole = client.completions.create(model=MODEL, prompt=[PROMPT, "O"], max_tokens=9, echo=True, logprobs=0)
        texts, tokens, last = ["", ""], [0, 0], None
        pieces = client.completions.create(
            model=MODEL, prompt=[PROMPT, "O"], max_tokens=9, echo=True, logprobs=0, stream=True,
            stream_options={"include_usage": True},
        )  # fmt: skip
        for last in pieces:
            for choice in last.choices:
                texts[choice.index] += choice.text
                tokens[choice.index] += len(choice.logprobs.tokens or ()) if choice.logprobs else 0
        assert texts == [choice.text for choice in whole.choices]
        assert tokens == [len(choice.logprobs.tokens or ()) for choice in whole.choices if choice.logprobs]
        assert last is not None and (last.choices, last.usage) == ([], whole.usage)


class TestChats:
    def test_a_conversation_is_answered_by_the_template(self, client: openai.OpenAI, alone: LLM) -> None:
        [expected] = alone.chat(TALK, SamplingParams(max_tokens=12, temperature=0.0))
        answer = client.chat.completions.create(model=MODEL, messages=TALK, max_completion_tokens=12)
        assert answer.choices[0].message.content == expected.outputs[0].text
        assert answer.choices[0].message.role == "assistant"

    def test_a_stream_gives_the_same_in_pieces(self, client: openai.OpenAI) -> None:
        whole = client.chat.completions.create(model=MODEL, messages=TALK, max_tokens=9, n=2, temperature=1, seed=3)
        texts = ["", ""]
        ends = list[str | None]()
        for chunk in client.chat.completions.create(
            model=MODEL, messages=TALK, max_tokens=9, n=2, temperature=1, seed=3, stream=True
        ):
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                ends += [choice.finish_reason] if choice.finish_reason else []
        assert texts == [choice.message.content for choice in whole.choices]
        assert ends == ["length", "length"]

    def test_log_probabilities_come_a_token_with_the_likeliest_beside(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(
            model=MODEL, messages=TALK, max_tokens=3, logprobs=True, top_logprobs=2
        ).choices[0]
        assert answer.logprobs is not None and answer.logprobs.content is not None
        assert "".join(each.token for each in answer.logprobs.content) == answer.message.content
        for each in answer.logprobs.content:
            assert bytes(each.bytes or ()).decode() == each.token == each.top_logprobs[0].token
            assert each.logprob == each.top_logprobs[0].logprob >= each.top_logprobs[1].logprob

    def test_tools_reach_the_template_unless_none_is_chosen(self, client: openai.OpenAI, alone: LLM) -> None:
        expected = len(alone.tokenizer.apply_chat_template(TALK, TOOLS))
        counts = []
        for choice in ("auto", "none"):
            asked: dict[str, Any] = {"tools": TOOLS, "tool_choice": choice, "max_tokens": 1}
            answer: Any = client.chat.completions.create(model=MODEL, messages=TALK, **asked)
            counts.append(answer.usage.prompt_tokens)
        assert counts == [expected, len(alone.tokenizer.apply_chat_template(TALK))]

    def test_a_call_comes_back_parsed_whole_and_in_a_stream(self, client: openai.OpenAI) -> None:
        """The model is held to writing one: left to itself it knows no tools."""
        call = 'I ask.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
        asked: dict[str, Any] = {
            "tools": TOOLS,
            "max_tokens": 100,
            "extra_body": {"structured_outputs": {"choice": [call]}},
        }
        whole: Any = client.chat.completions.create(model=MODEL, messages=TALK, **asked)
        message = whole.choices[0].message
        assert (message.content, whole.choices[0].finish_reason) == ("I ask.", "tool_calls")
        assert message.tool_calls[0].function.name == "weather"
        assert json.loads(message.tool_calls[0].function.arguments) == {"city": "Rome"}
        text, calls, ends = "", list[Any](), list[str]()
        for chunk in client.chat.completions.create(model=MODEL, messages=TALK, stream=True, **asked):
            [choice] = chunk.choices
            text += choice.delta.content or ""
            calls += choice.delta.tool_calls or []
            ends += [choice.finish_reason] if choice.finish_reason else []
        assert (text, ends) == ("I ask.", ["tool_calls"])
        assert [(each.index, each.function.name, each.function.arguments) for each in calls] == [
            (0, "weather", message.tool_calls[0].function.arguments)
        ]
        assert calls[0].id.startswith("call_")
        asked["tool_choice"] = "none"
        plain: Any = client.chat.completions.create(model=MODEL, messages=TALK, **asked)
        assert (plain.choices[0].message.content, plain.choices[0].message.tool_calls) == (call, None)

    def test_async_clients_are_answered_side_by_side(self, server: Server, alone: LLM) -> None:
        prompts = ["ROMEO:\n", "JULIET:\n", "Nurse:\n", "First Citizen:\n"]
        expected = [o.outputs[0].text for o in alone.generate(prompts, SamplingParams(max_tokens=8, temperature=0.0))]

        async def ask() -> list[str]:
            async with server.async_client() as client:
                answers = await asyncio.gather(
                    *(client.completions.create(model=MODEL, prompt=each, max_tokens=8) for each in prompts)
                )
                return [answer.choices[0].text for answer in answers]

        assert asyncio.run(ask()) == expected


class TestForms:
    """The answers of a model that writes verse, held to a form."""

    def test_json_by_a_schema(self, client: openai.OpenAI) -> None:
        schema = {
            "type": "object",
            "properties": {"mood": {"enum": ["glad", "sad"]}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
            "required": ["mood", "age"],
            "additionalProperties": False,
        }
        form: Any = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
        answer = client.chat.completions.create(
            model=MODEL, messages=TALK, response_format=form, max_tokens=200, temperature=1, seed=1
        ).choices[0]
        assert answer.finish_reason == "stop"
        assert jsonschema_rs.is_valid(schema, json.loads(answer.message.content or ""))

    def test_a_choice_in_a_stream(self, client: openai.OpenAI) -> None:
        pieces = client.completions.create(
            model=MODEL, prompt=PROMPT, max_tokens=20, stream=True,
            extra_body={"structured_outputs": {"choice": ["Verona", "Mantua"]}},
        )  # fmt: skip
        assert "".join(choice.text for piece in pieces for choice in piece.choices) in ("Verona", "Mantua")

    def test_text_is_the_form_of_all_answers(self, client: openai.OpenAI) -> None:
        plain = client.chat.completions.create(model=MODEL, messages=TALK, max_tokens=5)
        same = client.chat.completions.create(
            model=MODEL, messages=TALK, max_tokens=5, response_format={"type": "text"}
        )
        assert same.choices[0].message.content == plain.choices[0].message.content

    def test_a_form_that_makes_no_sense_is_named(self, client: openai.OpenAI) -> None:
        form: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "nothing"}}}
        for wrong in ({"type": "xml"}, form):
            with pytest.raises(openai.BadRequestError):
                client.chat.completions.create(model=MODEL, messages=TALK, response_format=wrong)


class TestErrors:
    """Each has OpenAI's shape, so that its client raises the error that belongs to it."""

    def test_another_model_is_not_found(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-4'; this server has 'box'") as caught:
            client.completions.create(model="gpt-4", prompt=PROMPT)
        assert (caught.value.param, caught.value.code) == ("model", "model_not_found")

    def test_a_prompt_beyond_the_model_is_refused_with_both_numbers(self, client: openai.OpenAI) -> None:
        with pytest.raises(
            openai.BadRequestError, match="504 tokens and 99 to generate is more than the 512"
        ) as caught:
            client.completions.create(model=MODEL, prompt=[5] * 504, max_tokens=99)
        assert (caught.value.param, caught.value.code) == ("prompt", "context_length_exceeded")

    def test_a_field_that_makes_no_sense_is_named(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(model=MODEL, prompt=PROMPT, n=2, temperature=0)
        assert caught.value.param == "n"
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(model=MODEL, prompt=PROMPT, top_p=7)
        assert caught.value.param == "top_p"

    def test_an_image_is_refused_where_it_stands(self, client: openai.OpenAI) -> None:
        part: Any = {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}
        with pytest.raises(openai.BadRequestError, match="only parts of type text") as caught:
            client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": [part]}])
        assert caught.value.param == "messages[0].content[0].type"

    def test_half_a_character_is_no_text(self, server: Server) -> None:
        with server.http() as http:
            for body in (
                rb'{"prompt": "\ud800"}',
                rb'{"prompt": "a", "stop": "\udfff"}',
                rb'{"\ud800": 1}',
                b'{"prompt"',
            ):
                answer = http.post("/v1/completions", content=body, headers={"Content-Type": "application/json"})
                assert answer.status_code == 400, body
                assert answer.json()["error"]["type"] == "invalid_request_error"

    def test_a_text_that_no_tokens_could_hold_is_refused_before_it_is_read(
        self, server: Server, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """To read it took half a minute and gigabytes."""
        vocabulary = json.loads((packaged_model_folder() / "tokenizer.json").read_text())["model"]["vocab"]
        most = 512 * max(map(len, vocabulary))
        monkeypatch.setattr(server.llm.tokenizer, "encode", None)  # whoever called it would get a 500
        monkeypatch.setattr(server.llm.tokenizer, "encode_plain", None)
        text = "x" * (most + 1)
        said = f"has {most + 1} characters, and 512 tokens, all that the model takes, have {most} at most; shorten it"
        with pytest.raises(openai.BadRequestError, match=said) as caught:
            client.completions.create(model=MODEL, prompt=text)
        assert (caught.value.param, caught.value.code) == ("prompt", "context_length_exceeded")
        with pytest.raises(openai.BadRequestError, match="messages has") as caught:
            client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}])
        assert caught.value.code == "context_length_exceeded"
        with server.http() as http:
            assert http.post("/tokenize", json={"prompt": text}).status_code == 400

    def test_of_many_wrong_entries_the_first_is_told_and_no_more_are_looked_at(self) -> None:
        """A message for each of them held up everybody for seconds."""
        with pytest.raises(ValidationError) as caught:
            CompletionBody.model_validate({"prompt": [1.5] * 1000, "stop": [0] * 1000})
        assert caught.value.error_count() < 10
        with pytest.raises(ValidationError) as caught:
            ChatBody.model_validate({"messages": [{}] * 1000, "tools": [0] * 1000})
        assert caught.value.error_count() < 10

    @pytest.mark.parametrize("field", ["stop", "bad_words"])
    def test_stop_strings_and_bad_words_have_a_number_and_a_length(self, client: openai.OpenAI, field: str) -> None:
        for value, said in ((["x"] * 1025, "at most 1024 items"), (["x" * 1025], "at most 1024 characters")):
            with pytest.raises(openai.BadRequestError, match=said) as caught:
                client.completions.create(model=MODEL, prompt=PROMPT, extra_body={field: value})
            assert str(caught.value.param).startswith(field)

    def test_fields_that_nobody_knows_are_passed_over_up_to_a_number(self, client: openai.OpenAI) -> None:
        labels = {f"label-{number}": number for number in range(101)}
        with pytest.raises(openai.BadRequestError, match="there are 101 fields that are not known here, 100 may be"):
            client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=1, extra_body=labels)
        del labels["label-0"]
        client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=1, extra_body=labels)

    def test_what_is_no_json_is_the_fault_of_no_field(self, server: Server) -> None:
        with server.http() as http:
            answer = http.post("/v1/completions", content=b'{"n": }', headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] is None
        assert answer.json()["error"]["message"].startswith("the body is not JSON: ")

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [("GET", "/nothing", 404), ("GET", "/v1/completions", 405), ("PUT", "/health", 405)],
    )
    def test_a_path_or_method_of_none(self, server: Server, method: str, path: str, status: int) -> None:
        with server.http() as http:
            answer = http.request(method, path)
        assert answer.status_code == status
        assert answer.json()["error"]["message"].startswith(("there is no", "'/"))

    def test_without_jobs_there_are_no_batches(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError, match="start it with --jobs FOLDER"):
            client.batches.list()


class TestTelling:
    def test_the_model_is_listed(self, client: openai.OpenAI) -> None:
        assert [model.id for model in client.models.list()] == [MODEL]
        assert client.models.retrieve(MODEL).id == MODEL
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("another/one")

    def test_text_and_tokens_go_both_ways(self, server: Server, alone: LLM) -> None:
        with server.http() as http:
            told = http.post("/tokenize", json={"prompt": PROMPT}).json()
            assert told["tokens"] == alone.tokenizer.encode(PROMPT)
            assert (told["count"], told["max_model_len"]) == (len(told["tokens"]), 512)
            assert http.post("/detokenize", json={"tokens": told["tokens"]}).json() == {"prompt": f"<s>{PROMPT}"}
            talk = http.post("/tokenize", json={"messages": TALK}).json()
            assert talk["tokens"] == alone.tokenizer.apply_chat_template(TALK)

    def test_the_state_is_the_view_of_the_service(self, server: Server) -> None:
        with server.http() as http:
            told = http.get("/windlass/state").json()
        assert {
            "model",
            "state",
            "version",
            "uptime",
            "tiers",
            "links",
            "pass",
            "binds",
            "queue",
            "speed",
            "wait",
            "jobs",
        } <= set(told)
        assert (told["model"], told["state"], told["jobs"]) == (MODEL, "ready", [])

    def test_metrics_count_tokens_and_waits(self, server: Server, client: openai.OpenAI) -> None:
        def counted() -> dict[str, float]:
            with server.http() as http:
                lines = http.get("/metrics").text.splitlines()
            return {line.split()[0]: float(line.split()[1]) for line in lines if line[:1] != "#" and "{" not in line}

        before = counted()
        client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=5)
        after = counted()
        assert after["windlass_generated_tokens_total"] - before["windlass_generated_tokens_total"] == 5
        name = "windlass_time_to_first_token_seconds_count"
        assert after[name] - before[name] == 1
        assert after["windlass_ready"] == 1

    def test_the_page_of_the_interface_loads_nothing(self, server: Server) -> None:
        with server.http(Authorization="") as http:
            page = http.get("/docs")
        assert page.status_code == 200
        assert "POST /v1/chat/completions" in page.text
        assert not any(mark in page.text for mark in ("<script", "src=", 'href="http', "<link", "@import"))
        assert "default-src 'self'" in page.headers["content-security-policy"]


def test_a_stream_is_server_sent_events_with_an_end(server: Server) -> None:
    body = {"messages": TALK, "max_tokens": 2, "stream": True}
    with server.http() as http:
        answer = http.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    first = json.loads(events[0].removeprefix("data: "))
    assert first["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    ]


def test_the_key_is_in_no_answer(server: Server) -> None:
    with server.http() as http:
        for path in ("/windlass/state", "/metrics", "/version", "/v1/models", "/openapi.json", "/docs"):
            assert KEY not in http.get(path).text
