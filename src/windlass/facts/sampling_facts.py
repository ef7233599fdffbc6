"""Sampling parameters as values that JSON can hold and that are equal when they mean the same."""

from dataclasses import asdict

from windlass.facts.sampling_params import SamplingParams


def sampling_facts(params: SamplingParams) -> dict[str, object]:
    """By the names of the fields."""
    written = {
        "stop": list(params.stop_strings),
        "stop_token_ids": list(params.stop_ids),
        "logit_bias": [list(pair) for pair in params.biases],
        "allowed_token_ids": list(params.allowed_ids),
        "bad_words": list(params.bad_strings),
    }
    return asdict(params) | written
