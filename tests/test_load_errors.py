"""Whatever is wrong with a checkpoint, a flag, a prompt or a budget is said in one plain line, before a token is made.

Every message gives the value that is wrong, the limit or what was found, and the next step.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints import random_model, save
from windlass.engine.llm import LLM
from windlass.errors import (
    CheckpointError,
    ModelNotFound,
    RequestError,
    StorageError,
    UnsupportedModel,
    UsageError,
    WindlassError,
)
from windlass.facts.plan import Plan
from windlass.facts.progress import Progress
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.planner.residency import keep_only

SOURCE = Path(__file__).resolve().parent.parent / "src"
GREEDY = SamplingParams(max_tokens=6, temperature=0.0, ignore_eos=True)
PROMPT = {"prompt_token_ids": [5, 6, 7]}
SHARD = "model-00002-of-00009.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same llama in one file and in nine, and one with experts."""
    folder, llama = tmp_path_factory.mktemp("originals"), random_model("llama")
    return {
        "whole": save(llama, folder / "whole"),
        "shards": save(llama, folder / "shards", "60KB"),
        "experts": save(random_model("qwen3_moe"), folder / "experts"),
    }


@pytest.fixture(autouse=True)
def no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proving an architecture takes seconds and has tests of its own."""
    monkeypatch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)


@pytest.fixture
def copy_of(originals: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Makes a copy of an original, to be damaged."""
    return lambda name: Path(shutil.copytree(originals[name], tmp_path / "model"))


def refusal(kind: type[WindlassError], folder: Path, **arguments: Any) -> str:
    """What opening the model is refused with."""
    with pytest.raises(kind) as error:
        LLM(folder, **arguments)
    return str(error.value)


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def edit_tensors(folder: Path, **changes: torch.Tensor | None) -> None:
    """Replaces, adds or (None) removes tensors; `__` in a name stands for a dot."""
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in changes.items():
        tensors.pop(name.replace("__", "."), None)
        if tensor is not None:
            tensors[name.replace("__", ".")] = tensor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


