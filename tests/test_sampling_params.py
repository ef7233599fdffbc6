"""SamplingParams, Request and the answers: vLLM's names and defaults, and what is refused."""

from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from windlass.errors import RequestError, UsageError
from windlass.facts.completion import CompletionOutput, RequestOutput
from windlass.facts.request import Request
from windlass.facts.sampling_params import SamplingParams


def test_defaults_are_those_of_vllm() -> None:
    params = SamplingParams()
    assert (params.n, params.max_tokens, params.min_tokens) == (1, 16, 0)
    assert (params.temperature, params.top_p, params.top_k, params.min_p) == (1.0, 1.0, 0, 0.0)
    assert (params.seed, params.logprobs, params.ignore_eos) == (None, None, False)
    assert (params.skip_special_tokens, params.include_stop_str_in_output) == (True, False)


@pytest.mark.parametrize(
    ("written", "kept"),
    [("\n", ("\n",)), (["a", "bc"], ("a", "bc")), (("x",), ("x",)), (None, ()), ([], ())],
)
def test_stop_may_be_one_string_or_several_and_stays_as_it_was_written(written: Any, kept: tuple[str, ...]) -> None:
    params = SamplingParams(stop=written)
    assert params.stop is written
    assert params.stop_strings == kept


def test_stop_ids_are_a_tuple_however_they_were_written() -> None:
    assert [SamplingParams(stop_token_ids=ids).stop_ids for ids in ([5, 2], (5, 2), None, [])] == [
        (5, 2), (5, 2), (), (),
    ]  # fmt: skip


def test_params_written_differently_but_meaning_the_same_are_equal() -> None:
    assert SamplingParams(stop="x", stop_token_ids=[2]) == SamplingParams(stop=["x"], stop_token_ids=(2,))
    assert len({SamplingParams(stop="x"), SamplingParams(stop=["x"])}) == 1
    assert SamplingParams(stop="x") != SamplingParams(stop="xy")
    assert SamplingParams(seed=1) != SamplingParams(seed=2)
    assert SamplingParams() != "SamplingParams()"


def test_params_cannot_be_changed_but_can_be_replaced() -> None:
    params = SamplingParams(stop=["a"])
    with pytest.raises(FrozenInstanceError):
        params.n = 2
    assert replace(params, n=3).stop_strings == ("a",)


def test_temperatures_next_to_zero_are_greedy() -> None:
    assert SamplingParams(temperature=0).is_greedy
    assert SamplingParams(temperature=1e-6).is_greedy
    assert not SamplingParams(temperature=0.01).is_greedy


