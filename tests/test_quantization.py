"""`quantization=`: a packed copy is made once, said to be made, and used from then on."""

import json
import logging
import os
from pathlib import Path

import pytest

from checkpoints import byte_llama
from windlass.cli.main import app
from windlass.engine.llm import LLM
from windlass.engine.packing import copies
from windlass.engine.packing.pack import quantize
from windlass.errors import UsageError
from windlass.facts.model_facts import ModelFacts
from windlass.facts.plan_file import identity
from windlass.facts.progress import Progress
from windlass.jobs.packed_description import describe_packed


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


def test_the_copy_is_made_once_and_answers_as_the_quantised_model_does(
    model: str, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quantize(Path(model), tmp_path / "out", "int4", ignore)
    with LLM(tmp_path / "out") as llm:
        expected = llm.generate("Once upon")[0].outputs[0].token_ids
    with caplog.at_level(logging.WARNING, "windlass"), LLM(model, quantization="int4") as llm:
        assert llm.generate("Once upon")[0].outputs[0].token_ids == expected
        assert packed_sources(llm.opened.facts) == {"int4"} and llm.opened.facts.name == model
    (copy,) = cache.iterdir()
    size = (copy / "model.safetensors").stat().st_size
    (said,) = (message for message in caplog.messages if "compiling kernels" not in message)
    assert f"the copy of {size / 1000:.0f} kB is kept in {copy}; remove that folder" in said
    before = copy.stat().st_mtime_ns
    caplog.clear()
    LLM(model, quantization="int4").close()
    assert caplog.messages == [] and copy.stat().st_mtime_ns == before and list(cache.iterdir()) == [copy]


def test_a_model_that_changed_gets_another_copy(model: str, cache: Path) -> None:
    first = copies.packed_copy(Path(model), "int8", None)
    weights = next(Path(model).glob("*.safetensors"))
    stat = weights.stat()
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    second = copies.packed_copy(Path(model), "int8", None)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert first != second and copies.packed_copy(Path(model), "int8", None) == first
    assert copies.packed_copy(Path(model), "int4", None) not in (first, second)


def test_a_model_packed_so_already_is_run_as_it_is(model: str, cache: Path, tmp_path: Path) -> None:
    quantize(Path(model), tmp_path / "out", "int4", ignore)
    assert copies.packed_copy(tmp_path / "out", "int4", None) == tmp_path / "out"
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
        copies.packed_copy(tmp_path, "int4", None)
    assert said in str(refused.value) and "leave it out to run the model as it is" in str(refused.value)


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
