"""Calibration measures what transformers multiplies each matrix with, and packing by it lowers the products' error."""

import json
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from checkpoints import byte_llama, random_model, random_prompts, save
from windlass.engine.llm import LLM
from windlass.engine.packing.pack import quantize
from windlass.errors import UsageError
from windlass.facts.packed_files import PackPiece
from windlass.facts.progress import Progress
from windlass.jobs import calibration, own_text
from windlass.jobs.calibration import calibration_by, calibration_by_itself, calibration_prompts, measured
from windlass.kernels.encodings.blocks import INT4
from windlass.kernels.quantiser import packed
from windlass.model.tokenizer import Tokenizer

PROMPTS = random_prompts(9, 30, 17)


def ignore(event: Progress) -> None:
    """Nobody watches."""


def transformers_inputs(folder: Path, kinds: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """All rows that went into the linear layers whose names end so, one prompt after another (n, K)."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    seen: dict[str, list[torch.Tensor]] = defaultdict(list)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name.endswith(kinds):
            module.register_forward_pre_hook(lambda _, given, name=name: seen[f"{name}.weight"].append(given[0][0]))
    with torch.inference_mode():
        for prompt in PROMPTS:
            model(torch.tensor([prompt]))
    return {name: torch.cat(rows) for name, rows in seen.items()}


def test_products_are_those_of_what_transformers_multiplies(tmp_path: Path) -> None:
    folder = save(random_model("llama"), tmp_path / "llama")
    with LLM(folder, dtype="float32") as llm:
        found = measured(llm, PROMPTS)
    expected = transformers_inputs(folder, ("q_proj", "o_proj", "up_proj", "down_proj"))
    assert len(expected) == 12
    for name, x in expected.items():
        columns = x.shape[1]
        whole = torch.block_diag(*found[name])[:columns, :columns]
        near = torch.block_diag(*torch.ones(len(found[name]), 64, 64))[:columns, :columns]
        torch.testing.assert_close(whole, x.T @ x / len(x) * near, rtol=1e-4, atol=1e-5)


def test_an_expert_leans_on_its_layer_where_it_saw_few_tokens(tmp_path: Path) -> None:
    folder = save(random_model("mixtral"), tmp_path / "mixtral")
    with LLM(folder, dtype="float32") as llm:
        found = measured(llm, PROMPTS)
    path = "model.layers.0.mlp.experts.down_proj"
    layer, experts = found[path], [found[f"{path}#{number}"] for number in range(4)]
    assert all(each.shape == layer.shape == (96,) for each in experts)
    assert all((each >= layer * 32 / (32 + 2 * 56) * 0.999).all() for each in experts)
    assert not torch.allclose(experts[0], experts[1])


def test_a_packed_expert_is_weighed_by_its_own_and_else_by_its_layers() -> None:
    means = {
        "m.experts.down_proj": torch.zeros(4),
        "m.experts.down_proj#1": torch.ones(4),
        "m.up.weight": torch.ones(1),
    }
    packed_as = {
        "m.0.experts.1.w2.weight": "m.experts.down_proj", "m.0.experts.2.w2.weight": "m.experts.down_proj",
        "experts.down_proj": "m.experts.down_proj", "up": "m.up.weight", "new": "m.new.weight",
    }  # fmt: skip
    find = calibration._by_piece(means, packed_as)

    def asked(tensor: str, expert: int | None = None) -> torch.Tensor | None:
        return find(PackPiece(tensor, "F32", "f", 0, 0, 0, 0, "t", 0, 0, expert))

    assert asked("m.0.experts.1.w2.weight") is means["m.experts.down_proj#1"]
    assert asked("m.0.experts.2.w2.weight") is means["m.experts.down_proj"]
    assert asked("experts.down_proj", 1) is means["m.experts.down_proj#1"]
    assert asked("up") is means["m.up.weight"] and asked("new") is None


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("It was the best of times, it was the worst of times. " * 8)
    return path


def test_a_calibrated_model_is_packed_by_what_was_measured(tmp_path: Path, text: Path) -> None:
    model, said = Path(byte_llama(tmp_path / "model")), []
    quantize(model, tmp_path / "out", "int4", ignore, calibration_by(text, model, ignore, said.append))
    assert said == [f"calibrating with 424 tokens of {text}"]
    settings = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert settings["calibrated"] is True
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json"] * 3 + [".safetensors"]
    with LLM(model) as llm:
        found = measured(llm, calibration_prompts(text, llm.tokenizer, 127))
    before = {name: weight for path in model.glob("*.safetensors") for name, weight in load_file(path).items()}
    after = load_file(tmp_path / "out" / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    assert torch.equal(after[name], packed(before[name], INT4, found[name]).blocks)
    assert not torch.equal(after[name], packed(before[name], INT4).blocks)
    with pytest.raises(UsageError, match="a packed model of a calibration and not without one"):
        quantize(model, tmp_path / "out", "int4", ignore)
    text.write_text("another text to read first")
    with pytest.raises(UsageError, match="a packed model of another calibration;"):
        quantize(model, tmp_path / "out", "int4", ignore, calibration_by(text, model, ignore, said.append))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model writes little, so that a test is quick."""
    for name, value in (("SEQUENCES", 6), ("LENGTH", 20)):
        monkeypatch.setattr(own_text, name, value)


@pytest.mark.usefixtures("short")
def test_a_model_writes_several_texts_of_its_own_the_same_each_time(tmp_path: Path) -> None:
    with LLM(byte_llama(tmp_path / "model")) as llm:
        written, again = own_text.own_text(llm), own_text.own_text(llm)
        begins = llm.tokenizer.bos_token_id
    assert written == again and [len(prompt) for prompt in written] == [20] * 6
    assert {prompt[0] for prompt in written} == {begins} and len({tuple(prompt) for prompt in written}) == 6


@pytest.mark.usefixtures("short")
def test_where_nothing_begins_a_text_any_token_does(tmp_path: Path) -> None:
    with LLM(save(random_model("llama"), tmp_path / "llama")) as llm:
        written = own_text.own_text(llm)
        most = llm.opened.facts.vocab_size
    assert len({prompt[0] for prompt in written}) > 3
    assert all(len(prompt) == 20 and 0 <= min(prompt) <= max(prompt) < most for prompt in written)


@pytest.mark.usefixtures("short")
def test_a_model_without_a_file_is_packed_by_what_it_writes(tmp_path: Path) -> None:
    model, said = Path(byte_llama(tmp_path / "model")), []
    quantize(model, tmp_path / "out", "int4", ignore, calibration_by_itself(model, ignore, said.append))
    assert said == ["calibrating with 120 tokens of what the model writes by itself"]
    with LLM(model) as llm:
        found = measured(llm, own_text.own_text(llm))
    before = {name: weight for path in model.glob("*.safetensors") for name, weight in load_file(path).items()}
    after = load_file(tmp_path / "out" / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    assert torch.equal(after[name], packed(before[name], INT4, found[name]).blocks)
    with pytest.raises(UsageError, match="a packed model of a calibration and not without one"):
        quantize(model, tmp_path / "out", "int4", ignore)


def test_prompts_of_text_and_of_rows(tmp_path: Path, text: Path) -> None:
    tokenizer = Tokenizer.load(byte_llama(tmp_path / "model"))
    pieces = calibration_prompts(text, tokenizer, 100)
    assert [len(piece) for piece in pieces] == [100, 100, 100, 100, 24]
    assert sum(pieces, []) == tokenizer.encode(text.read_text())
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Once upon"}\n{"wrong": 1}\n{"prompt": [5, 6, 7]}\n')
    assert calibration_prompts(rows, tokenizer, 4) == [tokenizer.encode("Once upon")[:4], [5, 6, 7]]


def test_files_without_prompts_are_refused(tmp_path: Path) -> None:
    model = Path(byte_llama(tmp_path / "model"))
    with pytest.raises(UsageError, match="there is no file .*none.txt to calibrate with; name a text"):
        calibration_by(tmp_path / "none.txt", model, ignore, print)
    (tmp_path / "bad.jsonl").write_text('{"wrong": 1}\n')
    with pytest.raises(UsageError, match="holds no prompt to calibrate with; write text, or one JSON object a line"):
        calibration_prompts(tmp_path / "bad.jsonl", Tokenizer.load(model), 100)
    for content, said in (
        (b" \n", r"holds no text \(2 bytes\)"),
        (b"a\0b", "binary"),
        (b"caf\xe9 noir", "no UTF-8 text"),
    ):
        (tmp_path / "bad.txt").write_bytes(content)
        with pytest.raises(UsageError, match=said):
            calibration_by(tmp_path / "bad.txt", model, ignore, print)
