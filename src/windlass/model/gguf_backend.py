"""The parts of a GGUF file's vocabulary put together: what cuts, merges and joins text, of the tokenizers library.

transformers' converters of GGUF vocabularies are private and moved between its versions. A GGUF file has no merges of
a SentencePiece vocabulary: they are all ways to put two tokens together that give a third, those of the best first.
"""

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from windlass.errors import CheckpointError, UnsupportedModel
from windlass.facts.gguf_model import GgufModel
from windlass.facts.gguf_vocabulary import GgufVocabulary
from windlass.model.gguf_cuts import COMPOSED, WHOLE_FIRST, cut_by
from windlass.model.vocabulary_damage import VocabularyDamage

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# Of these the scores do not rise with the order of the merges; the order of the tokens does.
_RANKED_BY_PLACE = ("gemma", "gemma2", "gemma3")
# Space behind these tokens is a part of them, save behind the first ones.
_SWALLOWS_SPACE = ("phi3",)
_SWALLOWS_NOTHING = ("<unk>", "<s>", "<|endoftext|>")


def gguf_backend(model: GgufModel, vocabulary: GgufVocabulary) -> Tokenizer:
    """Raises UnsupportedModel for a kind of vocabulary that is not read, CheckpointError for one that is not sound."""
    if vocabulary.kind not in _KINDS:
        raise UnsupportedModel(
            f"{model.path} has a vocabulary of the kind {vocabulary.kind!r}; {', '.join(_KINDS)} are read: choose the "
            f"model's safetensors checkpoint"
        )
    cut = cut_by(vocabulary.cut, str(model.path)) if vocabulary.kind == "gpt2" else None
    damage = VocabularyDamage(
        f"the tokenizer in {model.path} cannot be made", "fetch another file of the model", (ValueError,)
    )
    with damage:
        backend = _KINDS[vocabulary.kind](vocabulary, model)
        if cut is not None:
            backend.pre_tokenizer = cut
        _add_tokens(backend, vocabulary, model.architecture)
        _add_ends(backend, vocabulary)
    return backend


def _bytewise(vocabulary: GgufVocabulary, model: GgufModel) -> Tokenizer:
    """A vocabulary of bytes and merges, as GPT-2's."""
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in vocabulary.merges)]
    ids, whole_first = _ids(vocabulary), vocabulary.cut in WHOLE_FIRST
    # The library panics where it meets one of these, past every `except`.
    stray = next((merge for merge in merges if not {*merge, "".join(merge)} <= ids.keys()), None)
    if stray is not None:
        raise CheckpointError(
            f"the tokenizer in {model.path} cannot be made: it merges {stray[0]!r:.40} and {stray[1]!r:.40}, which are "
            f"no tokens of it, or give none; fetch another file of the model"
        )
    backend = Tokenizer(models.BPE(ids, merges, ignore_merges=whole_first))
    backend.decoder = decoders.ByteLevel()
    if vocabulary.cut in COMPOSED:
        backend.normalizer = normalizers.NFC()
    return backend


def _by_score(vocabulary: GgufVocabulary, model: GgufModel) -> Tokenizer:
    """A vocabulary of SentencePiece's merging kind, as Llama's."""
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in vocabulary.merges)]
    merges = merges or merges_by_score(vocabulary, model.architecture in _RANKED_BY_PLACE)
    ids = _ids(vocabulary)
    backend = Tokenizer(
        models.BPE(
            ids, merges, unk_token=vocabulary.token(vocabulary.unknown), fuse_unk=True,
            byte_fallback=all(byte in ids for byte in _BYTES),
        )
    )  # fmt: skip
    spaces = normalizers.Replace(" ", _SPACE)
    backend.normalizer = (
        normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if vocabulary.adds_space else spaces
    )
    back = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)] if vocabulary.adds_space else back)
    return backend


def _likeliest(vocabulary: GgufVocabulary, model: GgufModel) -> Tokenizer:
    """A vocabulary of SentencePiece's unigram kind, as T5's."""
    scores = vocabulary.scores or [0.0] * len(vocabulary.tokens)
    backend = Tokenizer(models.Unigram(list(zip(vocabulary.tokens, scores, strict=True)), vocabulary.unknown, False))
    scheme = "always" if vocabulary.adds_space else "never"
    charsmap = model.numbers("tokenizer.ggml.precompiled_charsmap")
    if charsmap:
        backend.normalizer = normalizers.Precompiled(bytes(int(byte) & 255 for byte in charsmap))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, scheme)
    backend.decoder = decoders.Metaspace(_SPACE, scheme)
    return backend


_KINDS = {"llama": _by_score, "gpt2": _bytewise, "t5": _likeliest}


def merges_by_score(vocabulary: GgufVocabulary, by_place: bool) -> list[tuple[str, str]]:
    """All pairs of tokens that make a token, the best token first. `by_place` takes the first token for the best."""
    ids = _ids(vocabulary)
    ranks = [-float(place) for place in range(len(ids))] if by_place or not vocabulary.scores else vocabulary.scores
    found = []
    for token, number in ids.items():
        for cut in range(1, len(token)):
            left, right = ids.get(token[:cut]), ids.get(token[cut:])
            if left is not None and right is not None:
                found.append((-ranks[number], number, left, right))
    found.sort()
    return [(vocabulary.tokens[left], vocabulary.tokens[right]) for _, _, left, right in found]


def _ids(vocabulary: GgufVocabulary) -> dict[str, int]:
    return {token: number for number, token in enumerate(vocabulary.tokens)}


def _add_tokens(backend: Tokenizer, vocabulary: GgufVocabulary, architecture: str) -> None:
    swallows = architecture in _SWALLOWS_SPACE and vocabulary.kind == "llama"
    control = [
        AddedToken(token, normalized=False, special=True, rstrip=swallows and token not in _SWALLOWS_NOTHING)
        for token in vocabulary.control
    ]
    backend.add_special_tokens(control)
    backend.add_tokens([AddedToken(token, normalized=False, special=False) for token in vocabulary.whole])


def _add_ends(backend: Tokenizer, vocabulary: GgufVocabulary) -> None:
    """A token before the text and one behind it, as the file says."""
    bos, eos = vocabulary.token(vocabulary.bos), vocabulary.token(vocabulary.eos)
    before = [(bos, vocabulary.bos)] if vocabulary.adds_bos and bos is not None else []
    behind = [(eos, vocabulary.eos)] if vocabulary.adds_eos and eos is not None else []
    if before or behind:
        pieces = [*(token for token, _ in before), "$A", *(token for token, _ in behind)]
        backend.post_processor = processors.TemplateProcessing(single=pieces, special_tokens=[*before, *behind])
