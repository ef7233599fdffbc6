"""Known shapes with random weights: the published figures, the same bytes wherever they lie, and no file too many."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM
from typer.testing import CliRunner

from checkpoints import ARCHITECTURES, greedy_answers, random_prompts
from windlass.cli.main import app
from windlass.engine import made_model
from windlass.engine.llm import LLM
from windlass.errors import StorageError, UnsupportedModel, UsageError
from windlass.facts.made_checkpoint import HEADER_BYTES, made_fact
from windlass.facts.placement import Placement
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.shape import Shape, shape_named, shapes
from windlass.facts.tensor_fact import TensorFact
from windlass.facts.workload import Workload
from windlass.memory.made_weights import MadeWeights
from windlass.model.shape_checkpoint import shape_checkpoint, shape_config
from windlass.planner.by_hand import placed
from windlass.planner.residency import keep_only

TINY = Shape("tiny", "llama", "float32", 0, "nobody", ARCHITECTURES["llama"] | {"initializer_range": 0.1})
EXPERTS = Shape("tiny-moe", "mixtral", "float32", 0, "nobody", ARCHITECTURES["mixtral"] | {"initializer_range": 0.1})
GREEDY = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)
PROMPTS = random_prompts(5, 17, 11)


@pytest.mark.parametrize("name", shapes())
def test_the_parameters_are_as_many_as_were_published(name: str, tmp_path: Path) -> None:
    shape = shape_named(name)
    facts = shape_checkpoint(shape_config(shape), torch.bfloat16, tmp_path)
    count = sum(math.prod(fact.shape) for fact in facts.tensors.values())
    assert count == pytest.approx(shape.parameters, rel=0.01)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["gpt-oss-120b", "deepseek-v3"])
def test_shapes_that_transformers_has_as_defaults_are_those(name: str) -> None:
    shape = shape_named(name)
    theirs, ours = AutoConfig.for_model(shape.model_type).to_dict(), shape_config(shape).to_dict()
    skipped = ("rope_parameters", "max_position_embeddings", "eos_token_id", "transformers_version")
    assert {k: v for k, v in ours.items() if k not in skipped} == {k: v for k, v in theirs.items() if k not in skipped}


def test_a_misspelt_shape_is_met_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="'opt-6.7' is not known; did you mean opt-6.7b\\? There are opt-125m, "):
        shape_named("opt-6.7")
    assert shape_named("OPT-125m").name == "opt-125m"


def weights(folder: Path, *facts: TensorFact) -> MadeWeights:
    return MadeWeights(facts, spread=0.5)


def matrix(folder: Path, name: str = "w.weight", shape: tuple[int, ...] = (70, 50)) -> TensorFact:
    return made_fact(folder, name, "BF16", shape, 2 * math.prod(shape))


@given(offset=st.integers(0, 11_000), nbytes=st.integers(1, 9000))
def test_any_range_of_a_made_file_is_that_of_the_written_one(
    offset: int, nbytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    fact = matrix(tmp_path_factory.mktemp("made"))
    made = weights(Path(fact.file).parent, fact)
    made.write(fact.file)
    written = Path(fact.file).read_bytes()
    part = bytearray(max(0, min(nbytes, fact.end - offset)))
    made.fill(fact.file, offset, memoryview(part))
    assert bytes(part) == written[offset : offset + len(part)]


def test_a_written_file_is_one_of_safetensors(tmp_path: Path) -> None:
    facts = (matrix(tmp_path), matrix(tmp_path, "norm.weight", (64,)), matrix(tmp_path, "w.bias", (64,)))
    made = weights(tmp_path, *facts)
    loaded: dict[str, torch.Tensor] = {}
    for fact in facts:
        made.write(fact.file)
        loaded |= load_file(fact.file)
        assert fact.offset == HEADER_BYTES
    assert loaded["w.weight"].shape == (70, 50) and loaded["w.weight"].dtype == torch.bfloat16
    assert loaded["w.weight"].float().std().item() == pytest.approx(0.5, rel=0.05)
    assert loaded["norm.weight"].eq(1).all() and loaded["w.bias"].eq(0).all()


def test_tensors_differ_and_are_the_same_each_time(tmp_path: Path) -> None:
    first, second = matrix(tmp_path, "a.weight"), matrix(tmp_path, "b.weight")

    def made(fact: TensorFact) -> bytes:
        part = bytearray(fact.nbytes)
        weights(tmp_path, first, second).fill(fact.file, fact.offset, memoryview(part))
        return bytes(part)

    assert made(first) == made(first) != made(second)


def test_a_matrix_longer_than_the_block_of_numbers_repeats_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windlass.memory.made_weights.BLOCK_NUMBERS", 997)
    fact = matrix(tmp_path, shape=(64, 64))
    part = bytearray(fact.nbytes)
    weights(tmp_path, fact).fill(fact.file, fact.offset, memoryview(part))
    rows = torch.frombuffer(part, dtype=torch.bfloat16).view(64, 64)
    assert len(torch.unique(rows, dim=0)) == 64


def transformers_answers(shape: Shape, folder: Path) -> list[list[int]]:
    """transformers' own, with the weights written to files and read by safetensors."""
    config = shape_config(shape)
    facts = shape_checkpoint(config, torch.float32, folder)
    made = MadeWeights(facts.tensors.values(), config.initializer_range)
    state: dict[str, torch.Tensor] = {}
    for fact in facts.tensors.values():
        made.write(fact.file)
        state |= load_file(fact.file)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    model.load_state_dict(state)
    model.generation_config.eos_token_id = None
    return greedy_answers(model, PROMPTS, 8)


