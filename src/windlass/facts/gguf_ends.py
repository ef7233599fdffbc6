"""Which tokens end an answer of a GGUF model, as llama.cpp finds them: those named, and those known by their text."""

from windlass.facts.gguf_model import GgufModel

_NAMED = ("eos_token_id", "eot_token_id", "eom_token_id")
_BY_TEXT = frozenset(
    ("<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<EOT>")
)
_CONTROL, _USER_DEFINED = 3, 4
"""Types of tokens that are never part of a text by chance."""


def end_ids(model: GgufModel) -> list[int]:
    """The end of the text first, if the file names it. Raises CheckpointError for values that make no sense."""
    keys = [f"tokenizer.ggml.{name}" for name in _NAMED]
    named = [model.whole(key) for key in keys if key in model.metadata]
    kinds = model.wholes("tokenizer.ggml.token_type")
    known = [
        token
        for token, (text, kind) in enumerate(zip(model.strings("tokenizer.ggml.tokens"), kinds, strict=False))
        if kind in (_CONTROL, _USER_DEFINED) and text in _BY_TEXT
    ]
    return [token for token in dict.fromkeys(named + known) if token >= 0]
