"""Files and batches through OpenAI's own client: answered one after the other, cancelled, and gone on with."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from server_world import MODEL, PATIENCE, Server, eventually, model_with_template, running
from windlass import LLM, SamplingParams, UsageError
from windlass.server.doors.limits import ServerLimits

SOURCE = Path(__file__).resolve().parent.parent / "src"

Row = dict[str, Any]


def completion(name: str, prompt: object, **body: Any) -> Row:
    whole = {"prompt": prompt, "max_tokens": 6, "temperature": 0} | body
    return {"custom_id": name, "method": "POST", "url": "/v1/completions", "body": whole}


def chat(name: str, text: str) -> Row:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 4}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}


def sent(client: openai.OpenAI, *rows: Row) -> Any:
    """A batch of these rows."""
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    file = client.files.create(file=("../../rows.jsonl", content), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint="/v1/completions", completion_window="24h", metadata={"kept": "yes"}
    )


def ended(client: openai.OpenAI, batch: Any) -> Any:
    """The batch when it is over."""
    eventually(lambda: client.batches.retrieve(batch.id).status in ("completed", "failed", "cancelled"))
    return client.batches.retrieve(batch.id)


def lines(client: openai.OpenAI, file_id: str | None) -> list[Row]:
    assert file_id is not None
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_with_template(tmp_path_factory.mktemp("model") / "box")


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def server(model: Path, jobs: Path) -> Iterator[Server]:
    limits = ServerLimits(max_upload=20000)
    with running(Server(model, jobs=jobs, limits=limits)) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with server.client() as client:
        yield client


def test_answers_and_errors_come_in_files_of_their_own(client: openai.OpenAI, model: Path) -> None:
    batch = sent(client, completion("a", "ROMEO:\n"), completion("b", 5), chat("c", "Speak"), completion("d", "O"))
    assert batch.status == "validating"
    done = ended(client, batch)
    assert done.status == "completed"
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (4, 3, 1)
    assert done.metadata == {"kept": "yes"}
    answers = {row["custom_id"]: row["response"]["body"] for row in lines(client, done.output_file_id)}
    [refused] = lines(client, done.error_file_id)
    assert refused["custom_id"] == "b"
    assert "prompt must be a string" in refused["error"]["message"]
    with LLM(model, dtype="float32") as llm:
        params = SamplingParams(max_tokens=6, temperature=0.0)
        for name, prompt in (("a", "ROMEO:\n"), ("d", "O")):
            [expected] = llm.generate([prompt], params)
            assert answers[name]["choices"][0]["text"] == expected.outputs[0].text
    assert answers["c"]["object"] == "chat.completion"


def test_answers_stand_in_the_order_in_which_they_were_finished(server: Server, client: openai.OpenAI) -> None:
    server.held.stop()
    batch = sent(
        client, completion("long", "O", max_tokens=20, ignore_eos=True), completion("short", "O", max_tokens=1)
    )
    eventually(lambda: server.station.service.open_tickets == 2)
    server.held.go()
    assert [row["custom_id"] for row in lines(client, ended(client, batch).output_file_id)] == ["short", "long"]


def test_batches_are_listed_the_latest_first_and_leafed_through(client: openai.OpenAI) -> None:
    made = [ended(client, sent(client, completion("a", "O", max_tokens=1))).id for _ in range(3)]
    listed = [batch.id for batch in client.batches.list(limit=2)]  # the client asks for the next leaf by itself
    assert set(made) <= set(listed)
    assert len(listed) == len(set(listed))
    assert client.batches.list(limit=1).has_more
    with pytest.raises(openai.BadRequestError, match="none of the entries"):
        client.batches.list(after="batch_none")


def test_a_person_is_answered_while_a_batch_waits_its_turn(server: Server, client: openai.OpenAI) -> None:
    server.held.stop()
    batch = sent(client, *(completion(str(number), "O", max_tokens=200, ignore_eos=True) for number in range(40)))
    eventually(lambda: client.batches.retrieve(batch.id).status == "in_progress")
    person = client.completions.create(model=MODEL, prompt="O", max_tokens=3, stream=True)
    server.held.allow(6000)  # of the 8000 that the batch draws
    assert [piece.choices[0].finish_reason for piece in person][-1] == "length"
    with server.http() as http:
        [told, *_] = http.get("/windlass/state").json()["jobs"]
    assert (told["id"], told["status"], told["total"]) == (batch.id, "in_progress", 40)
    client.batches.cancel(batch.id)
    ended(client, batch)
    server.held.go()


def test_what_was_answered_before_a_batch_was_cancelled_can_be_fetched(server: Server, client: openai.OpenAI) -> None:
    server.held.allow(1000)  # of the 2400 that the batch draws
    batch = sent(client, *(completion(str(number), "O", max_tokens=60, ignore_eos=True) for number in range(40)))
    eventually(lambda: client.batches.retrieve(batch.id).request_counts.completed > 0)
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    done = ended(client, batch)
    assert done.status == "cancelled"
    assert 0 < done.request_counts.completed < 40
    assert len(lines(client, done.output_file_id)) == done.request_counts.completed
    assert client.batches.cancel(batch.id).status == "cancelled"
    server.held.go()
    eventually(lambda: server.station.service.open_tickets == 0)


def test_files_are_kept_under_names_of_the_server(server: Server, client: openai.OpenAI, tmp_path: Path) -> None:
    content = b'{"prompt": "O"}\n'
    file = client.files.create(file=("/etc/../rows.jsonl", content), purpose="batch")
    assert (file.bytes, file.purpose) == (len(content), "batch")
    assert client.files.retrieve(file.id).id == file.id
    assert client.files.content(file.id).read() == content
    assert file.id in [each.id for each in client.files.list(purpose="batch")]
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError, match="there is no file"):
        client.files.content(file.id)
    with server.http() as http:
        for path in ("/v1/files/..%2f..%2fetc%2fpasswd", "/v1/files/..", "/v1/files/../batches/x/content"):
            assert http.get(path).status_code == 404


@pytest.mark.parametrize(
    ("file", "purpose", "message"),
    [(b"a", "fine-tune", "purpose 'fine-tune' is not known"), (b"", "batch", "the file is empty")],
)
def test_a_file_that_no_batch_could_read_is_refused(
    client: openai.OpenAI, file: bytes, purpose: Any, message: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=message):
        client.files.create(file=("a", file), purpose=purpose)


def test_a_file_that_is_too_large_is_413(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.files.create(file=("a", b"x" * 30000), purpose="batch")
    assert caught.value.status_code == 413


def test_a_form_that_is_none_is_400(server: Server) -> None:
    with server.http() as http:
        answers = [
            http.post("/v1/files"),
            http.post("/v1/files", data={"purpose": "batch", "file": "text"}),
            http.post("/v1/files", content=b"--x", headers={"Content-Type": "multipart/form-data; boundary=y"}),
            http.post("/v1/files", content=b"--x", headers={"Content-Type": "multipart/form-data"}),
        ]
    assert [answer.status_code for answer in answers] == [400] * 4


def test_a_batch_over_nothing_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="there is no file 'file-none'") as caught:
        client.batches.create(input_file_id="file-none", endpoint="/v1/completions", completion_window="24h")
    assert caught.value.param == "input_file_id"
    with pytest.raises(openai.BadRequestError):
        client.batches.create(input_file_id="a", endpoint="/v1/embeddings", completion_window="24h")
    with pytest.raises(openai.NotFoundError, match="there is no batch"):
        client.batches.retrieve("batch_none")


def test_a_file_that_a_batch_reads_is_not_deleted(server: Server, client: openai.OpenAI) -> None:
    server.held.stop()
    batch = sent(client, *(completion(str(number), "O", max_tokens=50) for number in range(9)))
    with pytest.raises(openai.ConflictError, match="cancel that first"):
        client.files.delete(batch.input_file_id)
    server.held.go()
    ended(client, batch)
    assert client.files.delete(batch.input_file_id).deleted


def test_a_server_that_was_stopped_goes_on_where_it_was(model: Path, tmp_path: Path) -> None:
    rows = [completion(str(number), "O", max_tokens=20, ignore_eos=True) for number in range(30)]
    first = Server(model, jobs=tmp_path)
    first.held.allow(300)  # of the 600 that the rows draw
    with running(first), first.client() as client:
        batch = sent(client, *rows)
        eventually(lambda: client.batches.retrieve(batch.id).request_counts.completed > 0)
        later = sent(client, completion("later", "O"))
    records = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "batches").glob("*.json")}
    assert records[batch.id]["status"] == "in_progress"
    with running(Server(model, jobs=tmp_path)) as second, second.client() as client:
        done, after = (ended(client, each) for each in (batch, later))
        answers = lines(client, done.output_file_id)
    assert (done.status, after.status, done.request_counts.completed) == ("completed", "completed", 30)
    assert len(answers) == 30
    assert {row["custom_id"] for row in answers} == {row["custom_id"] for row in rows}
    assert len({row["response"]["body"]["choices"][0]["text"] for row in answers}) == 1


def test_without_a_chat_template_a_row_is_answered_as_a_question_is(tmp_path: Path) -> None:
    plain = model_with_template(tmp_path / "plain", None)
    with running(Server(plain, jobs=tmp_path / "jobs")) as server, server.client() as client:
        batch = ended(client, sent(client, chat("a", "Speak")))
        [row] = lines(client, batch.output_file_id)
        talk: list[Any] = [{"role": "user", "content": "Speak"}]
        asked = client.chat.completions.create(model=MODEL, messages=talk, max_tokens=4)
        refused = chat("b", "Speak")
        refused["body"]["messages"] *= 2
        failed = ended(client, sent(client, refused))
        [error] = lines(client, failed.error_file_id)
        with server.http() as http:
            tokens = http.post("/tokenize", json={"messages": talk}).json()["tokens"]
    assert row["response"]["body"]["choices"][0]["message"]["content"] == asked.choices[0].message.content
    assert row["response"]["body"]["usage"]["prompt_tokens"] == len(tokens)
    assert "this model has no chat template: it goes on from a system message" in error["error"]["message"]


def test_a_batch_that_fails_tells_no_folder(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "private" / "jobs"
    with running(Server(model, jobs=folder)) as server, server.client() as client:
        server.held.stop()
        first = sent(client, *(completion(str(number), "O", max_tokens=50) for number in range(30)))
        eventually(lambda: client.batches.retrieve(first.id).status == "in_progress")
        second = sent(client, completion("a", "O"))
        (folder / "files" / f"{second.input_file_id}.jsonl").unlink()
        server.held.go()
        told = ended(client, second).errors.data[0].message
    assert told.startswith(f"there is no file files/{second.input_file_id}.jsonl;")
    assert "private" not in told


def test_a_bug_in_one_batch_fails_it_and_the_next_is_answered(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(Server(model, jobs=tmp_path)) as server, server.client() as client:
        queue, broken = server.station.batches, list[str]()
        assert queue is not None
        work = queue._work

        def breaks(number: str) -> None:
            if number in broken or not broken:
                broken.append(number)
                raise ZeroDivisionError("division by /home/private")
            work(number)

        queue._work = breaks
        first, second = (sent(client, completion("a", "O")) for _ in range(2))
        told, done = ended(client, first), ended(client, second)
    assert (told.status, done.status) == ("failed", "completed")
    assert told.errors.data[0].message == "a bug of Windlass broke it off; the server's log says more"
    assert broken == [first.id]
    assert [record.exc_info is not None for record in caplog.records if record.levelname == "CRITICAL"] == [True]


def test_a_batch_that_bugs_of_the_engine_break_off_is_tried_again_but_not_for_ever(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windlass.jobs.batch_queue.batch_queue._ATTEMPT_AGAIN", 0.01)
    server = Server(model, jobs=tmp_path)
    serve, bugs = server.llm.serve, iter([True, True, False, True, True, True])

    def breaks(*arguments: Any) -> Iterator[Any]:
        for output in serve(*arguments):
            if next(bugs):
                raise ZeroDivisionError("division by zero")
            yield output

    server.llm.serve = breaks
    with running(server), server.client() as client:
        whole = ended(client, sent(client, completion("a", "O", max_tokens=1)))
        lost = ended(client, sent(client, completion("a", "O", max_tokens=1)))
    assert (whole.status, whole.request_counts.completed) == ("completed", 1)
    assert lost.status == "failed" and "a bug of Windlass broke it off" in lost.errors.data[0].message
    assert next(bugs, None) is None


def test_a_second_server_in_one_folder_is_refused(server: Server, model: Path, jobs: Path) -> None:
    with pytest.raises(UsageError, match="takes the batches of .* already; end it, or name another folder"):
        Server(model, jobs=jobs)


@pytest.mark.slow
def test_a_server_that_was_killed_goes_on_where_it_was(model: Path, tmp_path: Path) -> None:
    """A process of its own, killed in the middle of a batch, and another that finds the folder."""
    rows = [completion(str(number), "O", max_tokens=40, ignore_eos=True) for number in range(200)]
    with served(model, tmp_path) as (process, client):
        batch = sent(client, *rows)
        eventually(lambda: client.batches.retrieve(batch.id).request_counts.completed > 0)
        process.kill()
    with served(model, tmp_path) as (process, client):
        done = ended(client, batch)
        answers = lines(client, done.output_file_id)
        process.terminate()
    assert (done.status, done.request_counts.completed) == ("completed", 200)
    assert sorted(int(row["custom_id"]) for row in answers) == list(range(200))
    assert len({row["response"]["body"]["choices"][0]["text"] for row in answers}) == 1


@contextmanager
def served(model: Path, jobs: Path) -> Iterator[tuple[subprocess.Popen[str], openai.OpenAI]]:
    """`windlass serve` and a client of it."""
    command = [
        sys.executable,
        "-m",
        "windlass",
        "serve",
        str(model),
        "--port",
        "0",
        "--json",
        "-q",
        "--jobs",
        str(jobs),
    ]
    environ = dict(os.environ) | {"PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(command, env=environ, text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            yield process, client
        process.wait(PATIENCE)