def answers(llm: LLM) -> list[list[int]]:
    outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in PROMPTS], GREEDY)
    return [list(output.outputs[0].token_ids) for output in outputs]


@pytest.mark.parametrize("shape", [TINY, EXPERTS], ids=lambda shape: shape.name)
def test_the_tokens_are_transformers_own_wherever_the_weights_lie(shape: Shape, tmp_path: Path) -> None:
    reference, offload = tmp_path / "reference", tmp_path / "offload"
    reference.mkdir()
    offload.mkdir()
    expected = transformers_answers(shape, reference)
    with LLM(shape, device="cpu") as llm:
        assert answers(llm) == expected, "all in memory"
    with LLM(shape, device="cpu", offload_dir=offload) as llm:
        plan = llm.plan_for(Workload(3, 17, 8))
        llm.adopt(keep_only(llm.opened.facts, plan, frozenset()))
        assert answers(llm) == expected, "all on disk"
        assert llm.report.bytes_read > 0
    sim = "sim:rate=2GB/s,latency=20us"
    with LLM(shape, device=sim, gpu_memory="200MiB", offload_dir=offload) as llm:
        plan = placed(llm.opened.facts, llm.plan_for(Workload(3, 17, 8)), Placement(0.3, 0.4, 0.5, 0.5))
        llm.adopt(plan)
        assert answers(llm) == expected, "in three places"
    assert list(offload.iterdir()) == []


def test_only_what_streams_is_written_and_only_while_it_is_needed(tmp_path: Path) -> None:
    with LLM(TINY, device="cpu", offload_dir=tmp_path) as llm:
        plan = llm.plan_for(Workload(3, 17, 8))
        assert list(tmp_path.iterdir()) == []
        llm.prepare(Workload(3, 17, 8))
        assert list(tmp_path.iterdir()) == [] and llm.report.bytes_read == 0, "all of it fits"
        one = next(key for key in sorted(plan.resident) if key.endswith("down_proj.weight"))
        llm.adopt(keep_only(llm.opened.facts, plan, plan.resident - {one}))
        llm.prepare(Workload(3, 17, 8))
        assert [path.name for path in tmp_path.rglob("*.safetensors")] == [f"{one}.safetensors"]
        assert llm.opened.made is not None
        lines = llm.opened.made.lines(llm.opened.groups, llm.plan)
        assert "random weights" in lines[0] and str(tmp_path) in lines[1] and "removed at the end" in lines[1]
    assert list(tmp_path.iterdir()) == []


def test_what_streams_needs_a_folder_that_somebody_names() -> None:
    with LLM(TINY, device="cpu") as llm:
        llm.adopt(keep_only(llm.opened.facts, llm.plan_for(Workload(3, 17, 8)), frozenset()))
        with pytest.raises(UsageError, match="kB of the weights of tiny do not fit .* --offload-dir"):
            answers(llm)


def test_a_disk_that_is_too_small_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made_model.shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000))
    with LLM(TINY, device="cpu", offload_dir=tmp_path) as llm:
        llm.adopt(keep_only(llm.opened.facts, llm.plan_for(Workload(3, 17, 8)), frozenset()))
        with pytest.raises(StorageError, match="tiny streams .* where 100 kB are free; nothing was written: name"):
            answers(llm)
        assert list(tmp_path.iterdir()) == []


def test_a_shape_is_proven_like_any_model(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedModel, match="mamba"):
        LLM(Shape("snake", "mamba", "float32", 0, "nobody", {"hidden_size": 32, "num_hidden_layers": 2}))


def bench(*arguments: str) -> Any:
    flags = ("--num-prompts", "2", "--prompt-len", "4", "--gen-len", "3", "--json")
    return CliRunner().invoke(app, ["bench", *arguments, *flags], prog_name="windlass")


def test_bench_measures_a_shape() -> None:
    result = bench("--shape", "opt-125m", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["model"], found["decode_tokens"], found["bytes_read"]) == ("opt-125m", 4, 0)
    assert "opt-125m, 250 MB of random weights" in result.stderr


@pytest.mark.slow
def test_a_shape_beyond_the_machine_is_refused_with_its_plan_and_no_file(tmp_path: Path) -> None:
    result = bench("--shape", "opt-175b", "--device", "cpu", "--offload-dir", str(tmp_path), "--host-memory", "16GiB")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "from disk a pass" in result.stderr and "budget: " in result.stderr
    assert "error: opt-175b streams " in result.stderr and "nothing was written" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "holds"),
    [
        (("--shape", "opt-9b"), "is not known"),
        (("./model", "--shape", "opt-125m"), "are two models; name one of them"),
        (("--shape", "opt-125m", "--offload-dir", "/nowhere/at/all"), "--offload-dir /nowhere/at/all is not a folder"),
    ],
)
def test_a_shape_asked_for_wrongly_is_one_line(arguments: tuple[str, ...], holds: str) -> None:
    result = bench(*arguments, "--device", "cpu", "--quiet")
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and holds in line
