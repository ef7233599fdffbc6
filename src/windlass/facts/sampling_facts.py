"""Sampling parameters as values that JSON can hold and that are equal when they mean the same."""

from dataclasses import asdict, replace

from windlass.facts.sampling_params import SamplingParams

_FLAGS = {"json": "schema"}


def sampling_facts(params: SamplingParams) -> dict[str, object]:
    """By the names of the fields, and the form of the answer, where one is asked for, by the name of its flag."""
    written = {
        "stop": list(params.stop_strings),
        "stop_token_ids": list(params.stop_ids),
        "logit_bias": [list(pair) for pair in params.biases],
        "allowed_token_ids": list(params.allowed_ids),
        "bad_words": list(params.bad_strings),
    }
    facts = asdict(replace(params, structured_outputs=None)) | written
    del facts["structured_outputs"]
    form = params.structured_outputs
    return facts if form is None else facts | {_FLAGS.get(name, name): said for name, said in form.as_dict().items()}
