"""A GGUF model as a checkpoint: its tensors by transformers' names, and what they are computed in."""

from typing import Any

from windlass.facts.checkpoint_facts import CheckpointFacts
from windlass.facts.gguf_model import GgufModel
from windlass.facts.gguf_tensors import tensors_of
from windlass.facts.gguf_types import PLAIN_TYPES


def gguf_checkpoint(model: GgufModel, config: dict[str, Any]) -> CheckpointFacts:
    """`config` is what `config_of` gives. A file with quantised matrices is computed in bfloat16, others as they are.

    Raises UnsupportedModel for a tensor or a type that is not read.
    """
    return CheckpointFacts(str(model.path), tensors_of(model, config), _computed_in(model))


def _computed_in(model: GgufModel) -> str:
    sizes: dict[str, int] = {}
    for fact in model.tensors.values():
        sizes[fact.dtype] = sizes.get(fact.dtype, 0) + fact.nbytes
    if not set(sizes) <= set(PLAIN_TYPES):
        return "BF16"
    return max(sizes, key=lambda dtype: sizes[dtype], default="F32")
