"""Models quantised by others compute what transformers computes with their numbers unpacked, wherever they lie."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from checkpoints import composite_model, random_model, random_prompts, save
from foreign_folders import write_beside, write_quantised
from foreign_formats import awq, compressed, fp8, gptq, packed_int, plain_int
from placements import any_plan, in_small_pages, placement
from test_exactness import streamed
from windlass.engine.llm import LLM
from windlass.engine.opened_model import open_model, read_files
from windlass.errors import UnsupportedModel
from windlass.facts.packing import Packing
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.jobs import structures
from windlass.jobs.model_description import describe_model
from windlass.jobs.structure_command import ask
from windlass.kernels.packed_matrix import PackedMatrix
from windlass.model import packed_weight
from windlass.model.packed_weight import PackedWeight

LENGTHS, TOKENS = (5, 17, 40), 6
EVERY_LOGPROB = SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True, logprobs=128)
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True, "sym": False}
INT4 = {"num_bits": 4, "type": "int", "group_size": 32, "strategy": "group"}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [32, 32]}

CASES: dict[str, tuple[str, dict[str, Any], Callable[..., Any]]] = {
    "awq": ("llama", AWQ, awq),
    "awq of a merged phi3": ("phi3", AWQ, awq),
    "awq of experts": ("mixtral", AWQ, awq),
    "gptq": ("llama", GPTQ, gptq),
    "gptq of 3 bits": ("llama", GPTQ | {"bits": 3}, partial(gptq, bits=3, empty_bias=True)),
    "gptq_v2 of 8 bits": ("llama", GPTQ | {"bits": 8, "checkpoint_format": "gptq_v2"}, partial(gptq, bits=8, less=0)),
    "gptq of experts": ("qwen3_moe", GPTQ | {"desc_act": False}, partial(gptq, order="absent")),
    "pack-quantized": ("llama", compressed("pack-quantized", INT4), packed_int),
    "pack-quantized, asymmetric": ("llama", compressed("pack-quantized", INT4), partial(packed_int, zeros="packed")),
    "int-quantized": ("llama", compressed("int-quantized", {"num_bits": 8, "type": "int"}), plain_int),
    "float-quantized": (
        "llama", compressed("float-quantized", {"num_bits": 8, "type": "float"}),
        partial(fp8, block=(1, 1 << 20), ending="_scale"),
    ),
    "fp8": ("llama", FP8, fp8),
    "fp8 with latent attention and experts": ("deepseek_v3", FP8, fp8),
}  # fmt: skip


# Several of one architecture share its trial; the other architectures pay for one of their own.
SLOW = ("awq of a merged phi3", "gptq of experts", "fp8 with latent attention and experts")


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    return random_prompts(*LENGTHS)


def plain_model(dense: Path, kind: Any = AutoModelForCausalLM) -> PreTrainedModel:
    return kind.from_pretrained(dense, dtype=torch.float32, attn_implementation="eager").eval()


def assert_as_transformers(llm: LLM, model: PreTrainedModel, prompts: list[list[int]]) -> None:
    """Every log probability of every token written is within 1e-3 of transformers' own, in float32."""
    outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], EVERY_LOGPROB)
    for prompt, output in zip(prompts, outputs, strict=True):
        answer = output.outputs[0]
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *answer.token_ids[:-1]]])).logits[0, -TOKENS:]
        assert answer.logprobs is not None
        found = torch.tensor([[table[token].logprob for token in range(128)] for table in answer.logprobs])
        torch.testing.assert_close(found, logits.log_softmax(-1), rtol=0, atol=1e-3)


def assert_packed(llm: LLM, packing: str) -> None:
    """Every matrix of the layers, routers aside, is lent packed: no unpacked copy of it exists."""
    layers = [group for group in llm.opened.facts.groups if group.kind in ("layer", "expert")]
    matrices = [
        source for group in layers for source in group.sources
        if len(source.shapes[0]) > 1 and not any(word in source.key for word in ("gate.weight", "router", "bias"))
    ]  # fmt: skip
    assert matrices and all(source.direct and source.packed for source in matrices)
    assert {packed.packing.name for source in matrices for packed in source.packed} == {packing}


NAMES = {"awq": "awq", "gptq": "gptq", "fp8": "fp8", "pack": "packed-int", "int": "plain-int", "float": "fp8"}


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.slow) if c in SLOW else c for c in CASES])
def test_resident_and_streamed(case: str, prompts: list[list[int]], tmp_path: Path) -> None:
    architecture, settings, pack = CASES[case]
    dense = save(random_model(architecture), tmp_path / "dense")
    quantised = write_quantised(dense, settings, pack)
    with LLM(quantised, dtype="float32") as llm:
        assert_packed(llm, next(name for word, name in NAMES.items() if case.startswith(word)))
        assert_as_transformers(llm, plain_model(dense), prompts)
        plan = streamed(llm, Workload(len(prompts), max(LENGTHS), TOKENS), pass_tokens=19)
    with LLM(quantised, dtype="float32", plan=plan) as llm:
        assert_as_transformers(llm, plain_model(dense), prompts)
        assert llm.report.bytes_read > 0


