"""A model described from its config and headers is the model that the engine opens; what it says of attention and
experts is what transformers' own forward does."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AttentionInterface, AutoModelForCausalLM, PreTrainedModel

from checkpoints import ARCHITECTURES, COMPOSITES, composite_model, random_model, save
from windlass.engine.opened_model import made_files, open_model, read_files
from windlass.errors import CheckpointError, UnsupportedModel, UsageError
from windlass.facts.attention_config import attention_shapes, cache_shapes, experts_per_token
from windlass.facts.attention_shape import AttentionShape
from windlass.facts.cache_shape import CacheShape
from windlass.facts.checkpoint_facts import read_checkpoint
from windlass.facts.model_description import describe
from windlass.facts.model_facts import ModelFacts
from windlass.facts.model_structure import ModelStructure
from windlass.facts.shape import Shape, shape_named, shapes
from windlass.facts.shape_structures import shipped_structure
from windlass.facts.tensor_name import samples
from windlass.jobs import structures
from windlass.jobs.model_description import describe_model
from windlass.jobs.structure_command import ask
from windlass.model.experts import experts_modules
from windlass.planner.model_summary import model_lines
from windlass.planner.work import active_parameters, total_parameters

SOURCE = Path(__file__).resolve().parent.parent / "src"
WINDOWED = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}


def structure_of(folder: Path) -> ModelStructure:
    """Asked in this process, and written and read as it is kept."""
    structure = ask({"folder": str(folder), "samples": samples(read_checkpoint(folder).tensors)})
    return ModelStructure.from_json(json.loads(json.dumps(structure.as_json(), default=str)))


def described(folder: Path, dtype: str = "auto") -> ModelFacts:
    return describe(str(folder), structure_of(folder), read_checkpoint(folder), dtype).facts


def opened(folder: Path, dtype: str = "auto") -> ModelFacts:
    return open_model(read_files(folder), str(folder), dtype, None).facts


class TestADescription:
    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_is_the_model_that_the_engine_opens(self, architecture: str, tmp_path: Path) -> None:
        """Groups with their sources down to the bytes, cache shapes as rehearsed, everything."""
        save(random_model(architecture), tmp_path)
        theirs, ours = opened(tmp_path), described(tmp_path)
        assert ours == theirs
        assert theirs.weight_bytes > 0 and len(theirs.cache_shapes) > 0

    @pytest.mark.parametrize("model_type", COMPOSITES)
    def test_of_a_composite_is_that_of_its_text_part(self, model_type: str, tmp_path: Path) -> None:
        save(composite_model(model_type), tmp_path)
        assert described(tmp_path) == opened(tmp_path)

    @pytest.mark.parametrize("architecture", ["llama", "deepseek_v3", "gpt_oss", "gemma3_text"])
    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_is_exact_in_every_dtype(self, architecture: str, dtype: str, tmp_path: Path) -> None:
        save(random_model(architecture).to(torch.bfloat16), tmp_path)
        facts = described(tmp_path, dtype)
        assert facts == opened(tmp_path, dtype)
        assert (facts.dtype, facts.itemsize) == (dtype, 2)

    def test_of_shards_and_of_a_head_by_parts(self, tmp_path: Path) -> None:
        save(random_model("llama", vocab_size=4096, tie_word_embeddings=False), tmp_path, shard="200KB")
        facts = described(tmp_path)
        assert facts == opened(tmp_path)
        assert sum(group.kind == "head" for group in facts.groups) > 1

    def test_finds_the_layers_of_ten_and_more_and_their_experts(self, tmp_path: Path) -> None:
        save(random_model("mixtral", num_hidden_layers=11, num_local_experts=12), tmp_path)
        facts = described(tmp_path)
        assert facts == opened(tmp_path)
        (last,) = [group for group in facts.groups if group.name == "layer 10 expert 11"]
        names = [fact.name for source in last.sources for fact in source.tensors]
        assert all(".10." in name and ".11." in name for name in names) and len(names) == 3

    def test_refuses_weights_that_are_not_those_of_the_config(self, tmp_path: Path) -> None:
        save(random_model("llama"), tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        structure = structure_of(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
        with pytest.raises(CheckpointError, match=r"has no place in the model that config.json describes \(2 layers\)"):
            described(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
        with pytest.raises(CheckpointError, match="no tensor for parameter model.layers.3"):
            described(tmp_path)
        with pytest.raises(UsageError, match="--max-model-len 257 is not within 1 and 256"):
            describe("x", structure, read_checkpoint(tmp_path), "auto", 257)


class Seen:
    """What transformers' forward does in each layer: heads, sizes and windows, and experts a token."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.attention: dict[int, AttentionShape] = {}
        self.experts: set[int] = set()
        AttentionInterface.register("seen", self._attend)
        model.set_attn_implementation("seen")
        for name, _ in experts_modules(model.named_modules()):
            model.get_submodule(name).register_forward_pre_hook(self._route)
        model(torch.zeros(1, 3, dtype=torch.int64), use_cache=False)

    def _attend(self, module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> tuple[Any, None]:
        (_, heads, rows, key_dim), value_dim = query.shape, value.shape[-1]
        self.attention[module.layer_idx] = AttentionShape(heads, key_dim, value_dim, kwargs.get("sliding_window"))
        assert key.shape[-1] == key_dim
        return query.new_zeros(1, rows, heads, value_dim), None

    def _route(self, module: Any, arguments: tuple[Any, ...]) -> None:
        self.experts.add(arguments[1].shape[-1])


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [*((name, {}) for name in ARCHITECTURES), ("qwen2", WINDOWED), ("llama", {"head_dim": 24})],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_attention_and_experts_are_as_transformers_has_them(
    architecture: str, changes: Mapping[str, Any], tmp_path: Path
) -> None:
    model = random_model(architecture, **changes)
    seen, structure = Seen(model), structure_of(save(model, tmp_path))
    assert dict(attention_shapes(structure.config, len(structure.layers))) == seen.attention
    assert experts_per_token(structure.config) == max(seen.experts, default=0)


def test_a_cache_by_its_config() -> None:
    """As published: 128 KiB a token for Llama 3 with 8 billion parameters, 70,272 bytes for DeepSeek-V3."""
    heads = {"num_attention_heads": 32, "hidden_size": 4096}
    assert cache_shapes(heads, 1, False) == ((0, CacheShape(32, 128, 32, 128)),)
    assert cache_shapes(heads | {"multi_query": True}, 1, False) == ((0, CacheShape(1, 128, 1, 128)),)
    windows = {
        "layer_types": ["sliding_attention", "full_attention"],
        "swa_num_key_value_heads": 8,
        "sliding_window": 4,
    }
    shared = heads | {"num_key_value_heads": 4} | windows
    assert cache_shapes(shared, 2, False) == ((0, CacheShape(8, 128, 8, 128)), (1, CacheShape(4, 128, 4, 128)))
    assert [shape.window for _, shape in attention_shapes(shared, 2)] == [4, None]
    llama, deepseek = describe_model("llama-3-8b"), describe_model("deepseek-v3")
    assert llama.cache_bytes_per_token == 128 * 1024
    assert deepseek.cache_bytes_per_token == 61 * (512 + 64) * 2 == 70_272


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[dict[str, Any]]]:
    """The questions put to transformers, answered in this process; nothing is known at first."""
    questions: list[dict[str, Any]] = []

    def answer(command: list[str], given: str) -> str:
        assert command == [sys.executable, "-c", structures.PROGRAM]
        questions.append(json.loads(given))
        return json.dumps({"structure": ask(questions[-1]).as_json()}, default=str)

    monkeypatch.setattr(structures, "output_of", answer)
    monkeypatch.setenv("WINDLASS_CACHE", str(tmp_path / "cache"))
    yield questions


