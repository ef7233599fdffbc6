"""A model as the planner sees it, from its structure and the headers of its checkpoint: exact, and without loading."""

from collections.abc import Callable
from dataclasses import dataclass

from windlass.errors import UsageError
from windlass.facts.attention_config import attention_shapes, cache_shapes, experts_per_token
from windlass.facts.cache_shape import CacheShape
from windlass.facts.checkpoint_facts import CheckpointFacts
from windlass.facts.model_facts import ModelFacts
from windlass.facts.model_structure import ModelStructure
from windlass.facts.number_types import ITEM_BYTES, computed_in
from windlass.facts.parameter_sources import ParameterSources, parameter_sources
from windlass.facts.tensor_name import Destination, renamed_by
from windlass.facts.weight_groups import weight_groups

# Where neither the config nor anybody says how long a sequence may be.
MOST_TOKENS = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """`facts`, and which conversions of transformers make the sources that are no plain views."""

    facts: ModelFacts
    parameters: ParameterSources


def describe(
    name: str,
    structure: ModelStructure,
    checkpoint: CheckpointFacts,
    dtype: str = "auto",
    max_model_len: int | None = None,
    *,
    renamed: Callable[[str], Destination] | None = None,
    stored: Callable[[], tuple[tuple[int, CacheShape], ...]] | None = None,
) -> ModelDescription:
    """Everything a plan needs of the model `name`. `dtype` is "auto" or a name.

    `renamed` tells where a tensor goes, by default the structure's own rules. `stored` measures what layers store of a
    token; by default the config tells. Raises CheckpointError where weights and config disagree,
    UsageError for a dtype that is not known and a length beyond the model's.
    """
    config = structure.config
    chosen = computed_in(dtype, checkpoint.weights_dtype)
    rules = structure.rules
    parameters = parameter_sources(structure, checkpoint, chosen, renamed or (lambda key: renamed_by(rules, key)))
    layers = len(structure.layers)
    groups = weight_groups(structure, parameters.sources)
    facts = ModelFacts(
        name=name,
        model_type=str(config["model_type"]),
        dtype=chosen,
        itemsize=ITEM_BYTES[chosen],
        num_layers=layers,
        hidden_size=int(config["hidden_size"]),
        vocab_size=int(config["vocab_size"]),
        max_model_len=longest_sequence(config.get("max_position_embeddings"), max_model_len),
        groups=groups,
        cache_shapes=stored() if stored else cache_shapes(config, layers, structure.latent),
        attention_shapes=attention_shapes(config, layers),
        experts_per_token=experts_per_token(config) if any(group.kind == "expert" for group in groups) else 0,
    )
    return ModelDescription(facts, parameters)


def longest_sequence(known: int | None, asked: int | None) -> int:
    """Tokens of a sequence at most: as asked, or as many as the model knows positions. Raises UsageError."""
    most = known or MOST_TOKENS
    if asked is not None and not 0 < asked <= most:
        raise UsageError(f"--max-model-len {asked} is not within 1 and {most}, the positions the model knows")
    return asked or most
