"""Quantised checkpoints as facts: one packed tensor a layer, and a refusal that says what is wrong with the others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from foreign_formats import awq, compressed, fp8, gptq, packed_int, plain_int
from windlass.errors import CheckpointError, UnsupportedModel
from windlass.facts.checkpoint_facts import CheckpointFacts, read_checkpoint
from windlass.facts.formats.awq import packed_awq
from windlass.facts.formats.compressed_tensors import packed_compressed
from windlass.facts.formats.fp8 import packed_fp8
from windlass.facts.formats.gptq import packed_gptq
from windlass.facts.formats.mxfp4 import packed_mxfp4
from windlass.facts.packed_checkpoint import packed_checkpoint
from windlass.facts.packed_tensor import PackedTensor

UP = "model.layers.0.mlp.up_proj"
ROWS, COLUMNS = 96, 192
Raw = dict[str, torch.Tensor]
Read = Callable[[CheckpointFacts, dict[str, Any]], CheckpointFacts]
AWQ = {"bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}
GPTQ = {"bits": 4, "group_size": 32, "desc_act": True}
INT4 = {"num_bits": 4, "type": "int", "group_size": 32, "strategy": "group"}


def drawn(pack: Callable[..., Any], **settings: Any) -> Raw:
    """The raw tensors of one layer, and an embedding beside them."""
    raw = pack(ROWS, COLUMNS, torch.Generator().manual_seed(1), **settings).raw
    return {f"{UP}{end}": tensor for end, tensor in raw.items()} | {"model.embed_tokens.weight": torch.ones(8, 4)}


def mxfp4() -> Raw:
    experts = "model.layers.0.mlp.experts.gate_up_proj"
    shape = (2, 24, 3)
    return {
        f"{experts}_blocks": torch.ones(*shape, 16, dtype=torch.uint8),
        f"{experts}_scales": torch.ones(*shape, dtype=torch.uint8),
        f"{experts}_bias": torch.ones(2, 24, dtype=torch.bfloat16),
    }


@pytest.fixture
def read(tmp_path: Path) -> Callable[[Read, Raw, dict[str, Any]], CheckpointFacts]:
    """Writes tensors and reads them as a format."""

    def reading(method: Read, raw: Raw, settings: dict[str, Any]) -> CheckpointFacts:
        save_file({name: tensor.contiguous() for name, tensor in raw.items()}, tmp_path / "model.safetensors")
        return method(read_checkpoint(tmp_path), settings)

    return reading


WHOLE: dict[str, tuple[Read, Raw, dict[str, Any], str, set[str]]] = {
    "awq": (packed_awq, drawn(awq), AWQ, "awq", {"codes", "zeros", "scales"}),
    "gptq": (packed_gptq, drawn(gptq), GPTQ, "gptq", {"codes", "zeros", "scales", "groups"}),
    "gptq of 3 bits": (
        packed_gptq, drawn(gptq, bits=3, order="absent"), GPTQ | {"bits": 3}, "gptq", {"codes", "zeros", "scales"},
    ),
    "pack-quantized": (
        packed_compressed, drawn(packed_int, zeros="packed"), compressed("pack-quantized", INT4), "packed-int",
        {"codes", "zeros", "scales"},
    ),
    "int-quantized": (
        packed_compressed, drawn(plain_int), compressed("int-quantized", {"num_bits": 8, "type": "int"}), "plain-int",
        {"codes", "scales"},
    ),
    "float-quantized": (
        packed_compressed, drawn(fp8, block=(1, COLUMNS), ending="_scale"),
        compressed("float-quantized", {"num_bits": 8, "type": "float"}), "fp8", {"codes", "scales"},
    ),
    "fp8": (packed_fp8, drawn(fp8), {"weight_block_size": [32, 32]}, "fp8", {"codes", "scales"}),
    "fp8 of blocks that do not divide": (
        packed_fp8, drawn(fp8, block=(40, 80)), {"weight_block_size": [40, 80]}, "fp8", {"codes", "scales"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WHOLE)
def test_a_layer_becomes_one_packed_tensor_of_its_shape(case: str, read: Callable[..., CheckpointFacts]) -> None:
    method, raw, settings, name, roles = WHOLE[case]
    facts = read(method, raw, settings)
    packed = facts.tensors[f"{UP}.weight"]
    assert isinstance(packed, PackedTensor)
    assert packed.shape == (ROWS, COLUMNS) and packed.packing.name == name
    assert {role for role, _ in packed.parts} == roles
    assert set(facts.tensors) == {f"{UP}.weight", "model.embed_tokens.weight"}
    assert packed.nbytes <= sum(tensor.nbytes for name, tensor in raw.items() if name.startswith(UP))


def test_experts_of_mxfp4_are_one_packed_tensor_with_outputs_before_inputs(read: Callable[..., Any]) -> None:
    facts = read(packed_mxfp4, mxfp4(), {})
    packed = facts.tensors["model.layers.0.mlp.experts.gate_up_proj"]
    assert packed.shape == (2, 24, 96) and packed.packing.name == "mxfp4"
    assert packed.expert(1).parts[0][1].offset == packed.offset + packed.parts[0][1].nbytes // 2
    assert "model.layers.0.mlp.experts.gate_up_proj_bias" in facts.tensors


def test_experts_of_fp8_in_one_tensor_stay_together(read: Callable[..., Any]) -> None:
    name = "model.layers.0.mlp.experts.down_proj"
    raw = {name: torch.ones(3, 64, 96).to(torch.float8_e4m3fn), f"{name}_scale_inv": torch.ones(3, 2, 3)}
    packed = read(packed_fp8, raw, {"weight_block_size": [32, 32]}).tensors[name]
    assert packed.shape == (3, 64, 96) and packed.expert(2).shape == (64, 96)
    assert packed.expert(2).parts[1][1].shape == (2, 3)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (96,), (96, 1), (3, 6)])
def test_fp8_takes_one_scale_one_a_row_and_one_a_block(shape: tuple[int, ...], read: Callable[..., Any]) -> None:
    raw = {f"{UP}.weight": torch.ones(96, 192).to(torch.float8_e4m3fn), f"{UP}.weight_scale": torch.ones(shape)}
    packed = read(packed_fp8, raw, {}).tensors[f"{UP}.weight"]
    across = 32 if shape == (3, 6) else 192
    down = {(3, 6): 32, (96,): 1, (96, 1): 1}.get(shape, 96)
    assert packed.packing.group == across and packed.packing.option("row_block") == down


def test_layers_may_differ_where_groups_name_them(read: Callable[..., Any]) -> None:
    int8 = INT4 | {"num_bits": 8}
    settings = compressed("pack-quantized", INT4)
    settings["config_groups"]["group_1"] = {"targets": ["re:.*up_proj$"], "weights": int8}
    packed = read(packed_compressed, drawn(packed_int, bits=8), settings).tensors[f"{UP}.weight"]
    assert packed.packing.bits == 8 and packed.shape == (ROWS, COLUMNS)


REFUSED_VARIANTS: dict[str, tuple[Read, dict[str, Any], tuple[str, ...]]] = {
    "awq gemv": (packed_awq, AWQ | {"version": "GEMV"}, ("AWQ", "layout 'gemv'", "the layout 'gemm'")),
    "awq of 8 bits": (packed_awq, AWQ | {"bits": 8}, ("AWQ", "8 bits", "reads 4 bits")),
    "awq of llm-awq": (packed_awq, AWQ | {"backend": "llm-awq"}, ("AWQ", "layout", "'gemm'")),
    "gptq marlin": (packed_gptq, GPTQ | {"is_marlin_format": True}, ("GPTQ", "layout 'marlin'", "gptq_v2")),
    "gptq of 5 bits": (packed_gptq, GPTQ | {"bits": 5}, ("GPTQ", "5 bits", "2, 3, 4 and 8 bits")),
    "nvfp4": (packed_compressed, compressed("nvfp4-pack-quantized", {}), ("compressed-tensors", "nvfp4", "dense")),
    "sparse": (
        packed_compressed, compressed("dense", {}) | {"sparsity_config": {"format": "sparse-24-bitmask"}},
        ("sparsity 'sparse-24-bitmask'", "dense weights"),
    ),
    "six bits in words": (
        packed_compressed, compressed("pack-quantized", INT4 | {"num_bits": 6}),
        ("6 bits of type 'int'", "4 and 8 bits"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_VARIANTS)
def test_a_variant_that_is_not_read_is_named_with_what_works(case: str, read: Callable[..., Any]) -> None:
    method, settings, words = REFUSED_VARIANTS[case]
    raw = drawn(packed_int) if method is packed_compressed else drawn(awq)
    with pytest.raises(UnsupportedModel) as caught:
        read(method, raw, settings)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert "windlass quantize MODEL --to int4" in text and "float16 or bfloat16 checkpoint" in text


UNREAD = {
    "bitsandbytes": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "--quantization int4"),
    "bitsandbytes without its name": ({"load_in_8bit": True}, "quantised with bitsandbytes"),
    "aqlm": ({"quant_method": "aqlm"}, "quantised with aqlm"),
    "hqq": ({"quant_method": "hqq"}, "quantised with hqq"),
    "torchao": ({"quant_method": "torchao"}, "quantised with torchao"),
    "no method at all": ({"bits": 4}, "quantised with an unnamed method"),
    "in the text part": ({"quant_method": "quanto"}, "quantised with quanto"),
}


@pytest.mark.parametrize("case", UNREAD)
def test_a_method_that_is_not_read_is_refused_before_anything_is(case: str) -> None:
    settings, words = UNREAD[case]
    config = {"quantization_config": settings}
    config = {"text_config": config} if case == "in the text part" else config
    with pytest.raises(UnsupportedModel) as caught:
        packed_checkpoint("org/model", config, lambda: pytest.fail("it was read"))
    text = str(caught.value)
    assert text.startswith("org/model holds weights quantised with") and words in text
    assert "AWQ (gemm), GPTQ, compressed-tensors, FP8 or MXFP4" in text and "windlass quantize" in text


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        ({"torch_dtype": "float16"}, "F16"),
        ({"dtype": "bfloat16", "torch_dtype": "float16"}, "BF16"),
        ({"text_config": {"dtype": "float32"}}, "F32"),
        ({}, "BF16"),
    ],
)
def test_it_computes_in_what_the_config_says(config: dict[str, Any], dtype: str, tmp_path: Path) -> None:
    save_file(drawn(awq), tmp_path / "model.safetensors")
    config = config | {"quantization_config": AWQ | {"quant_method": "awq"}}
    assert packed_checkpoint(tmp_path, config, lambda: read_checkpoint(tmp_path)).weights_dtype == dtype


def without(raw: Raw, ending: str) -> Raw:
    return {name: tensor for name, tensor in raw.items() if name != f"{UP}{ending}"}


def changed(raw: Raw, ending: str, tensor: torch.Tensor) -> Raw:
    assert f"{UP}{ending}" in raw
    return raw | {f"{UP}{ending}": tensor}


DAMAGED: dict[str, tuple[Read, Raw, dict[str, Any], tuple[str, ...]]] = {
    "awq without scales": (
        packed_awq, without(drawn(awq), ".scales"), AWQ, ("has .qweight, .qzeros and lacks .scales",),
    ),
    "awq without codes": (packed_awq, without(drawn(awq), ".qweight"), AWQ, ("lacks .qweight", "download")),
    "awq of another group": (packed_awq, drawn(awq), AWQ | {"group_size": 64}, ("qzeros", "[6, 12]", "[3, 12]")),
    "awq of a group that does not divide": (
        packed_awq, drawn(awq), AWQ | {"group_size": 80}, ("qweight", "a multiple of group_size=80"),
    ),
    "awq of a type": (
        packed_awq, changed(drawn(awq), ".qweight", torch.ones(192, 12)), AWQ, ("is stored as F32", "AWQ has I32"),
    ),
    "awq in nonsense": (packed_awq, drawn(awq), AWQ | {"group_size": "all"}, ("group_size='all'", "a whole number")),
    "gptq of other bits": (packed_gptq, drawn(gptq), GPTQ | {"bits": 8}, ("qzeros", "[6, 12]", "[3, 24]")),
    "gptq of a short order": (
        packed_gptq, changed(drawn(gptq), ".g_idx", torch.ones(64, dtype=torch.int32)), GPTQ,
        ("g_idx", "[64]", "[192]"),
    ),
    "packed without scales": (
        packed_compressed, without(drawn(packed_int), ".weight_scale"), compressed("pack-quantized", INT4),
        ("lacks .weight_scale",),
    ),
    "packed of another group": (
        packed_compressed, drawn(packed_int), compressed("pack-quantized", INT4 | {"group_size": 64}),
        ("weight_scale", "[96, 6]", "[96, 3]"),
    ),
    "zero points of other rows": (
        packed_compressed,
        changed(drawn(packed_int, zeros="packed"), ".weight_zero_point", torch.ones(11, 6, dtype=torch.int32)),
        compressed("pack-quantized", INT4), ("weight_zero_point", "[11, 6]", "[12, 6]"),
    ),
    "fp8 without scales": (packed_fp8, without(drawn(fp8), ".weight_scale_inv"), {}, ("lacks _scale",)),
    "fp8 of other numbers": (
        packed_fp8, changed(drawn(fp8), ".weight", torch.ones(96, 96, dtype=torch.int8)), {},
        ("is stored as I8", "F8_E4M3"),
    ),
    "fp8 of another grid": (
        packed_fp8, changed(drawn(fp8), ".weight_scale_inv", torch.ones(5, 7)), {"weight_block_size": [32, 32]},
        ("weight_scale_inv", "[5, 7]", "[3, 6]", "one scale a row ([96, 1])"),
    ),
    "fp8 of nonsense": (packed_fp8, drawn(fp8), {"weight_block_size": 128}, ("block size 128", "[rows, columns]")),
    "mxfp4 without scales": (
        packed_mxfp4, {name: tensor for name, tensor in mxfp4().items() if not name.endswith("_scales")}, {},
        ("lacks _scales",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_what_disagrees_is_named_with_its_file(case: str, read: Callable[..., Any], tmp_path: Path) -> None:
    method, raw, settings, words = DAMAGED[case]
    with pytest.raises(CheckpointError) as caught:
        read(method, raw, settings)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert str(tmp_path) in text
