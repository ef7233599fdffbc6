"""The tokenizer of a GGUF file, made of the vocabulary in it: the same ids as the model's own tokenizer gives."""

from transformers import PreTrainedTokenizerFast

from windlass.facts.gguf_model import GgufModel
from windlass.facts.gguf_vocabulary import vocabulary_of
from windlass.model.gguf_backend import gguf_backend
from windlass.model.tokenizer import NoTokenizer, Tokenizer


def gguf_tokenizer(model: GgufModel) -> Tokenizer | NoTokenizer:
    """A NoTokenizer where the file has no vocabulary.

    Raises UnsupportedModel for a kind of vocabulary that is not read, CheckpointError for one that is not sound.
    """
    vocabulary = vocabulary_of(model)
    if vocabulary is None:
        return NoTokenizer(str(model.path))
    special = {
        "bos_token": vocabulary.token(vocabulary.bos),
        "eos_token": vocabulary.token(vocabulary.eos),
        "unk_token": vocabulary.token(vocabulary.unknown),
        "pad_token": vocabulary.token(vocabulary.padding),
    }
    inner = PreTrainedTokenizerFast(
        tokenizer_object=gguf_backend(model, vocabulary),
        clean_up_tokenization_spaces=False,
        chat_template=vocabulary.chat_template,
        **{name: token for name, token in special.items() if token is not None},
    )
    return Tokenizer(inner)
