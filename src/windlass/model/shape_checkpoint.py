"""The checkpoint that a shape would have: the config, and every tensor of the model under transformers' own name."""

import copy
from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedConfig

from windlass.facts.checkpoint_facts import CheckpointFacts
from windlass.facts.made_checkpoint import made_fact
from windlass.facts.shape import Shape
from windlass.memory.checkpoint import TORCH_DTYPES
from windlass.model.parameter_map import tied_names
from windlass.model.zoo import build

_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def shape_config(shape: Shape) -> PreTrainedConfig:
    """transformers' config of the shape."""
    return AutoConfig.for_model(shape.model_type, **shape.config)


def shape_checkpoint(config: PreTrainedConfig, dtype: torch.dtype, folder: Path) -> CheckpointFacts:
    """The tensors of a model of `config` in `dtype`, as they would lie in `folder`; tied ones once.

    Experts lie as the model holds them, one tensor for all of a layer, so that none has to be merged.
    """
    model = build(copy.deepcopy(config), dtype, torch.device("cpu"))
    tied = tied_names(model)
    facts = {
        name: made_fact(folder, name, _NAMES[tensor.dtype], tuple(tensor.shape), tensor.numel() * tensor.itemsize)
        for name, tensor in model.state_dict().items()
        if name not in tied
    }
    return CheckpointFacts(str(folder), facts)


def spread_of(config: PreTrainedConfig) -> float:
    """The standard deviation that a fresh model of the config is drawn with."""
    values = config.to_dict()
    return float(values.get("initializer_range") or values.get("init_std") or 0.02)
