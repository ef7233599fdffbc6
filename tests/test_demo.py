"""The demonstration compares tokens before the user's eyes, fails when they differ, and leaves nothing behind."""

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors import safe_open
from transformers import AutoModelForCausalLM, LlamaConfig
from typer.testing import CliRunner

from windlass.cli.main import app
from windlass.errors import StorageError, WindlassError
from windlass.facts.demo_result import TokenComparison, VerseResult
from windlass.jobs import demo, demo_checkpoint
from windlass.jobs.child import output_of
from windlass.jobs.demo_checkpoint import big_config, twin_config, write_checkpoint


def tiny_config(**changes: Any) -> LlamaConfig:
    sizes: dict[str, Any] = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 259, "initializer_range": 0.1, "dtype": "float32",
    }  # fmt: skip
    return LlamaConfig(architectures=["LlamaForCausalLM"], **(sizes | changes))


def in_process(arguments: Sequence[str]) -> str:
    """A verb in this process, without its budget: that is for the real thing, which has a process of its own."""
    kept = list(arguments)
    if "--host-memory" in kept:
        at = kept.index("--host-memory")
        del kept[at : at + 2]
    result = CliRunner().invoke(app, [*kept, "--quiet"])
    assert result.exit_code == 0, result.stderr
    return str(result.stdout)


def spoken(ours: int = 7) -> VerseResult:
    """What the first part might have found; it has tests of its own."""
    return VerseResult(
        64, 50, 60, 40, 2.0, 1.0, 0.1, ("ROMEO:\nWhat\n",), ((ours,),), ((7,),), (TokenComparison(3, (7,), (7,)),)
    )


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "verse", spoken)
    monkeypatch.setattr(demo.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(demo, "big_config", lambda: tiny_config(dtype="bfloat16"))
    monkeypatch.setattr(demo, "twin_config", tiny_config)


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("tiny")
def test_the_tokens_shown_are_those_of_transformers(tmp_path: Path) -> None:
    said: list[str] = []
    result = demo.demonstrate(in_process, tmp_path, said.append)
    assert result.equal
    assert result.as_dict()["tokens_compared"] == 24 * 6
    assert sum("24 of 24 equal" in line for line in said) == 6
    assert any("a pass" in line for line in said)
    assert any(line.startswith("   gap ") and "compute was busy for" in line for line in said)
    assert said.index("   | ROMEO:") < said.index("   | What")


@pytest.mark.usefixtures("tiny")
def test_three_tiers_are_shown_with_their_lanes_and_limits(tmp_path: Path) -> None:
    said: list[str] = []
    tiers: Any = demo.demonstrate(in_process, tmp_path, said.append).three_tiers
    plan = tiers["plan"]
    assert plan["disk_bytes"] and plan["memory"]["resident"] and plan["host"]["resident"]
    assert plan["host_pages"] * 2 == plan["num_pages"]
    assert any("over the link, which at its 4.00 GB/s takes" in line for line in said)
    assert any("lanes    busy in" in line and "upload" in line and "host" in line for line in said)


def test_the_gap_to_the_limit_is_made_up_of_what_was_measured() -> None:
    measured = {
        "seconds_per_pass": 2.0, "decode_passes": 10, "plan": {"disk_bytes": 10**9},
        "decode_lanes": {"disk": 14.0, "compute": 12.5, "upload": 0.0},
    }  # fmt: skip
    (line,) = demo._gap(measured, "disk", "disk_bytes", 1e9)
    assert line == (
        "gap      0.40 s as the disk was slower than that rate in these passes, 0.60 s as it stood still for others: "
        "compute was busy for 1.25 s of a pass"
    )
    slower, idle = (float(line.split(" s ")[0].split()[-1]), float(line.split(", ")[1].split()[0]))
    assert slower + idle == pytest.approx(2.0 - 1.0)
    assert "0.25 s as the disk was faster" in demo._gap(measured, "disk", "disk_bytes", 1e9 / 1.65)[0]
    assert demo._gap(measured, "disk", "disk_bytes", 0.0) == []


@pytest.mark.usefixtures("tiny")
def test_one_wrong_token_of_the_verse_fails_the_demonstration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "verse", lambda: spoken(ours=8))
    assert not demo.demonstrate(in_process, tmp_path, lambda line: None).equal


@pytest.mark.usefixtures("tiny")
def test_one_wrong_token_fails_the_demonstration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    right = demo.greedy_tokens

    def wrong(*arguments: Any) -> list[tuple[int, ...]]:
        first, *others = right(*arguments)
        return [(*first[:5], first[5] + 1, *first[6:]), *others]

    monkeypatch.setattr(demo, "greedy_tokens", wrong)
    monkeypatch.setattr("windlass.jobs.child.output_of", lambda command: in_process(command[3:]))
    result = CliRunner().invoke(app, ["demo", "--folder", str(tmp_path)])
    assert result.exit_code == 1
    assert "prompt of   3 tokens: different from token 5 on" in result.stdout
    assert "the tokens DIFFER" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_removes_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(windlass: object, folder: Path, say: object) -> None:
        (folder / "big").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "demonstrate", pressed)
    result = CliRunner().invoke(app, ["demo", "--folder", str(tmp_path)])
    assert (result.exit_code, list(tmp_path.iterdir())) == (130, [])


def test_without_room_it_says_how_much_it_needs_and_where_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_checkpoint.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    with pytest.raises(StorageError, match=r"writes 2.01 GB and .* has 1.00 GB free; .* with --folder"):
        write_checkpoint(tmp_path / "big", big_config())
    assert list(tmp_path.iterdir()) == []


def test_the_big_model_is_about_2_gb_and_the_twin_a_twentieth_of_it() -> None:
    def weight_bytes(config: LlamaConfig) -> int:
        with demo_checkpoint.torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        return sum(p.numel() for p in model.parameters()) * demo_checkpoint.dtype_of(config).itemsize

    assert weight_bytes(big_config()) == pytest.approx(2.0e9, rel=0.01)
    assert weight_bytes(twin_config()) == pytest.approx(1.0e8, rel=0.1)


def test_a_checkpoint_is_cut_into_shards_that_transformers_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_checkpoint, "_SHARD_BYTES", 60_000)
    total = write_checkpoint(tmp_path / "model", tiny_config())
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    shards = sorted((tmp_path / "model").glob("*.safetensors"))
    assert len(shards) > 1
    assert set(index["weight_map"].values()) == {shard.name for shard in shards}
    for name, shard in index["weight_map"].items():
        with safe_open(tmp_path / "model" / shard, "pt") as opened:
            assert name in opened.keys()  # a file of safetensors is no mapping
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert sum(parameter.nbytes for parameter in model.parameters()) == total


def test_comparisons_say_where_tokens_part() -> None:
    assert TokenComparison(3, (1, 2, 3), (1, 2, 3)).line() == "prompt of   3 tokens: 3 of 3 equal"
    assert TokenComparison(3, (1, 9, 3), (1, 2, 3)).line().endswith("different from token 1 on")
    assert TokenComparison(3, (1, 2), (1, 2, 3)).line().endswith("different from token 2 on")


def test_a_run_in_a_process_of_its_own_gives_what_it_wrote() -> None:
    assert output_of([sys.executable, "-c", "print('made')"]) == "made\n"
    assert output_of([sys.executable, "-c", "print(input() * 2)"], "told\n") == "toldtold\n"


def test_a_run_that_fails_is_named_with_its_exit_code() -> None:
    with pytest.raises(WindlassError, match="failed with exit code 3; its message stands above"):
        output_of([sys.executable, "-c", "raise SystemExit(3)"])
