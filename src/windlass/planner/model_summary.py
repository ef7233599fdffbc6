"""What a model is, in lines for people: parameters, bytes, keys and values, arithmetic."""

from windlass.facts.model_facts import ModelFacts
from windlass.planner.estimate import PAGE_TOKENS
from windlass.planner.work import active_parameters, cache_bytes, pair_flops, token_flops, total_parameters
from windlass.units import format_size

_KINDS = (("layer", "layers"), ("expert", "experts"), ("embedding", "embedding"), ("head", "head"), ("outer", "rest"))


def model_lines(model: ModelFacts) -> list[str]:
    """Sizes are binary, counts decimal."""
    total, active = total_parameters(model), active_parameters(model)
    parameters = f"{_count(total, 'B')} parameters"
    if active != total:
        parameters += f", {_count(active, 'B')} at work for a token ({model.experts_per_token} experts a layer)"
    longest = model.max_model_len
    token = model.cache_page_bytes(PAGE_TOKENS) // PAGE_TOKENS
    whole, within = longest * token, cache_bytes(model, longest) * token // max(1, model.cache_bytes_per_token)
    kept_as = f" in {model.cache_format.name}" if model.cache_format.packs else ""
    windows = f" ({format_size(within)} within its windows)" if within < whole else ""
    attended = pair_flops(model, longest)
    return [
        f"model    {model.name}: {model.model_type}, {model.num_layers} layers, {model.dtype}",
        f"         {parameters}",
        f"weights  {format_size(model.weight_bytes)}: {_by_kind(model)}",
        f"cache    {format_size(token)} of keys and values{kept_as} a token, "
        f"{format_size(whole)} for the {longest:,} tokens it can hold{windows}",
        f"work     {_count(token_flops(model))}FLOP a token, {_count(pair_flops(model))}FLOP a token attended to "
        f"({_count(attended)}FLOP for the last of {longest:,})",
    ]


def _by_kind(model: ModelFacts) -> str:
    """Bytes by kind of group, largest first; a head tied to the embedding is said to be so."""
    sizes: dict[str, int] = {}
    seen: set[str] = set()
    for group in model.groups:
        fresh = [source for source in group.sources if source.key not in seen]
        seen |= {source.key for source in fresh}
        sizes[group.kind] = sizes.get(group.kind, 0) + sum(source.nbytes for source in fresh)
    named = [(sizes[kind], name) for kind, name in _KINDS if sizes.get(kind)]
    text = ", ".join(f"{name} {format_size(size)}" for size, name in sorted(named, reverse=True))
    return text if sizes.get("head") else f"{text}, head tied to the embedding"


def _count(number: float, billion: str = "G") -> str:
    """`70.6 G`, `131 k`: decimal, with three digits."""
    for factor, letter in ((1e15, "P"), (1e12, "T"), (1e9, billion), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            value = number / factor
            return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f} {letter}"
    return f"{number:.0f} "
