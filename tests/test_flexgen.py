"""FlexGen's flags as an expert form: the same words, made a plan of this engine and explained flag by flag."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from checkpoints import random_model, save
from test_by_hand import on_device
from test_search import WORK, demands, model
from test_tiers import answers, case
from windlass.cli.budget_flags import BudgetFlags
from windlass.cli.flexgen_flags import FlexGenFlags
from windlass.cli.main import app
from windlass.engine.llm import LLM
from windlass.errors import UsageError
from windlass.facts.flexgen_policy import FlexGenPolicy, Percent
from windlass.facts.plan import Plan
from windlass.planner.flexgen import explain, translate
from windlass.planner.schedule import micro_batches
from windlass.planner.search import search

POLICY_30B: Percent = (20, 80, 0, 100, 0, 100)


def explained(policy: FlexGenPolicy, plan: Plan | None = None) -> list[str]:
    made = translate(model(), plan or search(model(), WORK, on_device()), policy)
    return explain(policy, model(), made)


def test_the_defaults_are_flexgens() -> None:
    policy = FlexGenPolicy()
    assert (policy.gpu_batch_size, policy.num_gpu_batches, policy.block_size) == (4, 1, 4)


@given(st.tuples(*[st.integers(-5, 105)] * 6))
def test_every_pair_of_percents_leaves_at_least_nothing_for_the_disk(percent: Any) -> None:
    pairs = list(zip(percent[::2], percent[1::2], strict=True))
    if all(a >= 0 and b >= 0 and a + b <= 100 for a, b in pairs):
        placement = FlexGenPolicy(percent).placement
        assert placement is not None
        assert placement.weights_on_device + placement.weights_on_host <= 1 + 1e-9
    else:
        with pytest.raises(UsageError, match="from 0 to 100 and no more than 100 together"):
            FlexGenPolicy(percent)


@pytest.mark.parametrize("flag", ["gpu_batch_size", "num_gpu_batches"])
def test_batches_of_nothing_are_refused(flag: str) -> None:
    with pytest.raises(UsageError, match="must be 1 or more, got 0"):
        FlexGenPolicy(**{flag: 0})


@pytest.mark.parametrize(
    ("flag", "instead"), [("compress_weight", "--quantization int4"), ("compress_cache", "--kv-cache-dtype int4")]
)
def test_compression_is_refused_with_what_to_give_instead(flag: str, instead: str) -> None:
    with pytest.raises(UsageError, match=f"not made here; give {instead} .*in its place"):
        FlexGenPolicy(**{flag: True})


def test_a_published_policy_becomes_a_plan() -> None:
    plan = translate(model(), search(model(), WORK, on_device()), FlexGenPolicy(POLICY_30B, 2, 2))
    assert plan.host_pages == plan.num_pages and plan.disk_bytes == 0
    assert plan.micro_batch_sequences == 2


def test_a_batch_decodes_together_and_prompts_are_read_as_before() -> None:
    plan = replace(search(model(), WORK, on_device()), block_size=12, micro_batch_tokens=256)
    plan = translate(model(), plan, FlexGenPolicy(gpu_batch_size=4, num_gpu_batches=3))
    assert micro_batches(plan, 12) == ((0, 4), (4, 8), (8, 12))
    assert len(micro_batches(plan, 1000)) == 4


def test_without_percents_the_planner_places() -> None:
    before = search(model(), WORK, on_device())
    policy = FlexGenPolicy(gpu_batch_size=2)
    plan = translate(model(), before, policy)
    assert (plan.resident, plan.host_pages) == (before.resident, before.host_pages)
    assert [line.split(":")[0] for line in explain(policy, model(), plan)] == [
        "--gpu-batch-size 2", "--num-gpu-batches 1",
    ]  # fmt: skip


def test_every_flag_that_was_given_is_explained_in_a_line() -> None:
    lines = explained(FlexGenPolicy(POLICY_30B, 2, 2, cpu_cache_compute=True, sep_layer=False, overlap=True))
    assert [line.split(":")[0] for line in lines] == [
        "--percent 20 80", "--percent 0 100", "--percent 0 100", "--gpu-batch-size 2", "--num-gpu-batches 2",
        "--cpu-cache-compute", "--no-sep-layer", "--overlap",
    ]  # fmt: skip
    text = "\n".join(lines)
    assert "100.0% in host memory" in text and "0.0% on disk" in text
    assert "the host attends to what lies in its memory" in text
    assert "always on" in text and "tensors are placed one by one" in text
    assert "hidden states stay where the model computes" in text


def test_what_it_became_is_said_in_the_bytes_that_really_lie_there() -> None:
    """FlexGen rounds to whole matrices of a layer, and 20 % asked are 8 % had; here a percent is a percent."""
    line = explained(FlexGenPolicy((20, 50, 100, 0, 100, 0)))[0]
    shares = [float(part.split("%")[0].split()[-1]) for part in line.partition(":")[2].split(",")]
    assert shares == pytest.approx([20, 50, 30], abs=8)  # the toy's largest tensor is 8 % of it


def test_on_the_cpu_memory_is_the_hosts_share() -> None:
    plan = search(model(), WORK, demands(2 << 30))
    lines = explained(FlexGenPolicy((0, 50, 0, 100, 0, 100), cpu_cache_compute=True), plan)
    assert "in memory" in lines[0] and "on disk" in lines[0]
    assert any("the CPU computes everything" in line for line in lines)
    with pytest.raises(UsageError, match="this run computes on the CPU"):
        explained(FlexGenPolicy((100, 0, 100, 0, 100, 0)), plan)


def test_no_flag_is_no_policy() -> None:
    assert FlexGenFlags().policy(BudgetFlags()) is None
    assert FlexGenFlags(overlap=True).policy(BudgetFlags()) == FlexGenPolicy(overlap=True)


@pytest.mark.parametrize("twice", [{"block_size": 8}, {"micro_batch_tokens": 64}])
def test_flags_that_say_the_same_twice_are_refused(twice: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="says again what .*--gpu-batch-size.* leave one out"):
        FlexGenFlags(gpu_batch_size=8).policy(BudgetFlags(**twice))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save(random_model("llama"), tmp_path_factory.mktemp("flexgen") / "model"))


def bench(folder: str, *flags: str) -> Any:
    arguments = ["bench", folder, "--prompt-len", "8", "--gen-len", "4", *flags, "--json"]
    return CliRunner().invoke(app, arguments, prog_name="windlass")


SIM = ("--device", "sim:rate=2GB/s,latency=20us", "--gpu-memory", "200MiB")


def test_bench_runs_a_policy_and_prints_what_became_of_it(tiny: str) -> None:
    flags = ("--percent", "30", "40", "50", "50", "100", "0", "--gpu-batch-size", "2", "--num-gpu-batches", "3")
    result = bench(tiny, *SIM, *flags, "--no-sep-layer")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    plan = found["plan"]
    assert (found["num_prompts"], plan["block_size"], plan["host_pages"]) == (6, 6, plan["num_pages"] // 2)
    assert plan["disk_bytes"] and plan["streamed_bytes"] > plan["disk_bytes"]
    assert "--num-gpu-batches 3: a block of 6 sequences\n" in result.stderr
    assert "--no-sep-layer: no effect" in result.stderr


@pytest.mark.parametrize(
    ("flags", "holds"),
    [
        (("--percent", "60", "60", "0", "100", "0", "100"), "gives 60 and 60 % of the weights"),
        (
            ("--percent", "0", "50", "0", "0", "0", "100"),
            "pages of keys and values on disk; name a folder for them with --offload-dir",
        ),
        (("--percent", "100", "0", "100", "0", "100", "0"), "cannot lie on a device: this run computes on the CPU"),
        (("--percent", "a", "0", "0", "100", "0", "100"), "--percent: one of its values is no whole number"),
        (("--compress-weight",), "--compress-weight is FlexGen's own packing"),
        (("--num-gpu-batches", "2", "--block-size", "8"), "--block-size 8 says again"),
    ],
)
def test_what_cannot_be_is_one_line(tiny: str, flags: tuple[str, ...], holds: str) -> None:
    result = bench(tiny, *flags, "--device", "cpu")
    assert result.exit_code == 2 and result.stdout == ""
    (line,) = result.stderr.splitlines()  # no plan was said that would not run
    assert line.startswith("error: ") and holds in line


def test_without_a_flag_of_flexgens_none_is_spoken_of(tiny: str) -> None:
    result = bench(tiny, "--num-prompts", "2")
    assert result.exit_code == 0 and "block    2 sequences" in result.stderr
    assert "--" not in result.stderr


def test_the_tokens_do_not_depend_on_the_policy(tmp_path: Path) -> None:
    """Batches of decode tokens are cut as FlexGen's are, and nothing else changes."""
    folder, prompts, expected, plan = case("llama", tmp_path)
    with LLM(folder, device="sim:rate=2GB/s,latency=20us,delay=400us", gpu_memory="200MiB") as llm:
        llm.adopt(translate(llm.opened.facts, plan, FlexGenPolicy((30, 40, 50, 50, 100, 0), 2, 2)))
        assert answers(llm, prompts) == expected
