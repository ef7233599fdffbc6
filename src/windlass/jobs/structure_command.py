"""Asks transformers about one model and prints what it says as JSON. Runs in a process of its own (see structures.py).

Standard input is one JSON object: `folder` with a config.json, or `model_type` and `values` of a config; and `samples`,
names of the checkpoint's tensors by name without numbers, or null for the model's own names. Standard output is
`{"structure": ...}`, or `{"error": [class, message]}` for an error of the error tree.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import logging

from windlass.errors import CheckpointError, WindlassError
from windlass.facts.model_structure import ModelStructure
from windlass.facts.tensor_name import samples
from windlass.model.conductor import Seat
from windlass.model.config_file import plain_config, read_config
from windlass.model.parameter_map import Renaming
from windlass.model.shrink import FAILURES
from windlass.model.structure import rules_of, structure_of
from windlass.model.text_config import text_config_of
from windlass.model.zoo import lift, outline


def ask(question: Mapping[str, Any]) -> ModelStructure:
    """The structure of the model in question. Raises CheckpointError and UnsupportedModel."""
    config = text_config_of(_config(question))
    try:
        model = outline(config)
    except FAILURES as error:
        raise CheckpointError(
            f"{question.get('folder', config.model_type)}: its config.json makes no sense to transformers: "
            f"{type(error).__name__}: {error}; correct that value, or fetch the file again"
        ) from error
    structure = structure_of(lift(model, Seat()), torch.float32)
    wanted = structure.every_parameter()
    asked = question["samples"] or samples(wanted)
    return structure.with_rules(rules_of(Renaming(model, wanted), wanted, asked))


def _config(question: Mapping[str, Any]) -> PreTrainedConfig:
    if "folder" in question:
        return plain_config(read_config(Path(question["folder"])))
    return AutoConfig.for_model(question["model_type"], **question["values"])


def main() -> None:
    """Reads the question, prints the answer."""
    logging.set_verbosity_error()
    try:
        answer: dict[str, Any] = {"structure": ask(json.load(sys.stdin)).as_json()}
    except WindlassError as error:
        answer = {"error": [type(error).__name__, str(error)]}
    json.dump(answer, sys.stdout, default=str)
