"""The config made of a GGUF file is that of the model it was written from, and its tensors have that model's names."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from gguf_models import ARCHITECTURES, gguf_beside, the_same_model
from windlass.errors import CheckpointError, ModelError, UnsupportedModel
from windlass.facts.gguf_config import config_of
from windlass.facts.gguf_model import GgufModel, read_gguf
from windlass.facts.gguf_tensors import tensors_of
from windlass.facts.tensor_fact import TensorFact

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


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "qwen3_moe", "gemma2", "gemma3_text", "phi3"])
def test_transformers_finds_the_same_numbers_in_these_files(architecture: str, tmp_path: Path) -> None:
    """So the files of these tests are written as llama.cpp writes them, in names, order of rows and norms."""
    gguf_beside(tmp_path, architecture, types=("Q8_0",))
    config = AutoConfig.from_pretrained(tmp_path / "dense")  # of two of them transformers makes none that is right
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, config=config, gguf_file="model.gguf", dtype=torch.float32
    ).state_dict()
    ours = the_same_model(tmp_path / "dense").state_dict()
    assert theirs.keys() == ours.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=1e-6)


HOSTILE: dict[str, tuple[dict[str, object], type[ModelError], str]] = {
    "another architecture": (
        {"general.architecture": "mamba"},
        UnsupportedModel,
        "architecture 'mamba'; llama, qwen2,",
    ),
    "endless layers": ({"llama.block_count": 1 << 31}, CheckpointError, "says it has 2147483648 layers"),
    "an endless head": ({"llama.attention.key_length": 1 << 31}, CheckpointError, "2 heads of 2147483648 numbers"),
    "no heads": ({"llama.attention.head_count": 0}, CheckpointError, "and 0 heads"),
    "no eps": ({"llama.attention.layer_norm_rms_epsilon": None}, CheckpointError, "epsilon is missing, expected a num"),
    "a word for a number": ({"llama.block_count": "two"}, CheckpointError, "is 'two', expected a whole number"),
    "layers differ": ({"llama.attention.head_count": [2, 4]}, UnsupportedModel, r"between layers \(\[2, 4\]\)"),
    "half-turned heads": ({"llama.rope.dimension_count": 16}, UnsupportedModel, "only 16 of 32 numbers of a head"),
    "dynamic positions": (
        {"llama.rope.scaling.type": "dynamic", "llama.rope.scaling.factor": 2.0},
        UnsupportedModel,
        "stretches rotary positions by 'dynamic'",
    ),
    "three experts": ({"llama.expert_count": 3, "llama.expert_used_count": 1}, CheckpointError, "of 3 experts"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_makes_no_sense_or_is_not_read_is_said_in_one_line(name: str) -> None:
    changes, kind, flaw = HOSTILE[name]
    values: dict[str, object] = {"general.architecture": "llama", "llama.embedding_length": 64}
    values |= {"llama.block_count": 1, "llama.attention.head_count": 2, "llama.feed_forward_length": 64}
    values |= {"llama.context_length": 128, "llama.attention.layer_norm_rms_epsilon": 1e-5}
    facts = {
        tensor: TensorFact(tensor, "F32", shape, "x.gguf", 0, 0)
        for tensor, shape in {"token_embd.weight": (9, 64), "blk.0.ffn_gate_exps.weight": (2, 32, 64)}.items()
    }
    said = {key: value for key, value in (values | changes).items() if value is not None}
    model = GgufModel(Path("x.gguf"), said, facts)
    with pytest.raises(kind, match=flaw) as error:
        tensors_of(model, config_of(model))
    assert "\n" not in str(error.value)


def test_a_tensor_that_is_not_known_is_named(tmp_path: Path) -> None:
    file = gguf_beside(tmp_path, "llama", num_hidden_layers=1)
    model = read_gguf(file)
    strange = replace(model, tensors={**model.tensors, "blk.0.attn_sub_norm.weight": model.tensors["output.weight"]})
    with pytest.raises(UnsupportedModel, match=r"tensor blk\.0\.attn_sub_norm\.weight of the architecture llama"):
        tensors_of(strange, config_of(model))
