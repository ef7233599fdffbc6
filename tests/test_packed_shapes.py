"""Known shapes with made-up weights in our own blocks: what `windlass quantize` would write, but for the numbers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from checkpoints import greedy_answers, random_model, save
from test_shapes import EXPERTS, GREEDY, PROMPTS, TINY, answers, bench
from windlass.engine.llm import LLM
from windlass.engine.opened_model import made_files, open_model
from windlass.engine.packing.pack import quantize
from windlass.facts.model_facts import ModelFacts
from windlass.facts.packed_tensor import PackedTensor
from windlass.facts.packing import Packing
from windlass.facts.placement import Placement
from windlass.facts.plan_file import identity
from windlass.facts.shape import Shape, shape_named
from windlass.facts.workload import Workload
from windlass.jobs.packed_description import describe_packed
from windlass.kernels.drawn_blocks import DRAWN, drawn_blocks
from windlass.kernels.encodings.blocks import COLUMNS, INT4, INT8, ROWS, parts_choice, unpack
from windlass.model.shape_checkpoint import shape_config
from windlass.planner.by_hand import placed
from windlass.planner.residency import disk_piece, keep_only

WORK = Workload(3, 17, GREEDY.max_tokens or 1)


@pytest.mark.parametrize("packing", [INT4, INT8], ids=lambda packing: packing.name)
def test_drawn_blocks_hold_numbers_of_the_spread_asked_for(packing: Packing) -> None:
    blocks = drawn_blocks(packing, 0.05, seed=3)
    shape = (DRAWN * ROWS, COLUMNS)
    numbers = unpack(packing, {"blocks": blocks}, shape, 0, shape[0], torch.float32)
    assert numbers.std().item() == pytest.approx(0.05, rel=0.03)
    assert abs(numbers.mean().item()) < 0.05 / 100 and numbers.abs().max() < 10 * 0.05
    assert len(torch.unique(blocks, dim=0)) == DRAWN
    assert torch.equal(blocks, drawn_blocks(packing, 0.05, seed=3))
    assert packing.bits == 8 or parts_choice(blocks[:, None]).unique().tolist() == [0, 1, 2, 3]


def transformers_answers(shape: Shape, to: str, folder: Path) -> list[list[int]]:
    """transformers' own, with the weights written to files, read by safetensors and unpacked."""
    files = made_files(shape, "auto", folder, to)
    files.folder.mkdir()
    assert files.made is not None
    state: dict[str, torch.Tensor] = {}
    for name, tensor in files.checkpoint.tensors.items():
        files.made.weights.write(tensor.file)
        (state[name],) = load_file(tensor.file).values()
        if isinstance(tensor, PackedTensor):
            blocks = state[name].flatten(0, -4) if state[name].ndim > 3 else state[name][None]
            rows, columns = tensor.shape[-2:]
            matrices = [unpack(tensor.packing, {"blocks": b}, (rows, columns), 0, rows, torch.float32) for b in blocks]
            state[name] = torch.stack(matrices).view(tensor.shape)
    files.made.remove()
    config = shape_config(shape)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    model.load_state_dict(state)
    model.generation_config.eos_token_id = None
    return greedy_answers(model, PROMPTS, WORK.gen_len)


@pytest.mark.parametrize(("shape", "to"), [(TINY, "int4"), (TINY, "int8"), (EXPERTS, "int4")], ids=str)
def test_the_tokens_are_transformers_own_wherever_the_blocks_lie(shape: Shape, to: str, tmp_path: Path) -> None:
    expected = transformers_answers(shape, to, tmp_path)
    with LLM(shape, device="cpu", quantization=to) as llm:
        assert answers(llm) == expected, "all in memory"
    with LLM(shape, device="cpu", quantization=to, offload_dir=tmp_path) as llm:
        llm.adopt(keep_only(llm.opened.facts, llm.plan_for(WORK), frozenset()))
        assert answers(llm) == expected, "all on disk"
        assert llm.report.bytes_read > 0
    sim = "sim:rate=2GB/s,latency=20us"
    with LLM(shape, device=sim, gpu_memory="200MiB", quantization=to, offload_dir=tmp_path) as llm:
        plan = llm.plan_for(WORK)
        for share, where in ((1.0, "on the device"), (0.0, "in host memory")):
            llm.adopt(placed(llm.opened.facts, plan, Placement(share, 1.0 - share, 1.0, 0.0)))
            assert answers(llm) == expected, where
        llm.adopt(placed(llm.opened.facts, plan, Placement(0.3, 0.4, 0.5, 0.5)))
        assert answers(llm) == expected, "in three places"
    assert list(tmp_path.iterdir()) == []


def packed_of(facts: ModelFacts) -> dict[str, tuple[object, ...]]:
    """What is said of each packed tensor, but for where it lies."""
    return {
        packed.name: (packed.shape, packed.packing, [(role, part.dtype, part.shape) for role, part in packed.parts])
        for group in facts.groups
        for source in group.sources
        for packed in source.packed
    }


@pytest.mark.parametrize("to", ["int4", "int8"])
def test_what_is_packed_is_what_quantize_packs(to: str, tmp_path: Path) -> None:
    dense, packed = save(random_model("llama"), tmp_path / "dense"), tmp_path / "packed"
    quantize(dense, packed, to, lambda event: None)
    with LLM(packed, device="cpu") as llm:
        written = llm.opened.facts
    with LLM(TINY, device="cpu", quantization=to) as llm:
        made, plan = llm.opened.facts, llm.plan_for(WORK)
    assert packed_of(made) == packed_of(written) != {}
    assert made.weight_bytes == written.weight_bytes < sum(file.stat().st_size for file in packed.glob("*.safetensors"))
    blocks_of_disk = 4096 * sum(len(group.sources) for group in made.groups)
    assert written.weight_bytes <= plan.memory.resident <= written.weight_bytes + blocks_of_disk
    assert {source.key: source.nbytes for group in made.groups for source in group.sources} == {
        source.key: source.nbytes for group in written.groups for source in group.sources
    }


@pytest.mark.parametrize("to", ["int4", "int8"])
def test_a_plan_made_without_the_model_counts_the_same_bytes(to: str) -> None:
    shape = shape_named("opt-125m")
    planned = describe_packed(shape, to, None)
    run = open_model(made_files(shape, "auto", None, to), shape.name, "auto", None).facts
    assert identity(planned) == identity(run)
    assert packed_of(planned) == packed_of(run) != {}
    nothing: frozenset[str] = frozenset()
    pieces = [[disk_piece(group, nothing, nothing) for group in facts.groups] for facts in (planned, run)]
    assert [piece and piece.nbytes for piece in pieces[0]] == [piece and piece.nbytes for piece in pieces[1]]


def test_bench_measures_a_packed_shape() -> None:
    result = bench("--shape", "opt-125m", "--device", "cpu", "--quantization", "int4", "--kv-cache-dtype", "int4")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["model"], found["decode_tokens"], found["bytes_read"]) == ("opt-125m", 4, 0)
    assert "opt-125m, 128 MB of random weights in int4" in result.stderr
