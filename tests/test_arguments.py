"""Whatever is passed to LLM, generate and chat and is of the wrong kind is refused with a UsageError, in one line."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from checkpoints import random_model, save
from fake_llm import FakeTokenizer
from windlass.engine.llm import LLM
from windlass.engine.prompts import read_conversations, read_prompts
from windlass.errors import RequestError, UsageError
from windlass.facts.request import Request
from windlass.facts.sampling_params import SamplingParams

DEFAULT = SamplingParams(temperature=0.0)
IDS = {"prompt_token_ids": [5, 6]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(random_model("llama"), tmp_path_factory.mktemp("llama"))


@pytest.fixture(autouse=True)
def no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)


@pytest.mark.parametrize(
    ("arguments", "flaw", "step"),
    [
        ({"model": 3}, "model must be a folder or a Hugging Face id, got 3 (int)", "LLM('folder')"),
        ({"model": ""}, "model must be a folder or a Hugging Face id, got '' (str)", "LLM('folder')"),
        ({"model": None}, "got None (NoneType)", "LLM('folder')"),
        ({"host_memory": 2.5}, "--host-memory must be a size, got 2.5 (float)", "'8GiB'"),
        ({"host_memory": -1}, "--host-memory: a size must be positive, got -1", "8GiB"),
        ({"host_memory": 0}, "--host-memory: a size must be positive, got 0", "8GiB"),
        ({"host_memory": True}, "--host-memory: True is not a size", "8GiB"),
        ({"host_memory": ""}, "--host-memory: '' is not a size", "8GiB"),
        ({"gpu_memory": [1]}, "--gpu-memory must be a size, got [1] (list)", "'8GiB'"),
        ({"device": 3}, "device must be a name, got 3 (int)", "'cuda:0'"),
        ({"device": None}, "device must be a name, got None", "'cpu'"),
        ({"device": torch.device("meta")}, "device 'meta' is not known", "use auto, cpu"),
        ({"dtype": 16}, "dtype must be a name or a torch.dtype, got 16 (int)", "'bfloat16'"),
        ({"dtype": torch.int8}, "dtype 'int8' is not known", "choose one of auto"),
        ({"max_model_len": "x"}, "--max-model-len must be a whole number, got 'x' (str)", "write it as"),
        ({"max_model_len": 16.0}, "--max-model-len must be a whole number, got 16.0", "write it as"),
        ({"max_model_len": True}, "--max-model-len must be a whole number, got True", "write it as"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5 (float)", "write it as"),
        ({"seed": None}, "seed must be a whole number, got None", "write it as"),
        ({"block_size": True}, "--block-size must be a whole number, got True (bool)", "write it as"),
        ({"block_size": -2}, "--block-size must be 1 or more", "got -2"),
        ({"micro_batch_tokens": "64"}, "--micro-batch-tokens must be a whole number, got '64'", "write it as"),
        ({"unproven": "yes"}, "unproven must be True or False", "got 'yes'"),
        ({"revision": 7}, "revision must be a name or None", "got 7 (int)"),
        ({"plan": {}}, "plan must be a Plan", "got {} (dict)"),
        ({"on_progress": "print"}, "on_progress must be a function or None", "got 'print' (str)"),
        ({"quantization": 4}, "quantization=4 is not known; use int4 or int8", "leave it out"),
        ({"kv_cache_dtype": torch.float16}, "kv_cache_dtype=torch.float16 is not known", "one of auto, int8, int4"),
    ],
)
def test_an_argument_of_the_wrong_kind(folder: Path, arguments: dict[str, Any], flaw: str, step: str) -> None:
    with pytest.raises(UsageError) as error:
        LLM(**({"model": folder} | arguments))
    assert flaw in str(error.value) and step in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(torch.float16, "float16"), ("half", "float16"), ("float", "float32"), (torch.bfloat16, "bfloat16")],
)
def test_dtypes_and_devices_may_be_torchs_own(folder: Path, dtype: Any, name: str) -> None:
    llm = LLM(str(folder), dtype=dtype, device=torch.device("cpu"), host_memory=1 << 33, gpu_memory=None)
    assert (llm.opened.facts.dtype, llm.opened.device.type) == (name, "cpu")


def test_numbers_may_be_numpys(folder: Path) -> None:
    with LLM(
        folder, host_memory=np.int64(1 << 33), max_model_len=np.int32(64), seed=np.uint8(7), block_size=np.int64(2),
        micro_batch_tokens=np.int64(16),
    ) as llm:  # fmt: skip
        prompts = {"prompt_token_ids": [np.int64(5), np.int32(6)]}
        (output,) = llm.generate(prompts, SamplingParams(max_tokens=np.int64(2), temperature=np.float32(0)))
    assert llm.opened.facts.max_model_len == 64
    assert {type(token) for token in (*output.prompt_token_ids, *output.outputs[0].token_ids)} == {int}


def read(prompts: Any, params: Any = None) -> list[Request]:
    return read_prompts(prompts, params, DEFAULT, FakeTokenizer(), itertools.count())


@pytest.mark.parametrize(
    ("prompts", "flaw"),
    [
        (3, 'a prompt must be a string or {"prompt_token_ids": [...]}, or a list of these, got int: 3'),
        (None, "got NoneType: None"),
        (b"Once", "got bytes: b'Once'"),
        (iter(["Once"]), "or a list of these, got list_iterator"),
        ([1, 2], "got int: 1"),
        ([["Once"]], "got list: ['Once']"),
        (["Once", None], "got NoneType: None"),
        ({}, "got dict: {}"),
        ({"prompt": 3}, "got dict: {'prompt': 3}"),
        ({"prompt_token_ids": 5}, "prompt_token_ids must be a list of whole numbers from 0, got int: 5"),
        ({"prompt_token_ids": None}, "must be a list of whole numbers from 0, got NoneType"),
        ({"prompt_token_ids": "57"}, "must be a list of whole numbers from 0, got str: 57"),
        ({"prompt_token_ids": torch.tensor([5])}, "got Tensor: tensor([5]); write it as [1, 2, 3]"),
        ([{"prompt_token_ids": ["a"]}], "prompt_token_ids holds 'a'; ids are whole numbers from 0"),
        ([{"prompt_token_ids": [[5]]}], "prompt_token_ids holds [5]"),
        ([{"prompt_token_ids": [5, -1]}], "prompt_token_ids holds -1"),
        ([{"prompt_token_ids": [5, True]}], "prompt_token_ids holds True"),
        ([{"prompt_token_ids": [5, 1.0]}], "prompt_token_ids holds 1.0"),
        ([{"prompt_token_ids": []}], "the prompt has 0 tokens; give at least 1"),
        ("", "the prompt has 0 tokens; give at least 1"),
        (["ab\ud800c"], r"holds '\ud800' at 2, half of a character"),
    ],
)
def test_a_prompt_of_the_wrong_kind(prompts: Any, flaw: str) -> None:
    with pytest.raises(UsageError) as error:
        read(prompts)
    assert flaw in str(error.value)


def test_prompts_as_vllm_writes_them() -> None:
    assert [request.prompt_token_ids for request in read(["ab", {"prompt": "b"}, {"prompt_token_ids": (5, 6)}])] == [
        (97, 98), (98,), (5, 6),
    ]  # fmt: skip
    assert [request.prompt for request in read(({"prompt": "b"}, IDS))] == ["b", None]
    assert read([]) == []


@pytest.mark.parametrize(
    ("params", "flaw"),
    [
        (3, "sampling_params must be a SamplingParams or a list of them, got int: 3"),
        ({"max_tokens": 3}, "got dict: {'max_tokens': 3}"),
        ("greedy", "got str: greedy"),
        (SimpleNamespace(n=1), "got SimpleNamespace"),
        ([{"n": 1}], "sampling_params must hold SamplingParams only, got dict: {'n': 1} in it"),
        ([None], "got NoneType: None in it"),
        ([DEFAULT, DEFAULT], "1 prompts were given with 2 sampling_params; give one, or one a prompt"),
        ([], "1 prompts were given with 0 sampling_params"),
    ],
)
def test_sampling_params_of_the_wrong_kind(params: Any, flaw: str) -> None:
    with pytest.raises(UsageError) as error:
        read(IDS, params)
    assert flaw in str(error.value)
    assert "write" in str(error.value) or "give one" in str(error.value)


def test_a_refused_call_leaves_the_numbers_of_the_next_alone() -> None:
    """Without a seed of its own a request draws by its number."""
    numbers = itertools.count()
    with pytest.raises(UsageError):
        read_prompts(["a", 3], None, DEFAULT, FakeTokenizer(), numbers)
    assert next(numbers) == 0


USER = {"role": "user", "content": "Hello"}


@pytest.mark.parametrize(
    ("messages", "flaw"),
    [
        (3, "messages must be a list of messages, got int: 3"),
        ("Hello", "messages must be a list of messages, got str: Hello"),
        (USER, "messages must be a list of messages, got dict"),
        (None, "got NoneType: None"),
        ([], "a conversation has 0 messages"),
        ([[USER], []], "a conversation has 0 messages"),
        (["Hello"], "message 0 is str: Hello"),
        ([USER, 3], "message 1 is int: 3"),
        ([USER, [USER]], "message 1 is list"),
        ([{"content": "Hello"}], "message 0 has the role None, which is no string"),
        ([{"role": 3, "content": "Hello"}], "message 0 has the role 3"),
        ([USER, {"role": "user"}], "message 1 has the content None, which is no text"),
        ([{"role": "user", "content": 3}], "message 0 has the content 3"),
    ],
)
def test_messages_of_the_wrong_kind(messages: Any, flaw: str) -> None:
    with pytest.raises(UsageError) as error:
        read_conversations(messages)
    assert flaw in str(error.value)
    assert '{"role": "user", "content": "..."}' in str(error.value)


def test_one_conversation_or_several() -> None:
    assert read_conversations([USER, USER]) == [[USER, USER]]
    assert read_conversations(([USER], (USER, USER))) == [[USER], (USER, USER)]
    calls = {"role": "assistant", "content": None, "tool_calls": []}
    assert read_conversations([USER, calls]) == [[USER, calls]]


class TestTheModelItself:
    @pytest.mark.parametrize("prompt", [3, [1, 2], [{"prompt_token_ids": ["a"]}], "Once"])
    def test_refuses_prompts_before_it_loads(self, folder: Path, prompt: Any) -> None:
        with LLM(folder) as llm:
            with pytest.raises(UsageError):
                llm.generate(prompt)
            with pytest.raises(UsageError):
                llm.stream(prompt)
            with pytest.raises(UsageError):
                llm.chat(prompt)
            assert llm.report.load_seconds == 0

    def test_tells_once_that_a_length_is_cut_and_ends_such_an_answer_for_its_length(
        self, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        params = SamplingParams(max_tokens=999, temperature=0, ignore_eos=True)
        with LLM(folder, max_model_len=16) as llm:
            outputs = [*llm.generate([IDS, IDS], params), *llm.generate(IDS, params)]
        assert [(len(o.outputs[0].token_ids), o.outputs[0].finish_reason) for o in outputs] == [(14, "length")] * 3
        said = [message for message in caplog.messages if "compiling kernels" not in message]
        assert said == [
            "max_tokens=999 is cut to 14: a prompt of 2 tokens leaves no more of the 16 that this model takes"
        ]

    def test_refuses_ids_beyond_its_vocabulary(self, folder: Path) -> None:
        with LLM(folder) as llm, pytest.raises(RequestError, match="token id 128 is not below"):
            llm.generate([IDS, {"prompt_token_ids": [128]}])
