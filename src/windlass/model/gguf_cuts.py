"""How text is cut before the merges of a byte-level vocabulary, by the name that GGUF files give it.

The names are llama.cpp's, the patterns those that the models' makers publish in their tokenizer.json.
"""

from tokenizers import Regex, pre_tokenizers

from windlass.errors import UnsupportedModel

_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
_CASED_REST = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"

_LLAMA3 = rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
_TEKKEN = rf"{_CASED[0]}|{_CASED[1]}|\p{{N}}|{_CASED_REST}"
_GPT4O = rf"{_CASED[0]}{_ENDINGS}?|{_CASED[1]}{_ENDINGS}?|\p{{N}}{{1,3}}|{_CASED_REST}"

_PATTERNS = {
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "dbrx", "smaug-bpe"), _LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan"), _QWEN2),
    **dict.fromkeys(("gpt-4o", "llama4"), _GPT4O),
    "tekken": _TEKKEN,
}
_AS_GPT2 = ("default", "gpt-2", "phi-2", "olmo", "jina-en", "jina-es", "jina-de", "mpt", "trillion", "exaone4")
_DIGITS_APART = ("smollm", "starcoder", "refact", "command-r", "codeshell")

COMPOSED = ("qwen2", "deepseek-r1-qwen")
"""Text is brought to Unicode's composed form before it is cut."""

WHOLE_FIRST = ("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "tekken")
"""A piece that is a token as a whole is that token, whatever the merges would make of it."""


def cut_by(name: str, file: str) -> pre_tokenizers.PreTokenizer:
    """What cuts text, and writes its bytes as the letters that the vocabulary has for them.

    Raises UnsupportedModel for a name that is not known: other cuts would be other tokens, in silence.
    """
    if name in _AS_GPT2:
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name in _DIGITS_APART:
        bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytewise])
    if name not in _PATTERNS:
        known = ", ".join(sorted((*_PATTERNS, *_AS_GPT2, *_DIGITS_APART)))
        raise UnsupportedModel(
            f"{file} has its text cut by {name!r} (tokenizer.ggml.pre), which is not read yet; read are {known}: "
            f"choose the model's safetensors checkpoint"
        )
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_PATTERNS[name]), behavior="isolated"), bytewise])