def test_a_packed_head(prompts: list[list[int]], tmp_path: Path) -> None:
    dense = save(random_model("llama"), tmp_path / "dense")
    quantised = write_quantised(dense, GPTQ, gptq, kept=("embed", "norm"))
    with LLM(quantised, dtype="float32") as llm:
        (head,) = (source for group in llm.opened.facts.groups if group.kind == "head" for source in group.sources)
        assert head.packed and head.direct
        assert_as_transformers(llm, plain_model(dense), prompts)
        plan = streamed(llm, Workload(len(prompts), max(LENGTHS), TOKENS), pass_tokens=19)
    with LLM(quantised, dtype="float32", plan=plan) as llm:
        assert_as_transformers(llm, plain_model(dense), prompts)


def test_an_embedding_whose_rows_are_scattered_is_refused(tmp_path: Path) -> None:
    quantised = write_quantised(save(random_model("llama"), tmp_path / "dense"), FP8, fp8, kept=("norm",))
    with pytest.raises(UnsupportedModel, match=r"embed_tokens.weight is packed as fp8 .* choose a checkpoint"):
        LLM(quantised)


@pytest.mark.parametrize("case", ["awq", "gptq", "pack-quantized, asymmetric", "int-quantized", "fp8"])
def test_divided_over_a_device_host_and_disk(case: str, prompts: list[list[int]], tmp_path: Path) -> None:
    architecture, settings, pack = CASES[case]
    dense = save(random_model(architecture), tmp_path / "dense")
    quantised = write_quantised(dense, settings, pack)
    with LLM(quantised, dtype="float32", device="sim", gpu_memory="256MiB") as llm:
        plan = in_small_pages(llm, any_plan(llm, prompts, TOKENS), placement(0.3, 0.4, 0.5), pass_tokens=19)
    with LLM(quantised, dtype="float32", device="sim", gpu_memory="256MiB", plan=plan) as llm:
        assert_as_transformers(llm, plain_model(dense), prompts)


def test_the_text_part_of_a_composite_checkpoint_whose_text_config_says_so(
    prompts: list[list[int]], tmp_path: Path
) -> None:
    dense = save(composite_model("gemma3"), tmp_path / "dense")
    quantised = write_quantised(dense, AWQ, awq, only="language_model", part="text_config")
    with LLM(quantised, dtype="float32") as llm:
        assert_packed(llm, "awq")
        assert_as_transformers(llm, plain_model(dense, AutoModelForImageTextToText), random_prompts(*LENGTHS, most=96))


def test_is_described_without_loading_as_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(command: list[str], given: str) -> str:
        return json.dumps({"structure": ask(json.loads(given)).as_json()}, default=str)

    monkeypatch.setattr(structures, "output_of", answer)
    quantised = write_quantised(save(random_model("llama"), tmp_path / "dense"), AWQ, awq)
    files = read_files(quantised)
    assert describe_model(quantised) == open_model(files, str(quantised), "auto", None).facts


def test_a_packed_weight_is_multiplied_from_the_right_without_unpacking_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = torch.Generator().manual_seed(2)
    packed = awq(64, 96, draw)
    parts = {"codes": packed.raw[".qweight"], "zeros": packed.raw[".qzeros"], "scales": packed.raw[".scales"]}
    weight = PackedWeight([PackedMatrix(Packing("awq", 4, 32), (64, 96), parts)], torch.float32, transposed=True)
    x, bias = torch.randn(5, 96, generator=draw), torch.randn(64, generator=draw)
    assert weight.shape == (96, 64)
    assert repr(weight) == "PackedWeight((96, 64), torch.float32, awq)"
    torch.testing.assert_close(weight + 0, packed.dense.T)
    monkeypatch.setattr(packed_weight, "dense", lambda matrix, dtype: pytest.fail("all of it was unpacked"))
    for product in (x @ weight, torch.matmul(x, weight), x.matmul(weight)):
        torch.testing.assert_close(product, x @ packed.dense.T)
    torch.testing.assert_close(torch.addmm(bias, x, weight), x @ packed.dense.T + bias)


def test_mxfp4_experts_that_are_multiplied_from_the_right(prompts: list[list[int]], tmp_path: Path) -> None:
    """gpt-oss with experts as large across as down, where the wrong orientation would have the right shape."""
    model = random_model("gpt_oss", intermediate_size=64)
    dense, draw = save(model, tmp_path / "dense"), torch.Generator().manual_seed(11)
    tensors = load_file(dense / "model.safetensors")
    raw = dict(tensors)
    for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, columns, rows = tensors[name].shape
        blocks = torch.randint(0, 256, (experts, rows, columns // 32, 16), generator=draw, dtype=torch.uint8)
        scales = torch.randint(120, 124, (experts, rows, columns // 32), generator=draw).to(torch.uint8)
        raw |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        tensors[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
        del raw[name]
    quantised = write_beside(dense, tensors, raw, {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})
    with LLM(quantised, dtype="float32") as llm:
        experts = [s for group in llm.opened.facts.groups if group.kind == "expert" for s in group.sources]
        assert experts and all(source.direct and source.packed for source in experts)
        assert_as_transformers(llm, plain_model(dense), prompts)
        plan = streamed(llm, Workload(len(prompts), max(LENGTHS), TOKENS), pass_tokens=19)
    with LLM(quantised, dtype="float32", plan=plan) as llm:
        assert_as_transformers(llm, plain_model(dense), prompts)
