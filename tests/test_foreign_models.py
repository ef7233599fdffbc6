"""Models quantised by others compute what transformers computes with their numbers unpacked, wherever they lie."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from checkpoints import random_model, random_prompts, save
from foreign_folders import write_beside, write_quantised
from foreign_formats import awq, compressed, fp8, gptq, packed_int, plain_int
from test_exactness import streamed
from windlass.engine.llm import LLM
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload

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
    "gptq": ("qwen2", GPTQ, gptq),
    "gptq of 3 bits": ("llama", GPTQ | {"bits": 3}, partial(gptq, bits=3)),
    "gptq_v2 of 8 bits": ("llama", GPTQ | {"bits": 8, "checkpoint_format": "gptq_v2"}, partial(gptq, bits=8, less=0)),
    "gptq of experts": ("qwen3_moe", GPTQ | {"desc_act": False}, partial(gptq, order="absent")),
    "pack-quantized": ("llama", compressed("pack-quantized", INT4), packed_int),
    "pack-quantized, asymmetric": ("qwen3", compressed("pack-quantized", INT4), partial(packed_int, zeros="packed")),
    "int-quantized": ("llama", compressed("int-quantized", {"num_bits": 8, "type": "int"}), plain_int),
    "float-quantized": (
        "llama", compressed("float-quantized", {"num_bits": 8, "type": "float"}),
        partial(fp8, block=(1, 1 << 20), ending="_scale"),
    ),
    "fp8": ("qwen3", FP8, fp8),
    "fp8 with latent attention and experts": ("deepseek_v3", FP8, fp8),
}  # fmt: skip


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    return random_prompts(*LENGTHS)


def assert_as_transformers(llm: LLM, dense: Path, prompts: list[list[int]]) -> None:
    """Every log probability of every token written is within 1e-3 of transformers' own, in float32."""
    model = AutoModelForCausalLM.from_pretrained(dense, dtype=torch.float32, attn_implementation="eager").eval()
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


@pytest.mark.parametrize("case", CASES)
def test_resident_and_streamed(case: str, prompts: list[list[int]], tmp_path: Path) -> None:
    architecture, settings, pack = CASES[case]
    dense = save(random_model(architecture), tmp_path / "dense")
    quantised = write_quantised(dense, settings, pack)
    with LLM(quantised, dtype="float32") as llm:
        assert_packed(llm, next(name for word, name in NAMES.items() if case.startswith(word)))
        assert_as_transformers(llm, dense, prompts)
        plan = streamed(llm, Workload(len(prompts), max(LENGTHS), TOKENS), pass_tokens=19)
    with LLM(quantised, dtype="float32", plan=plan) as llm:
        assert_as_transformers(llm, dense, prompts)
        assert llm.report.bytes_read > 0


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
        assert_as_transformers(llm, dense, prompts)
        plan = streamed(llm, Workload(len(prompts), max(LENGTHS), TOKENS), pass_tokens=19)
    with LLM(quantised, dtype="float32", plan=plan) as llm:
        assert_as_transformers(llm, dense, prompts)
