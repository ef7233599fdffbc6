"""Reads a model's config.json by transformers, and never the code that may come with it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from transformers import __version__ as transformers_version

from windlass.errors import CheckpointError, UnsupportedModel
from windlass.facts.config_values import read_config_values


def read_config(folder: Path) -> PreTrainedConfig:
    """The config of a model folder; code that comes with it is never run.

    Raises CheckpointError for one that is missing or broken, UnsupportedModel for a type that transformers lacks.
    """
    return _made(
        folder / "config.json",
        read_config_values(folder)["model_type"],
        lambda: AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True),
    )


def config_of_values(file: Path, values: Mapping[str, Any]) -> PreTrainedConfig:
    """The config of `values`, with their `model_type`, that `file` gives. Raises as `read_config` does."""
    given = {name: value for name, value in values.items() if name != "model_type"}
    return _made(file, values["model_type"], lambda: AutoConfig.for_model(values["model_type"], **given))


def _made(path: Path, model_type: str, make: Callable[[], PreTrainedConfig]) -> PreTrainedConfig:
    if model_type not in CONFIG_MAPPING:
        raise UnsupportedModel(
            f"{path} is of the type {model_type!r}, which transformers {transformers_version} does not know (code that "
            f"comes with a model is never run); update transformers, or choose a model of another type"
        )
    try:
        return make()
    except (ValueError, KeyError, OSError, TypeError, ArithmeticError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path} makes no sense to transformers: {reason}; correct that value, or fetch the file again"
        ) from error


def plain_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config without what it says of packed weights: the model is built plain, and they are lent to it."""
    for part in (config, getattr(config, "text_config", None)):
        if part is not None:
            vars(part).pop("quantization_config", None)
    return config
