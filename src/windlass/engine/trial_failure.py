"""Says in words why a twin could not be run here, so that a refusal names what the architecture does differently."""

from typing import cast

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig, PreTrainedModel

from windlass.engine.rehearsal import ShapeProbe
from windlass.errors import WindlassError
from windlass.model.kvcache import KVCache

OWN_ATTENTION = "its attention does not go through transformers' attention interface"
OWN_CACHE = "it keeps state beside keys and values, in a cache of its own kind"
INDEXED = "its attention picks keys by an index, and the index keeps keys of its own"


def reason_of(config: PreTrainedConfig, error: Exception) -> str:
    """Why the twin of `config` failed with `error`."""
    if isinstance(error, WindlassError):
        told = f"its twin was refused: {error}"
    else:
        told = f"its twin fails with {type(error).__name__}: {error}"
    if isinstance(error, AttributeError) and isinstance(error.obj, (KVCache, ShapeProbe)):
        return f"it keeps state beside keys and values (its layers ask the cache for {error.name!r})"
    if isinstance(error, ValueError) and "past_key_values" in str(error):
        return OWN_CACHE
    if not uses_attention_interface(config):
        return OWN_ATTENTION
    return INDEXED if config.to_dict().get("index_topk") else told


def uses_attention_interface(config: PreTrainedConfig) -> bool:
    """Whether transformers says of the type that its attention can be another's."""
    # transformers says of all its mappings that they hold pairs of tokenizers.
    kind = cast(type[PreTrainedModel], MODEL_FOR_CAUSAL_LM_MAPPING[type(config)])
    return bool(kind._supports_attention_backend)
