"""The config made of a GGUF file is that of the model it was written from, and its tensors have that model's names."""

from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoConfig

from gguf_models import ARCHITECTURES, gguf_beside
from windlass.facts.gguf_config import config_of
from windlass.facts.gguf_model import read_gguf
from windlass.facts.gguf_tensors import tensors_of

# What a config says and what says nothing of the numbers that a model gives.
SILENT = {"_name_or_path", "dtype", "architectures", "transformers_version", "pad_token_id", "bos_token_id"}
SILENT |= {"eos_token_id", "max_window_layers", "initializer_range", "router_aux_loss_coef", "use_cache"}
SILENT |= {"use_bidirectional_attention", "output_router_logits", "torch_dtype", "attn_implementation"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_config_and_names_are_those_of_the_model_it_was_written_from(architecture: str, tmp_path: Path) -> None:
    model = read_gguf(gguf_beside(tmp_path, architecture))
    found = config_of(model)
    expected = AutoConfig.from_pretrained(tmp_path / "dense").to_dict()
    made = AutoConfig.for_model(**found).to_dict()
    assert {k: v for k, v in made.items() if k not in SILENT} == {k: v for k, v in expected.items() if k not in SILENT}
    dense = load_file(tmp_path / "dense" / "model.safetensors")
    tensors = tensors_of(model, found)
    assert {name: fact.shape for name, fact in tensors.items()} == {n: tuple(t.shape) for n, t in dense.items()}