class TestWhatOnlyTransformersKnows:
    def test_is_asked_once(self, asked: list[dict[str, Any]], tmp_path: Path) -> None:
        folder = save(random_model("mixtral"), tmp_path / "model")
        first, second = describe_model(folder), describe_model(folder, dtype="bfloat16")
        assert len(asked) == 1
        assert first == opened(folder) and second == opened(folder, "bfloat16")

    def test_is_asked_again_for_another_config_or_other_names(
        self, asked: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = save(random_model("llama"), tmp_path / "model")
        describe_model(folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"sliding_window": 4}))
        describe_model(folder)
        assert len(asked) == 2
        monkeypatch.setattr(structures, "version", lambda name: "99.0")
        describe_model(folder)
        assert len(asked) == 3

    def test_is_asked_again_where_what_was_kept_is_broken(self, asked: list[dict[str, Any]], tmp_path: Path) -> None:
        folder = save(random_model("llama"), tmp_path / "model")
        facts = describe_model(folder)
        (kept,) = (tmp_path / "cache" / "configs").iterdir()
        for content in ("", "[]", "{}", '{"config": 1}'):
            kept.write_text(content)
            assert describe_model(folder) == facts
        assert len(asked) == 5 and [kept] == list(kept.parent.iterdir())

    def test_known_it_needs_neither_torch_nor_transformers(self, asked: list[dict[str, Any]], tmp_path: Path) -> None:
        folder = save(random_model("qwen3_moe"), tmp_path / "model")
        facts = describe_model(folder)
        program = (
            "import sys\nfrom windlass.jobs.model_description import describe_model\n"
            f"print(describe_model({str(folder)!r}).weight_bytes, describe_model('opt-175b').num_layers)\n"
            "print(sorted({'torch', 'transformers', 'tokenizers', 'safetensors'} & set(sys.modules)))"
        )
        environ = {"PYTHONPATH": str(SOURCE), "WINDLASS_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
        if shipped_structure("opt-175b", transformers.__version__) is None:
            program = program.replace(", describe_model('opt-175b').num_layers", ", 96")
        ran = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False)
        assert (ran.stdout, ran.stderr) == (f"{facts.weight_bytes} 96\n[]\n", "")

    @pytest.mark.slow
    def test_comes_from_a_process_of_its_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WINDLASS_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("PYTHONPATH", str(SOURCE))
        folder = save(random_model("deepseek_v3"), tmp_path / "model")
        assert describe_model(folder) == opened(folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "llamma"}))
        with pytest.raises(UnsupportedModel, match="type 'llamma', which transformers .* does not know"):
            describe_model(folder)

    def test_its_refusals_are_ours(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        folder = save(random_model("llama"), tmp_path / "model")
        answer = json.dumps({"error": ["UnsupportedModel", "mamba is not a decoder"]})
        monkeypatch.setattr(structures, "output_of", lambda command, given: answer)
        monkeypatch.setenv("WINDLASS_CACHE", str(tmp_path / "cache"))
        with pytest.raises(UnsupportedModel, match="^mamba is not a decoder$"):
            describe_model(folder)

    def test_is_not_asked_about_what_cannot_be_read(self, asked: list[dict[str, Any]], tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="has no config.json"):
            describe_model(tmp_path)
        (tmp_path / "config.json").write_text('{"model_type": "llama", "quantization_config": {"quant_method": "hqq"}}')
        with pytest.raises(UnsupportedModel, match="holds weights quantised with hqq"):
            describe_model(tmp_path)
        assert asked == []


class TestAShape:
    @pytest.mark.parametrize("name", shapes())
    def test_has_the_structure_that_transformers_builds(self, name: str) -> None:
        shipped = shipped_structure(name, transformers.__version__)
        if shipped is None:
            pytest.skip(f"structures are shipped for another transformers than {transformers.__version__}")
        shape = shape_named(name)
        asked = ask({"model_type": shape.model_type, "values": dict(shape.config), "samples": None})
        assert shipped.as_json() == json.loads(json.dumps(asked.as_json(), default=str))

    @pytest.mark.parametrize("name", shapes())
    def test_has_the_published_parameters(self, name: str, asked: list[dict[str, Any]]) -> None:
        assert total_parameters(describe_model(name)) == pytest.approx(shape_named(name).parameters, rel=0.01)

    @pytest.mark.parametrize(
        ("name", "active"), [("mixtral-8x7b", 12.9e9), ("qwen3-30b-a3b", 3.3e9), ("deepseek-v3", 37e9)]
    )
    def test_has_the_published_active_parameters(self, name: str, active: float, asked: list[dict[str, Any]]) -> None:
        assert active_parameters(describe_model(name)) == pytest.approx(active, rel=0.02)

    def test_is_the_model_that_the_engine_makes_up(self, asked: list[dict[str, Any]]) -> None:
        for shape in (
            shape_named("opt-125m"),
            Shape("tiny-moe", "mixtral", "bfloat16", 0, "nobody", ARCHITECTURES["mixtral"]),
            Shape("tiny-oss", "gpt_oss", "float32", 0, "nobody", ARCHITECTURES["gpt_oss"]),
        ):
            made = open_model(made_files(shape, "auto", None), str(shape), "auto", None).facts
            facts = describe_model(shape)
            assert [(g.name, g.kind, g.nbytes, [s.key for s in g.sources]) for g in facts.groups] == [
                (g.name, g.kind, g.nbytes, [s.key for s in g.sources]) for g in made.groups
            ]
            assert facts.cache_shapes == made.cache_shapes and facts.attention_shapes == made.attention_shapes
            assert (facts.dtype, facts.max_model_len) == (made.dtype, made.max_model_len)


def test_lines_for_people(asked: list[dict[str, Any]]) -> None:
    assert model_lines(describe_model("mixtral-8x7b")) == [
        "model    mixtral-8x7b: mixtral, 32 layers, bfloat16",
        "         46.7 B parameters, 12.9 B at work for a token (2 experts a layer)",
        "weights  87.0 GiB: experts 84.0 GiB, layers 2.50 GiB, head 250 MiB, embedding 250 MiB, rest 8.00 KiB",
        "cache    128 KiB of keys and values a token, 4.00 GiB for the 32,768 tokens it can hold",
        "work     25.5 GFLOP a token, 524 kFLOP a token attended to (17.2 GFLOP for the last of 32,768)",
    ]
    assert "head tied to the embedding" in model_lines(describe_model("opt-125m"))[2]


def test_the_structure_is_of_the_model_and_of_nothing_random(tmp_path: Path) -> None:
    """Every parameter of transformers' own model is in it, with its shape."""
    model = AutoModelForCausalLM.from_pretrained(save(random_model("gemma2"), tmp_path))
    wanted = structure_of(tmp_path).every_parameter()
    assert {name: shape.shape for name, shape in wanted.items()} == {
        name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name != "lm_head.weight"
    }
