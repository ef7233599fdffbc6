"""However loading ends, no thread and no memory is left behind, and the model can be asked again."""

import errno
import gc
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from checkpoints import random_model, save
from windlass.engine import disk_lane, engine, layer_stores, weights
from windlass.engine.llm import LLM
from windlass.errors import BudgetError, StorageError, UsageError
from windlass.facts.plan import Plan
from windlass.facts.progress import Progress
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.memory.arena import Arena
from windlass.planner.residency import keep_only

GREEDY = SamplingParams(max_tokens=4, temperature=0.0, ignore_eos=True)
PROMPT = {"prompt_token_ids": [5, 6, 7]}
OTHERS = set[threading.Thread]()


@pytest.fixture(autouse=True)
def no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(random_model("llama"), tmp_path)


@pytest.fixture
def arenas(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Arena]]:
    """Every arena that is made for weights, for the ring and for the cache."""
    made: list[weakref.ref[Arena]] = []

    class Noted(Arena):
        def __init__(self, nbytes: int) -> None:
            super().__init__(nbytes)
            made.append(weakref.ref(self))

    for module in (layer_stores, weights, disk_lane):
        monkeypatch.setattr(module, "Arena", Noted)
    return made


@pytest.fixture(autouse=True)
def others() -> None:
    """Threads that tests before this one have left are none of its own."""
    OTHERS.clear()
    OTHERS.update(threading.enumerate())


def threads() -> list[str]:
    alive = [thread for thread in threading.enumerate() if thread not in OTHERS]
    return [thread.name for thread in alive if thread.name.startswith("windlass-")]


def nothing_is_left(arenas: list[weakref.ref[Arena]]) -> None:
    gc.collect()
    assert threads() == []
    assert arenas, "nothing was watched"
    assert [arena for arena in (ref() for ref in arenas) if arena is not None and not arena.closed] == []


def streamed_plan(folder: Path) -> Plan:
    with LLM(folder, device="cpu") as llm:
        return keep_only(llm.opened.facts, llm.prepare(Workload(1, 3, 4)), frozenset())


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*args: Any) -> Any:
        raise error

    return fail


def tokens(llm: LLM) -> tuple[int, ...]:
    return llm.generate(PROMPT, GREEDY)[0].outputs[0].token_ids


def test_a_file_cut_short_after_it_was_opened(folder: Path, arenas: list[weakref.ref[Arena]]) -> None:
    file = folder / "model.safetensors"
    content = file.read_bytes()
    with LLM(folder, device="cpu") as llm:
        os.truncate(file, len(content) // 8)
        with pytest.raises(StorageError):
            llm.generate(PROMPT, GREEDY)
        nothing_is_left(arenas)
        file.write_bytes(content)
        assert len(tokens(llm)) == 4


def test_ctrl_c_while_it_loads(folder: Path, arenas: list[weakref.ref[Arena]]) -> None:
    pressed = [True]

    def press(event: Progress) -> None:
        if event.phase == "load" and pressed:
            pressed.pop()
            raise KeyboardInterrupt

    with LLM(folder, device="cpu", on_progress=press) as llm:
        with pytest.raises(KeyboardInterrupt):
            llm.generate(PROMPT, GREEDY)
        assert not pressed
        nothing_is_left(arenas)
        assert len(tokens(llm)) == 4


@pytest.mark.parametrize("error", [KeyboardInterrupt(), StorageError("a disk failed"), RuntimeError("a bug of ours")])
def test_whatever_fails_once_the_disk_lane_runs(
    folder: Path, arenas: list[weakref.ref[Arena]], monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    with LLM(folder, device="cpu", plan=streamed_plan(folder)) as llm:
        with monkeypatch.context() as patch:
            patch.setattr(engine, "connect_attention", raising(error))
            with pytest.raises(type(error)):
                llm.generate(PROMPT, GREEDY)
        nothing_is_left(arenas)
        assert len(tokens(llm)) == 4
        assert threads()
    nothing_is_left(arenas)


@pytest.mark.parametrize("error", [OSError(errno.ENOMEM, "Cannot allocate memory"), MemoryError()])
@pytest.mark.parametrize("module", [layer_stores, weights], ids=["cache", "weights"])
def test_memory_that_the_system_refuses(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, module: Any
) -> None:
    with LLM(folder, device="cpu") as llm:
        with monkeypatch.context() as patch:
            patch.setattr(module, "Arena", raising(error))
            with pytest.raises(BudgetError, match="the system refused memory .* use a smaller --host-memory"):
                llm.generate(PROMPT, GREEDY)
        assert threads() == []
        assert len(tokens(llm)) == 4


def test_it_can_be_closed_twice_and_used_again(folder: Path, arenas: list[weakref.ref[Arena]]) -> None:
    llm = LLM(folder, device="cpu")
    llm.close()
    before = tokens(llm)
    llm.close()
    llm.close()
    nothing_is_left(arenas)
    assert tokens(llm) == before
    llm.close()


class TestStreams:
    def test_a_second_call_waits_until_the_stream_has_ended_or_is_closed(self, folder: Path) -> None:
        with LLM(folder, device="cpu") as llm:
            stream = llm.stream(PROMPT, GREEDY)
            next(stream)
            with pytest.raises(UsageError, match="answering another call; read that stream to its end"):
                llm.generate(PROMPT, GREEDY)
            assert len(list(stream)) == 3
            other = llm.stream(PROMPT, GREEDY)
            next(other)
            other.close()
            assert len(tokens(llm)) == 4

    def test_closing_the_model_ends_its_stream_and_not_the_next(self, folder: Path) -> None:
        with LLM(folder, device="cpu") as llm:
            stream = llm.stream(PROMPT, GREEDY)
            next(stream)
            llm.close()
            other = llm.stream(PROMPT, GREEDY)
            next(other)
            with pytest.raises(UsageError, match="closed before this stream was read to its end"):
                next(stream)
            assert len(list(other)) == 3

    def test_a_bad_prompt_is_refused_before_the_stream_is_read(self, folder: Path) -> None:
        with LLM(folder, device="cpu") as llm, pytest.raises(UsageError, match="the prompt has 300 tokens"):
            llm.stream({"prompt_token_ids": [5] * 300}, GREEDY)