class TestFiles:
    def test_a_truncated_shard(self, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("shards")
        size = (folder / SHARD).stat().st_size
        os.truncate(folder / SHARD, size - 100)
        text = refusal(CheckpointError, folder)
        assert (
            f"{folder / SHARD} is damaged: the file is cut short: expected {size:,} bytes, found {size - 100:,}" in text
        )
        assert "Fetch or save the file again" in text

    def test_is_said_before_the_architecture_is_tried(
        self, copy_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A trial takes seconds; what the files say of themselves takes none."""
        folder = copy_of("shards")
        monkeypatch.setattr(
            "windlass.engine.proven_files.require_proven", lambda config, unproven: pytest.fail("it was tried")
        )
        for arguments in ({"dtype": "int7"}, {"max_model_len": 257}):
            refusal(UsageError, folder, **arguments)
        os.truncate(folder / SHARD, (folder / SHARD).stat().st_size - 100)
        assert "the file is cut short" in refusal(CheckpointError, folder)
        edit_config(folder, quantization_config={"quant_method": "hqq", "bits": 4})
        assert "quantised with hqq" in refusal(UnsupportedModel, folder)

    def test_a_missing_shard(self, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("shards")
        (folder / SHARD).unlink()
        assert f"lacks 1 of 9 shards: {SHARD}; download the missing files" in refusal(CheckpointError, folder)

    def test_an_index_that_names_a_tensor_its_shard_lacks(self, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("shards")
        index = json.loads((folder / INDEX).read_text())
        index["weight_map"]["model.layers.9.mlp.up_proj.weight"] = SHARD
        (folder / INDEX).write_text(json.dumps(index))
        text = refusal(CheckpointError, folder)
        assert f"{folder / SHARD} lacks model.layers.9.mlp.up_proj.weight" in text
        assert "lists 31 tensors, the shards hold 30 of them; fetch the index and the shard again" in text

    def test_pickled_weights_only(self, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("whole")
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        text = refusal(CheckpointError, folder)
        assert (
            "pytorch_model.bin" in text and "only safetensors are read" in text and "convert them once: python" in text
        )

    def test_no_config(self, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("whole")
        (folder / "config.json").unlink()
        assert f"{folder} has no config.json; give the folder of a model" in refusal(CheckpointError, folder)

    def test_no_folder(self, tmp_path: Path) -> None:
        assert f"there is no folder {tmp_path / 'nothing'}; check the path" in refusal(
            ModelNotFound, tmp_path / "nothing"
        )


class TestTensors:
    def test_one_that_lacks(self, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("whole")
        edit_tensors(folder, model__layers__1__mlp__up_proj__weight=None)
        text = refusal(CheckpointError, folder)
        assert "no tensor for parameter model.layers.1.mlp.up_proj.weight among 29 in the checkpoint" in text
        assert "the nearest names are model.layers.0.mlp.up_proj.weight" in text and "incomplete" in text

    def test_a_shape_that_disagrees(self, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("whole")
        edit_config(folder, intermediate_size=80)
        text = refusal(CheckpointError, folder)
        assert f"{folder / 'model.safetensors'}: tensor model.layers.0.mlp." in text
        assert re.search(r"has shape \[96, 64\], config.json asks for \[80, 64\]; .* not of the same model", text)

    def test_experts_whose_shape_disagrees(self, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("experts")
        edit_tensors(folder, model__layers__1__mlp__experts__2__gate_proj__weight=torch.ones(16, 64))
        text = refusal(CheckpointError, folder)
        assert "8 tensors like model.layers.1.mlp.experts.0.gate_proj.weight with shape [32, 64] hold 15,360" in text
        assert "has 16,384 (shape [4, 64, 64]) by config.json" in text

    def test_layers_that_the_config_leaves_out(self, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("whole")
        edit_tensors(folder, model__layers__3__mlp__up_proj__weight=torch.ones(96, 64))
        text = refusal(CheckpointError, folder)
        assert f"{folder / 'model.safetensors'}: tensor model.layers.3.mlp.up_proj.weight with shape [96, 64]" in text
        assert "has no place in the model that config.json describes (3 layers)" in text

    def test_biases_that_the_config_leaves_out(self, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("whole")
        edit_tensors(folder, model__layers__1__self_attn__q_proj__bias=torch.ones(64))
        assert "tensor model.layers.1.self_attn.q_proj.bias with shape [64]" in refusal(CheckpointError, folder)

    def test_what_old_checkpoints_carry_along_is_no_error(self, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("whole")
        edit_tensors(
            folder,
            model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(8),
            model__layers__0__self_attn__masked_bias=torch.ones(1),
            vision_tower__layers__7__q_proj__weight=torch.ones(1),
        )
        LLM(folder).close()

    def test_whole_numbers_in_the_place_of_weights(self, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("whole")
        edit_tensors(folder, model__norm__weight=torch.ones(64, dtype=torch.int32))
        text = refusal(CheckpointError, folder)
        assert "tensor model.norm.weight is stored as I32" in text and "choose the float16 or bfloat16" in text


class TestConfig:
    @pytest.mark.parametrize(
        ("content", "flaw"),
        [
            ("{", "cannot be read: Expecting property name"),
            ("", "cannot be read: Expecting value"),
            ("[]", "gives no model_type, found None"),
            ('{"model_type": 3}', "gives no model_type, found 3"),
        ],
    )
    def test_garbage(self, copy_of: Callable[[str], Path], content: str, flaw: str) -> None:
        folder = copy_of("whole")
        (folder / "config.json").write_text(content)
        text = refusal(CheckpointError, folder)
        assert f"{folder / 'config.json'} {flaw}" in text and "; fetch the " in text

    @pytest.mark.parametrize(
        ("change", "flaw"),
        [
            ({"hidden_size": "big"}, "'hidden_size' expected int, got str (value: 'big')"),
            ({"num_attention_heads": 3}, "hidden size (64) is not a multiple of the number of attention heads (3)"),
            ({"num_attention_heads": 0}, "zero"),
        ],
    )
    def test_values_that_make_no_sense(self, copy_of: Callable[[str], Path], change: dict[str, Any], flaw: str) -> None:
        folder = copy_of("whole")
        edit_config(folder, **change)
        text = refusal(CheckpointError, folder)
        assert f"{folder / 'config.json'} makes no sense" in text and flaw in text and "correct that value" in text

    def test_a_type_nobody_knows_and_its_code_is_not_run(self, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("whole")
        edit_config(folder, model_type="novel", auto_map={"AutoConfig": "novel.Config"})
        (folder / "novel.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
        text = refusal(UnsupportedModel, folder)
        assert "type 'novel', which transformers" in text and "does not know" in text and "update transformers" in text
        assert not (folder / "ran").exists()

    def test_quantised_weights_are_refused_by_the_name_of_their_method(self, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("whole")
        edit_config(folder, quantization_config={"quant_method": "hqq", "bits": 4})
        text = refusal(UnsupportedModel, folder)
        assert "quantised with hqq" in text and "the model's float16 or bfloat16 checkpoint" in text


@pytest.mark.parametrize(
    ("arguments", "kind", "flaw", "step"),
    [
        ({"quantization": "int3"}, UsageError, "quantization='int3' is not known", "leave it out"),
        ({"dtype": "int7"}, UsageError, "dtype 'int7' is not known", "choose one of auto, float32, bfloat16, float16"),
        ({"max_model_len": 257}, UsageError, "--max-model-len 257", "not within 1 and 256"),
        ({"max_model_len": 0}, UsageError, "--max-model-len 0", "not within 1 and 256"),
        ({"block_size": 0}, UsageError, "--block-size must be 1 or more", "got 0"),
        ({"host_memory": "much"}, UsageError, "'much' is not a size", "write it as 8GiB"),
        ({"device": "abacus"}, UsageError, "device 'abacus' is not known", "use auto, cpu"),
    ],
)
def test_an_argument_that_makes_no_sense(
    originals: dict[str, Path], arguments: dict[str, Any], kind: type[WindlassError], flaw: str, step: str
) -> None:
    text = refusal(kind, originals["whole"], **arguments)
    assert flaw in text and step in text


class TestPrompts:
    @pytest.mark.parametrize(
        ("prompt", "kind", "flaw", "step"),
        [
            (
                {"prompt_token_ids": [5] * 300},
                RequestError,
                "has 300 tokens, the model takes 256",
                "shorten the prompt",
            ),
            ({"prompt_token_ids": [5, 128]}, RequestError, "id 128 is not below the vocabulary's size, 128", "encode"),
            ({"prompt_token_ids": [5, -1]}, RequestError, "prompt_token_ids holds -1", "whole numbers from 0"),
            ({"prompt_token_ids": []}, RequestError, "the prompt has 0 tokens", "give at least 1"),
            ([3], UsageError, "got int: 3", 'a prompt must be a string or {"prompt_token_ids"'),
            ([None], UsageError, "got NoneType: None", "a prompt must be a string"),
            ("Once", UsageError, "has no tokenizer, so text cannot be read", "copy tokenizer.json"),
        ],
    )
    def test_that_cannot_be_answered(
        self, originals: dict[str, Path], prompt: Any, kind: type[WindlassError], flaw: str, step: str
    ) -> None:
        events: list[Progress] = []
        with LLM(originals["whole"], on_progress=events.append) as llm:
            with pytest.raises(kind) as error:
                llm.generate(prompt, GREEDY)
            assert flaw in str(error.value) and step in str(error.value)
            assert not events, "it is said before anything is loaded"


# In a process of its own, as a person runs it: one that has run much else may grow between the two.
TAKES_ADVICE = """
import json, re, sys
from windlass.engine import proven_files
from windlass.engine.llm import LLM
from windlass.errors import BudgetError
from windlass.facts.sampling_params import SamplingParams
proven_files.require_proven = lambda config, unproven: None
params = SamplingParams(max_tokens=6, temperature=0.0, ignore_eos=True)
def tokens(budget, events):
    with LLM(sys.argv[1], host_memory=budget, device="cpu", on_progress=events.append) as llm:
        return len(llm.generate({"prompt_token_ids": [5, 6, 7]}, params)[0].outputs[0].token_ids)
events = []
try:
    tokens("1MiB", events)
except BudgetError as error:
    said = str(error)
print(json.dumps([len(events), said, tokens(re.search(r"--host-memory (\\d+MiB)", said)[1], [])]))
"""


class TestBudget:
    def test_too_small_a_budget_is_refused_and_what_the_refusal_advises_works(self, originals: dict[str, Path]) -> None:
        command = [sys.executable, "-c", TAKES_ADVICE, str(originals["whole"])]
        environ = os.environ | {"PYTHONPATH": str(SOURCE)}
        ran = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr[-2000:]
        events, said, tokens = json.loads(ran.stdout)
        needs = r"needs [\d.]+ [MG]iB to run with 1 sequence.*the budget is 1.00 MiB: [\d.]+ [MG]iB are missing .*"
        assert re.search(needs, said), said
        assert not events, "it is said before anything is loaded"
        assert tokens == 6


class TestAFileCutShortBehindOurBack:
    """Its header was read and found whole, so only the reader can notice."""

    @pytest.fixture(params=["whole", "experts"])
    def folder(self, request: pytest.FixtureRequest, copy_of: Callable[[str], Path]) -> Path:
        return copy_of(request.param)

    def streamed_plan(self, folder: Path) -> Plan:
        with LLM(folder, device="cpu") as llm:
            return keep_only(llm.opened.facts, llm.prepare(Workload(1, 3, 6)), frozenset())

    def test_is_an_error_and_not_a_hang_and_the_model_works_again_once_it_is_whole(self, folder: Path) -> None:
        plan, file = self.streamed_plan(folder), folder / "model.safetensors"
        content = file.read_bytes()
        with LLM(folder, plan=plan, device="cpu") as llm:
            (before,) = llm.generate(PROMPT, GREEDY)
            os.truncate(file, len(content) // 8)
            for _ in range(2):
                with pytest.raises(StorageError) as error:
                    llm.generate(PROMPT, GREEDY)
                assert f"{file} ends at byte" in str(error.value) and "are needed: it was cut short" in str(error.value)
                assert "fetch the file again" in str(error.value)
            file.write_bytes(content)
            (after,) = llm.generate(PROMPT, GREEDY)
        assert after.outputs[0].token_ids == before.outputs[0].token_ids

    def test_before_it_is_loaded_too(self, folder: Path) -> None:
        plan, file = self.streamed_plan(folder), folder / "model.safetensors"
        with LLM(folder, plan=plan, device="cpu") as llm:
            os.truncate(file, file.stat().st_size // 8)
            with pytest.raises(StorageError, match="it was cut short after its header was read"):
                llm.generate(PROMPT, GREEDY)
