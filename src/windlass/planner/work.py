"""The arithmetic of a model, from its facts alone: floating-point operations and parameters per token and per layer.

A multiplication and an addition count as two operations. Matrices count; norms, biases, rotary tables and the look-up
in the embedding do not: beside the matrices they are nothing.
"""

from windlass.facts.attention_shape import AttentionShape
from windlass.facts.cache_shape import CacheShape
from windlass.facts.model_facts import ModelFacts
from windlass.facts.parameter_source import ParameterSource
from windlass.facts.weight_group import WeightGroup

# Tables outside the layers that are looked up and never multiplied by.
_TABLES = ("embed", "wpe", "wte")


def parameters(group: WeightGroup) -> int:
    """How many parameters a group holds."""
    return sum(_numbers(source) for source in group.sources)


def matrix_flops(group: WeightGroup) -> int:
    """Operations of one token with the matrices of a group: two a number of theirs, none for the embedding."""
    if group.kind == "embedding":
        return 0
    looked_up = group.kind == "outer"
    return 2 * sum(
        _numbers(source)
        for source in group.sources
        if _is_matrix(source) and not (looked_up and any(table in source.parameter for table in _TABLES))
    )


def layer_flops(model: ModelFacts, layer: int) -> int:
    """Operations of one token with the matrices of a layer: its own and those of the experts the token is sent to."""
    return sum(_share(model, group) * matrix_flops(group) for group in _used(model) if group.layer == layer)


def head_flops(model: ModelFacts) -> int:
    """Operations of one token whose logits are wanted, in the head."""
    return sum(matrix_flops(group) for group in model.groups if group.kind == "head")


def token_flops(model: ModelFacts, logits: bool = True) -> int:
    """Operations of one token with all matrices it meets, those of attention with other tokens aside."""
    dense = sum(_share(model, group) * matrix_flops(group) for group in _used(model) if group.kind != "head")
    return dense + (head_flops(model) if logits else 0)


def pair_flops(model: ModelFacts, attended: int | None = None) -> int:
    """Operations of one token with one token it attends to, over all layers.

    With `attended`, operations with that many tokens before it (itself among them), where windows see fewer.
    """
    if attended is None:
        return sum(shape.flops_per_pair for _, shape in model.attention_shapes)
    return sum(shape.flops_per_pair * min(attended, shape.window or attended) for _, shape in model.attention_shapes)


def rebuild_flops(model: ModelFacts) -> int:
    """Operations that rebuild keys and values of one stored token over all layers (MLA), 0 where none are compressed.

    They are paid once for each sequence of a micro-batch and each token it looks at, not for each pair.
    """
    stored = dict(model.cache_shapes)
    return sum(_rebuilt(stored[layer], shape) for layer, shape in model.attention_shapes if layer in stored)


def total_parameters(model: ModelFacts) -> int:
    """Every parameter once; a tied head is not counted again."""
    sources = {source.key: source for group in model.groups for source in group.sources}
    return sum(_numbers(source) for source in sources.values())


def active_parameters(model: ModelFacts) -> int:
    """Parameters that one token meets: all but the experts it is not sent to. A tied head is not counted again."""
    experts = {group.layer: group.expert + 1 for group in model.groups if group.expert is not None}
    found: dict[str, int] = {}
    for group in _used(model):
        for source in group.sources:
            numbers = _share(model, group) * _numbers(source)
            if group.kind == "layer" and _is_bias_of_experts(source, experts.get(group.layer, 0)):
                numbers = numbers * model.experts_per_token // experts[group.layer]
            found[source.key] = numbers
    return sum(found.values())


def cache_bytes(model: ModelFacts, tokens: int) -> int:
    """Bytes of keys and values that `tokens` tokens of one sequence need, where windows let go of what they passed."""
    windows = {layer: shape.window for layer, shape in model.attention_shapes}
    kept = (shape.elements * min(tokens, windows.get(layer) or tokens) for layer, shape in model.cache_shapes)
    return sum(kept) * model.itemsize


def _used(model: ModelFacts) -> list[WeightGroup]:
    """All groups, with one expert of each layer: they are alike."""
    return [group for group in model.groups if group.expert in (None, 0)]


def _share(model: ModelFacts, group: WeightGroup) -> int:
    """How many of a group like this a token meets."""
    return model.experts_per_token if group.kind == "expert" else 1


def _numbers(source: ParameterSource) -> int:
    return source.numbers


def _is_matrix(source: ParameterSource) -> bool:
    return len(source.shapes[0]) > 1 and not source.parameter.endswith("bias")


def _is_bias_of_experts(source: ParameterSource, experts: int) -> bool:
    """Whether a source of a layer holds a row for each of its experts, which travel with the layer."""
    shape = source.shapes[0]
    return len(shape) == 2 and shape[0] == experts and source.parameter.endswith("bias")


def _rebuilt(stored: CacheShape, attended: AttentionShape) -> int:
    """2 x rank x heads x (key without its rotary part + value), where a latent of one head stands for many."""
    if stored.key_heads != 1 or (stored.key_dim, stored.value_dim) == (attended.key_dim, attended.value_dim):
        return 0
    return 2 * stored.key_dim * attended.query_heads * (attended.key_dim - stored.value_dim + attended.value_dim)
