"""`quantization=`: packed while loading where all of it stays in memory, else by a copy that is made once and said."""

import itertools
import json
import logging
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from checkpoints import byte_llama, random_model, save
from windlass.cli.main import app
from windlass.engine.llm import LLM
from windlass.engine.opened_model import read_files
from windlass.engine.packing import copies, while_loading
from windlass.engine.packing.pack import quantize
from windlass.errors import CheckpointError, UsageError
from windlass.facts.model_facts import ModelFacts
from windlass.facts.packed_tensor import PackedTensor
from windlass.facts.placement import Placement
from windlass.facts.plan_file import identity
from windlass.facts.progress import Progress
from windlass.facts.tensor_fact import TensorFact
from windlass.facts.workload import Workload
from windlass.jobs.packed_description import describe_packed
from windlass.planner.by_hand import placed
from windlass.planner.residency import keep_only


def ignore(event: Progress) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return byte_llama(tmp_path_factory.mktemp("folder") / "tiny")


@pytest.fixture
def cache(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder without copies, in which the packer and the verdicts are found where they were."""
    monkeypatch.setattr(copies, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "packed"


def packed_sources(facts: ModelFacts) -> set[str]:
    return {packed.dtype for group in facts.groups for source in group.sources for packed in source.packed}


def tokens(llm: LLM) -> list[int]:
    return list(llm.generate("Once upon")[0].outputs[0].token_ids)


def quantised_tokens(model: str, out: Path, to: str) -> list[int]:
    """What the model answers that `windlass quantize` wrote."""
    quantize(Path(model), out, to, ignore)
    with LLM(out) as llm:
        return tokens(llm)


@pytest.mark.parametrize("to", ["int4", "int8"])
def test_a_model_that_stays_in_memory_is_packed_while_it_is_loaded(
    model: str, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, to: str
) -> None:
    expected = quantised_tokens(model, tmp_path / "out", to)
    with caplog.at_level(logging.WARNING, "windlass"), LLM(model, quantization=to) as llm:
        assert tokens(llm) == expected
        assert packed_sources(llm.opened.facts) == {to} and llm.opened.facts.name == model
    assert caplog.messages == [
        f"packing {model} as {to} while it is loaded; all of it stays in memory, so that no copy is kept"
    ]
    with LLM(model, quantization=to, device="sim", gpu_memory="200MiB") as llm:
        plan = llm.plan_for(Workload(1, 16, 16))
        llm.adopt(placed(llm.opened.facts, plan, Placement(0.5, 0.5, 1.0, 0.0)))
        assert tokens(llm) == expected, "on a device and in host memory"
    assert list(cache.iterdir()) == []


def test_a_copy_is_made_once_where_weights_stream(
    model: str, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = quantised_tokens(model, tmp_path / "out", "int4")
    with caplog.at_level(logging.WARNING, "windlass"), LLM(model, quantization="int4") as llm:
        llm.adopt(keep_only(llm.opened.facts, llm.plan_for(Workload(1, 16, 16)), frozenset()))
        assert list(cache.iterdir()) == [], "nothing is written before it is needed"
        assert tokens(llm) == expected and llm.report.bytes_read > 0
    (copy,) = cache.iterdir()
    size = (copy / "model.safetensors").stat().st_size
    (said,) = (message for message in caplog.messages if "compiling kernels" not in message)
    assert f"the copy of {size / 1000:.0f} kB is kept in {copy}; remove that folder" in said
    before = copy.stat().st_mtime_ns
    caplog.clear()
    with LLM(model, quantization="int4") as llm:
        assert tokens(llm) == expected
    assert caplog.messages == [] and copy.stat().st_mtime_ns == before and list(cache.iterdir()) == [copy]


@pytest.mark.parametrize(
    ("architecture", "changes", "to"),
    [("llama", {"intermediate_size": 90}, "int4"), ("mixtral", {}, "int8")],
    ids=["padded", "experts"],
)
def test_what_is_packed_while_loading_is_the_copy_byte_for_byte(
    architecture: str, changes: dict[str, int], to: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked in ranges that begin and end anywhere, and with parts so small that matrices have several."""
    source, out = save(random_model(architecture, **changes), tmp_path / "source"), tmp_path / "out"
    monkeypatch.setattr(while_loading, "PART_BYTES", 8192)
    quantize(source, out, to, ignore)
    written = (out / "model.safetensors").read_bytes()
    files = copies.files_run_as(to, read_files(source), None)
    path = str(copies.copy_of(source, to).target / "model.safetensors")
    assert files.made is not None and files.made.holds(path)
    draw = random.Random(0)
    cuts = sorted({0, len(written), *(draw.randrange(len(written)) for _ in range(30))})
    for start, stop in itertools.pairwise(cuts):
        part = bytearray(stop - start)
        files.made.fill(path, start, memoryview(part))
        assert bytes(part) == written[start:stop], (start, stop)
    copied = read_files(out).checkpoint
    assert files.checkpoint.weights_dtype == copied.weights_dtype
    assert {name: at_home(fact) for name, fact in files.checkpoint.tensors.items()} == {
        name: at_home(fact) for name, fact in copied.tensors.items()
    }


def at_home(fact: TensorFact | PackedTensor) -> TensorFact | PackedTensor:
    """The same fact whichever folder its file is in."""
    if isinstance(fact, PackedTensor):
        return replace(fact, parts=tuple((role, replace(part, file=Path(part.file).name)) for role, part in fact.parts))
    return replace(fact, file=Path(fact.file).name)


def test_a_weight_that_is_no_number_is_named_while_it_is_packed(cache: Path, tmp_path: Path) -> None:
    model = random_model("llama")
    model.get_parameter("model.layers.1.mlp.up_proj.weight").data[3, 5] = torch.nan
    with LLM(save(model, tmp_path / "source"), quantization="int4") as llm:
        with pytest.raises(
            CheckpointError, match="tensor model.layers.1.mlp.up_proj.weight: 1 weights are infinite or"
        ):
            llm.generate({"prompt_token_ids": [5, 6, 7]})


def test_a_model_that_changed_gets_another_copy(model: str, cache: Path) -> None:
    def copy(to: str) -> Path:
        return copies.copy_of(Path(model), to).target

    first = copy("int8")
    weights = next(Path(model).glob("*.safetensors"))
    stat = weights.stat()
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    second = copy("int8")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert first != second and copy("int8") == first
    assert copy("int4") not in (first, second)


def test_a_model_packed_so_already_is_run_as_it_is(model: str, cache: Path, tmp_path: Path) -> None:
    quantize(Path(model), tmp_path / "out", "int4", ignore)
    files = read_files(tmp_path / "out")
    assert copies.files_run_as("int4", files, None) is files
    assert not cache.exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"quant_method": "windlass", "bits": 8}, "packed already (windlass, int8)"),
        ({"quant_method": "gptq", "bits": 4}, "packed already (gptq, another format)"),
    ],
)
def test_a_model_packed_in_another_way_is_refused(tmp_path: Path, settings: dict[str, object], said: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": settings}))
    with pytest.raises(UsageError) as refused:
        copies.is_packed_as(tmp_path, "int4")
    assert said in str(refused.value) and "leave the quantization out to run the model as it is" in str(refused.value)


@pytest.mark.parametrize("to", ["int4", "int8"])
def test_a_plan_is_for_the_copy_that_is_yet_to_be_made(model: str, cache: Path, to: str) -> None:
    foreseen = describe_packed(model, to, None)
    assert not cache.exists()
    llm = LLM(model, quantization=to)
    assert identity(foreseen) == identity(llm.opened.facts) and foreseen.weight_bytes < 250_000
    llm.close()


def test_the_verb_plans_for_packed_weights(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = []
    for flags in ([], ["--quantization", "int4"]):
        app(
            ["plan", model, "--machine", "rtx3090", "--prompt-len", "16", "--gen-len", "8", "--json", *flags],
            standalone_mode=False,
        )
        sizes.append(json.loads(capsys.readouterr().out)["plan"]["memory"]["resident"])
    assert sizes[1] < 0.8 * sizes[0]