@pytest.mark.parametrize("top_k", [0, -1, 1, 50])
def test_top_k_may_be_off_in_both_of_vllms_spellings(top_k: int) -> None:
    assert SamplingParams(top_k=top_k).top_k == top_k


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"n": 0}, "n must be 1 or more, got 0"),
        ({"n": True}, "n must be a whole number, got True"),
        ({"n": 2, "temperature": 0}, "n is 2 with temperature 0"),
        ({"n": 10**5000}, "n is a number of more than 308 digits; write a smaller one"),
        ({"seed": -(10**5000)}, "seed is a number of more than 308 digits"),
        ({"temperature": 10**400}, "temperature is a number of more than 308 digits"),
        ({"stop_token_ids": [10**5000]}, "stop_token_ids is a number of more than 308 digits"),
        ({"logit_bias": {"9" * 5000: 1}}, "logit_bias holds '999.*, which is no token id"),
        ({"n": 10**9}, "n must be at most 16384, got 1000000000; give the prompt several times"),
        ({"max_tokens": 0}, "max_tokens must be 1 or more, got 0"),
        ({"max_tokens": "16"}, r"max_tokens must be a whole number, got '16' \(str\)"),
        ({"min_tokens": -1}, "min_tokens must be 0 or more"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens is 9, above max_tokens = 8; lower min_tokens"),
        ({"temperature": -0.1}, r"temperature must be 0 \(greedy\) or more, got -0.1"),
        ({"temperature": float("nan")}, "temperature must be a finite number, got nan"),
        ({"temperature": "hot"}, "temperature must be a finite number, got 'hot'"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0; 1.0 switches it off"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1, got 1.5"),
        ({"top_k": -2}, "top_k must be -1 or more, got -2"),
        ({"top_k": 1.5}, "top_k must be a whole number"),
        ({"min_p": 1.01}, "min_p must be between 0 and 1, got 1.01"),
        ({"seed": 1.0}, "seed must be a whole number"),
        ({"logprobs": -1}, "logprobs must be 0 or more"),
        ({"stop": 3}, "stop must be a string or a list of strings, got 3"),
        ({"stop": [b"x"]}, "stop must be a string or a list of strings"),
        ({"stop": ["a", ""]}, "stop holds an empty string"),
        ({"stop_token_ids": 2}, r"stop_token_ids must be a list of token ids, got 2; write it as stop_token_ids=\[2\]"),
        ({"stop_token_ids": [-1]}, "stop_token_ids holds -1"),
        ({"repetition_penalty": 0}, "repetition_penalty must be above 0, got 0; 1.0 switches it off"),
        ({"presence_penalty": 2.1}, "presence_penalty must be between -2 and 2, got 2.1; 0.0 switches it off"),
        ({"frequency_penalty": float("inf")}, "frequency_penalty must be a finite number, got inf"),
        ({"logit_bias": [1]}, r"logit_bias must map token ids to numbers, got \[1\]; write it as"),
        ({"logit_bias": {"x": 1}}, "logit_bias holds 'x', which is no token id"),
        ({"logit_bias": {3: 101}}, "logit_bias gives 101 to token 3; a bias is a number from -100 to 100"),
        ({"logit_bias": {3: float("nan")}}, "logit_bias gives nan to token 3"),
        ({"allowed_token_ids": []}, "allowed_token_ids is empty, so no token could come"),
        ({"allowed_token_ids": 5}, "allowed_token_ids must be a list of token ids, got 5"),
        ({"bad_words": [3]}, "bad_words must be a string or a list of strings"),
        ({"bad_words": [" "]}, "bad_words holds a text of nothing but spaces"),
        ({"ignore_eos": 1}, "ignore_eos must be True or False, got 1"),
    ],
)
def test_a_bad_value_is_refused_with_the_value_the_limit_and_the_next_step(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SamplingParams(**bad)


FOREIGN: dict[str, tuple[Any, Any]] = {
    "best_of": (1, 2),
    "use_beam_search": (False, True),
    "length_penalty": (1.0, 0.5),
    "early_stopping": (False, True),
    "spaces_between_special_tokens": (True, False),
    "detokenize": (True, False),
    "guided_decoding": (None, np.array([1, 2])),
    "logits_processors": ([], [print]),
    "truncate_prompt_tokens": (None, 5),
    "extra_args": ({}, {"a": 1}),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_vllm_has_and_does_not_exist_here_is_taken_where_it_asks_for_nothing(name: str) -> None:
    neutral, asking = FOREIGN[name]
    assert SamplingParams(**{name: neutral}) == replace(SamplingParams(**{name: None}), n=1) == SamplingParams()
    with pytest.raises(UsageError, match=rf"^{name}=.* does not exist here .*; \w+") as refusal:
        SamplingParams(**{name: asking})
    assert repr(asking)[:10] in str(refusal.value)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(TypeError, match="best_off"):
        SamplingParams(best_off=2)


def test_biases_may_be_written_with_ids_as_json_has_them() -> None:
    params = SamplingParams(logit_bias={"7": 1, 5: np.float32(-0.5)})
    assert params.biases == ((5, -0.5), (7, 1.0))
    assert params == SamplingParams(logit_bias={5: -0.5, 7: 1.0})
    assert hash(params) == hash(SamplingParams(logit_bias={5: -0.5, 7: 1.0}))


@pytest.mark.parametrize(
    ("params", "name"),
    [({"logit_bias": {3: 1}}, "logit_bias"), ({"allowed_token_ids": [0, 3]}, "allowed_token_ids")],
)
def test_ids_that_a_model_does_not_have_are_refused_for_it(params: dict[str, Any], name: str) -> None:
    SamplingParams(**params).check_vocabulary(4)
    with pytest.raises(RequestError, match=f"{name} holds token id 3; the model has ids from 0 to 2"):
        SamplingParams(**params).check_vocabulary(3)


def test_numbers_may_be_numpys_and_are_kept_as_pythons() -> None:
    params = SamplingParams(
        n=np.int64(2), max_tokens=np.int32(3), min_tokens=np.uint8(1), temperature=np.float32(0.5),
        top_p=np.float64(0.25), top_k=np.int16(7), min_p=np.float16(0.5), seed=np.uint64(2**63), logprobs=np.int64(1),
        stop_token_ids=np.array([5, 2]),
    )  # fmt: skip
    plain = SamplingParams(
        n=2, max_tokens=3, min_tokens=1, temperature=0.5, top_p=0.25, top_k=7, min_p=0.5, seed=2**63, logprobs=1,
        stop_token_ids=[5, 2],
    )  # fmt: skip
    assert params == plain
    numbers = [getattr(params, f.name) for f in fields(params) if f.name != "stop_token_ids"]
    assert all(type(number).__module__ == "builtins" for number in (*numbers, *params.stop_ids))


def test_numbers_may_be_torchs_scalars_too() -> None:
    half: Any = torch.tensor(0.5)
    three: Any = torch.tensor(3)
    params = SamplingParams(max_tokens=three, temperature=half, top_p=np.array(0.25), logit_bias={5: -half})
    assert params == SamplingParams(max_tokens=3, temperature=0.5, top_p=0.25, logit_bias={5: -0.5})
    assert (type(params.max_tokens), type(params.temperature), type(params.top_p)) == (int, float, float)


@pytest.mark.parametrize(
    "bad",
    [
        {"n": np.float64(2)},
        {"max_tokens": np.bool_(True)},
        {"temperature": np.array([0.5, 1])},
        {"temperature": torch.tensor([0.5, 1])},
        {"temperature": np.array("0.5")},
        {"temperature": np.bool_(True)},
        {"temperature": np.complex64(1)},
        {"top_k": 2.0},
    ],
)
def test_what_only_looks_like_a_number_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(bad))} must be a "):
        SamplingParams(**bad)


def test_a_request_without_tokens_is_refused_by_name() -> None:
    with pytest.raises(RequestError, match="request row-7: the prompt has 0 tokens"):
        Request("row-7", "", (), SamplingParams())


@pytest.mark.parametrize("bad", [-1, 1.0, "1", True])
def test_a_request_with_something_that_is_no_id_is_refused(bad: Any) -> None:
    with pytest.raises(RequestError, match="ids are whole numbers from 0"):
        Request("0", None, (1, bad), SamplingParams())


def test_answers_read_as_in_vllm() -> None:
    answer = CompletionOutput(0, " a time", (5, 6), finish_reason="stop", stop_reason="\n")
    out = RequestOutput("0", "Once upon", (1, 2), (answer,), finished=True)
    assert out.outputs[0].text == " a time"
    assert out.outputs[0].logprobs is None
