"""Many clients at once, some of whom go away: `python -m benchmarks soak` in short. Nothing is left behind."""

import asyncio
import random
from contextlib import aclosing
from pathlib import Path

import pytest

from server_world import Server, eventually, model_with_template, running
from windlass import LLM, SamplingParams
from windlass.jobs.service.limits import Limits

PROMPTS = ("ROMEO:\n", "JULIET:\n", "O", "Nurse:\nMy lady")
CLIENTS, QUESTIONS, LENGTH = 24, 3, 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_with_template(tmp_path_factory.mktemp("model") / "box")


@pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object BoundAsyncStream")
def test_clients_that_go_away_leave_nothing_and_the_others_get_their_answers(model: Path) -> None:
    with LLM(model, dtype="float32") as llm:
        outputs = llm.generate(list(PROMPTS), SamplingParams(max_tokens=LENGTH, temperature=0.0))
        expected = {prompt: output.outputs[0].text for prompt, output in zip(PROMPTS, outputs, strict=True)}
    with running(Server(model, service_limits=Limits(max_num_seqs=4))) as server:
        whole, left = asyncio.run(storm(server, expected))
        # The places and pages of a question that was given up last are free with the pass behind it.
        eventually(lambda: in_use(server) == (0, 0, 0, 0))
        ended = server.station.service.view().requests
    assert whole + left == CLIENTS * QUESTIONS
    assert left > 0
    assert ended["finished"] >= whole
    assert ended["finished"] + ended["cancelled"] == CLIENTS * QUESTIONS


def in_use(server: Server) -> tuple[int, int, int, int]:
    """Open questions, those that run and that wait, and pages."""
    service = server.station.service
    queue = service.view().queue
    return service.open_tickets, queue.running, queue.waiting, queue.pages_used


async def storm(server: Server, expected: dict[str, str]) -> tuple[int, int]:
    """How many read their answer to its end, which is then right, and how many left before."""
    async with server.async_client() as client:

        async def one(number: int) -> int:
            draw, whole = random.Random(number), 0
            for _ in range(QUESTIONS):
                prompt, leaves = draw.choice(PROMPTS), draw.random() < 0.3
                stream = await client.completions.create(
                    model="box", prompt=prompt, max_tokens=LENGTH, temperature=0, stream=True
                )
                text = ""
                # Ended here, the client's generator is not left to whatever thread collects garbage next.
                async with aclosing(aiter(stream)) as pieces:
                    async for piece in pieces:
                        text += piece.choices[0].text
                        if leaves:
                            await stream.close()
                            break
                    else:
                        assert text == expected[prompt]
                        whole += 1
            return whole

        found = await asyncio.gather(*map(one, range(CLIENTS)))
    return sum(found), CLIENTS * QUESTIONS - sum(found)
