"""The vocabulary in a GGUF file, as the file has it: tokens, how they were learned, and which are special."""

from collections.abc import Mapping
from dataclasses import dataclass

from windlass.errors import CheckpointError
from windlass.facts.gguf_model import GgufModel

_KEY = "tokenizer.ggml."
_CONTROL, _USER_DEFINED, _UNKNOWN = 3, 4, 2
# Ways of cutting text whose vocabularies begin every text with a token, where the file does not say.
_BEGINS = ("llama3", "llama-v3", "llama-bpe", "falcon3", "tekken")
# Files from before the way of cutting was written down, by architecture.
_CUTS = {"qwen2": "qwen2", "qwen2moe": "qwen2", "qwen3": "qwen2", "qwen3moe": "qwen2"}


@dataclass(frozen=True, slots=True)
class GgufVocabulary:
    """`kind` is "llama" (merges by score), "gpt2" (bytes and merges) or "t5" (the likeliest cut); `cut` names how text
    is cut before. `scores` and `kinds` have an entry for each token or none. Ids are within the tokens, or None."""

    kind: str
    cut: str
    tokens: list[str]
    scores: list[float]
    kinds: list[int]
    merges: list[str]
    bos: int | None
    eos: int | None
    unknown: int | None
    padding: int | None
    adds_bos: bool
    adds_eos: bool
    adds_space: bool
    chat_template: str | None

    @property
    def control(self) -> list[str]:
        """Tokens that no text has: they are found whole, and are not shown."""
        return [token for token, kind in zip(self.tokens, self.kinds, strict=False) if kind == _CONTROL]

    @property
    def whole(self) -> list[str]:
        """Tokens of text that are found whole before anything else."""
        return [token for token, kind in zip(self.tokens, self.kinds, strict=False) if kind == _USER_DEFINED]

    def token(self, number: int | None) -> str | None:
        """The text of an id."""
        return None if number is None else self.tokens[number]


def vocabulary_of(model: GgufModel) -> GgufVocabulary | None:
    """None where the file has no tokenizer. Raises CheckpointError for values that make no sense."""
    kind = model.text(f"{_KEY}model", "none")
    tokens = model.strings(f"{_KEY}tokens")
    if kind in ("none", "no_vocab") or not tokens:
        return None
    scores, kinds = model.numbers(f"{_KEY}scores"), model.wholes(f"{_KEY}token_type")
    for name, found in (("scores", scores), ("token_type", kinds)):
        if found and len(found) != len(tokens):
            raise CheckpointError(
                f"{model.path}: {_KEY}{name} has {len(found):,} entries, there are {len(tokens):,} tokens; fetch "
                f"another file of the model"
            )
    cut = model.text(f"{_KEY}pre", _CUTS.get(model.architecture, "default"))
    unknown = _id(model, "unknown_token_id", tokens)
    template = model.text("tokenizer.chat_template")
    return GgufVocabulary(
        kind=kind,
        cut=cut,
        tokens=tokens,
        scores=scores,
        kinds=kinds,
        merges=model.strings(f"{_KEY}merges"),
        bos=_id(model, "bos_token_id", tokens),
        eos=_id(model, "eos_token_id", tokens),
        unknown=kinds.index(_UNKNOWN) if unknown is None and _UNKNOWN in kinds else unknown,
        padding=_id(model, "padding_token_id", tokens),
        adds_bos=_flag(model.metadata, "add_bos_token", kind == "llama" or cut in _BEGINS),
        adds_eos=_flag(model.metadata, "add_eos_token", kind == "t5"),
        adds_space=_flag(model.metadata, "add_space_prefix", True),
        chat_template=template or None,
    )


def _id(model: GgufModel, name: str, tokens: list[str]) -> int | None:
    number = model.whole(f"{_KEY}{name}", -1)
    return number if 0 <= number < len(tokens) else None


def _flag(metadata: Mapping[str, object], name: str, default: bool) -> bool:
    return bool(metadata.get(f"{_KEY}{name}", default))
