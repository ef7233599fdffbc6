"""Weights that are stored quantised, which are not read yet."""

from collections.abc import Mapping
from pathlib import PurePath

from windlass.errors import UnsupportedModel


def refuse_quantised(place: PurePath | str, config: Mapping[str, object]) -> None:
    """Raises UnsupportedModel for a config that says its weights are quantised. `place` is its folder or name."""
    settings = config.get("quantization_config")
    if settings:
        method = settings.get("quant_method", "unknown") if isinstance(settings, dict) else settings
        raise UnsupportedModel(
            f"{place} holds weights quantised with {method}, which Windlass cannot read yet; "
            "choose the model's float16 or bfloat16 checkpoint"
        )
