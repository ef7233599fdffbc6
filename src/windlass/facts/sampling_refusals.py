"""vLLM's names for what does not exist here: taken where they ask for nothing, refused with what to do instead."""

from collections.abc import Mapping

from windlass.errors import UsageError

# Name -> the values at which it asks for nothing, and the next step for any other. In the order of SamplingParams.
_FOREIGN: Mapping[str, tuple[tuple[object, ...], str]] = {
    "best_of": ((None, 1), "ask for all of them with n, and choose by cumulative_logprob with logprobs=0"),
    "use_beam_search": ((None, False), "leave it out; temperature=0 takes the likeliest token at each step"),
    "length_penalty": ((None, 1), "leave it out; it belongs to beam search"),
    "early_stopping": ((None, False), "leave it out; it belongs to beam search"),
    "spaces_between_special_tokens": ((None, True), "leave it out; texts are those of transformers' decode"),
    "detokenize": ((None, True), "leave it out and use token_ids; the text costs next to nothing"),
    "guided_decoding": ((None,), "say it as structured_outputs=StructuredOutputsParams(json=...)"),
    "logits_processors": ((None, [], ()), "use logit_bias, allowed_token_ids, bad_words or the penalties"),
    "truncate_prompt_tokens": ((None,), "shorten the prompt, as in prompt_token_ids[-1000:]"),
    "extra_args": ((None, {}), "leave it out; nothing here reads it"),
}


def refuse_foreign(values: tuple[object, ...]) -> None:
    """`values` of the foreign names in order. Raises UsageError for the first that asks for something."""
    for (name, (neutral, step)), value in zip(_FOREIGN.items(), values, strict=True):
        plain = value is None or isinstance(value, (bool, int, float, list, tuple, dict))
        if not plain or value not in neutral:
            raise UsageError(f"{name}={value!r:.60} does not exist here and would change the answer; {step}")
