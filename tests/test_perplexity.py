"""Perplexity with an error bar: the windows of transformers' guide or of llama.cpp, and transformers' own numbers."""

import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from checkpoints import byte_llama
from windlass.cli.main import app
from windlass.engine.llm import LLM
from windlass.errors import UsageError
from windlass.facts.cluster_mean import cluster_mean
from windlass.facts.perplexity import Perplexity, PerplexityComparison, WindowScore
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.text_window import LLAMA_CPP, TextWindow, Windowing
from windlass.jobs.perplexity import prepare
from windlass.jobs.text_file import read_text
from windlass.packaged_model import packaged_model_folder

TOLERANCE = 1e-4
LETTERS = "the quick brown fox jumps over a lazy dog, and every other animal it meets on its way home. "


@pytest.fixture(autouse=True, scope="module")
def no_proof() -> Iterator[None]:
    """Proving an architecture takes seconds and has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)
        yield


def guide(folder: Path, text: str, context: int, stride: int) -> tuple[float, int]:
    """transformers' guide to perplexity of fixed-length models, window by window -> nats a token, and how many."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), _tokenizer(folder)
    ids = torch.tensor([tokenizer(text, verbose=False).input_ids])
    nats, tokens, end = 0.0, 0, 0
    for begin in range(0, ids.shape[1], stride):
        stop = min(begin + context, ids.shape[1])
        labels = ids[:, begin:stop].clone()
        labels[:, : end - begin] = -100
        with torch.inference_mode():
            logits = model(ids[:, begin:stop], use_cache=False).logits
        wanted = labels[0, 1:]
        nats += functional.cross_entropy(logits[0, :-1], wanted, reduction="sum", ignore_index=-100).item()
        tokens, end = tokens + int((wanted != -100).sum()), stop
        if stop == ids.shape[1]:
            break
    return nats / tokens, tokens


def _tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def perplexity(folder: Path, text: str, windowing: Windowing) -> Perplexity:
    with LLM(folder, dtype="float32") as llm:
        return prepare(llm, text, windowing).score("it")


class TestNumbersAreThoseOfTransformers:
    @pytest.mark.parametrize(("context", "stride"), [(512, 512), (96, 96), (128, 50)])
    def test_the_packaged_model_on_shakespeare(self, shared: Path, context: int, stride: int) -> None:
        text = (shared / "data" / "shakespeare" / "input.txt").read_text(encoding="utf-8")[-4000:]
        found = perplexity(packaged_model_folder(), text, Windowing(context=context, stride=stride))
        nats, tokens = guide(packaged_model_folder(), text, context, stride)
        assert (found.tokens, found.nats.mean) == (tokens, pytest.approx(nats, abs=TOLERANCE))
        assert found.perplexity == pytest.approx(math.exp(nats), rel=TOLERANCE)
        assert found.bytes_a_token == len(text.encode()) / found.text_tokens
        assert 1.5 < found.bits_a_byte < 3.0 and found.passes == 1

    def test_stories_that_a_model_writes_itself_are_easy_to_it_and_shakespeare_is_not(self, shared: Path) -> None:
        folder = shared / "models" / "stories-260k"
        if not folder.is_dir():
            pytest.skip(f"there is no {folder}")
        with LLM(folder, dtype="float32") as llm:
            asked = SamplingParams(max_tokens=300, temperature=0.0)
            story = "Once upon a time" + llm.generate("Once upon a time", asked)[0].outputs[0].text
            own = prepare(llm, story, Windowing(context=128)).score("it")
            other = prepare(llm, "ROMEO: What light through yonder window breaks?", Windowing()).score("it")
        assert own.nats.mean == pytest.approx(guide(folder, story, 128, 128)[0], abs=TOLERANCE)
        assert own.perplexity < 2 and other.perplexity > 20

    def test_windows_that_overlap_foretell_better_than_those_that_begin_with_nothing(self, shared: Path) -> None:
        text = (shared / "data" / "shakespeare" / "input.txt").read_text(encoding="utf-8")[-3000:]
        apart = perplexity(packaged_model_folder(), text, Windowing(context=64))
        sliding = perplexity(packaged_model_folder(), text, Windowing(context=64, stride=16))
        assert sliding.tokens > apart.tokens and sliding.perplexity < apart.perplexity

    def test_llama_cpp_scores_what_lies_behind_the_middle_of_windows_that_begin_with_bos(self, shared: Path) -> None:
        folder = packaged_model_folder()
        text = (shared / "data" / "shakespeare" / "input.txt").read_text(encoding="utf-8")[-2000:]
        found = perplexity(folder, text, Windowing(LLAMA_CPP, context=64))
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), _tokenizer(folder)
        ids = torch.tensor(tokenizer(text, verbose=False).input_ids)
        rows = ids[: len(ids) // 64 * 64].reshape(-1, 64).clone()
        rows[:, 0] = tokenizer.bos_token_id
        with torch.inference_mode():
            logits = model(rows).logits
        nats = functional.cross_entropy(logits[:, 32:-1].flatten(0, 1), rows[:, 33:].flatten())
        assert (found.tokens, found.nats.mean) == (31 * len(rows), pytest.approx(nats.item(), abs=TOLERANCE))


class TestWindows:
    @given(st.integers(2, 300), st.integers(2, 64), st.data())
    def test_each_token_but_the_first_ones_is_scored_once(self, tokens: int, context: int, data: st.DataObject) -> None:
        stride = data.draw(st.integers(1, context))
        windows = Windowing(context=context, stride=stride).windows(tokens)
        scored = [place for w in windows for place in range(w.start + w.first, w.stop)]
        beginnings = {0} if stride < context else set(range(0, tokens, context))
        assert scored == [place for place in range(tokens) if place not in beginnings]
        assert all(w.stop - w.start <= context and w.scored > 0 for w in windows)

    def test_llama_cpp_leaves_out_what_fills_no_window(self) -> None:
        assert Windowing(LLAMA_CPP, 8).windows(23) == [TextWindow(0, 8, 5), TextWindow(8, 16, 5)]
        assert Windowing(LLAMA_CPP, 8).windows(7) == []

    def test_the_usual_number_of_tokens_is_no_more_than_the_model_takes(self) -> None:
        assert Windowing().for_model(131072).context == 2048
        assert Windowing().for_model(1024).context == 1024
        assert Windowing(LLAMA_CPP).for_model(131072).context == 512

    def test_only_the_first_windows_are_read_where_so_many_were_asked_for(self) -> None:
        asked = Windowing(context=10, stride=4, most=3)
        assert [window.start for window in asked.windows(100)] == [0, 4, 8]
        assert asked.most_characters == 18 * 32

    def test_no_more_of_a_long_text_is_read_than_its_first_windows_take(self, tmp_path: Path) -> None:
        file = tmp_path / "long.txt"
        file.write_bytes("né".encode() * 2_000_000)
        assert len(read_text(str(file))) == 4_000_000
        beginning = read_text(str(file), Windowing(context=512, most=2).most_characters)
        assert 2 * 512 * 32 <= len(beginning) < 1_100_000 and set(beginning) == set("né")


class TestTheErrorBar:
    def test_of_windows_of_one_size_it_is_the_spread_of_their_means(self) -> None:
        sums = [30.0, 34.0, 28.0, 41.0]
        found = cluster_mean(sums, [10] * 4)
        assert found.mean == pytest.approx(3.325)
        assert found.error == pytest.approx(statistics.stdev(total / 10 for total in sums) / 2)

    def test_it_is_how_far_the_mean_really_strays(self) -> None:
        """Tokens of a window share what makes it hard: taken alone they would make the bar far too short."""
        draw = np.random.default_rng(0)
        means, errors = [], []
        for _ in range(300):
            counts = draw.integers(50, 150, 40)
            hardness = draw.normal(3.0, 0.5, 40)
            sums = [float((h + draw.normal(0, 0.5, n)).sum()) for h, n in zip(hardness, counts, strict=True)]
            found = cluster_mean(sums, counts.tolist())
            assert found.error is not None
            means.append(found.mean)
            errors.append(found.error)
        assert statistics.mean(errors) == pytest.approx(statistics.stdev(means), rel=0.1)

    def test_a_text_shorter_than_a_window_is_told_by_its_own_length(self) -> None:
        scores = (WindowScore(2, 5.0),)
        short = Perplexity("it", Windowing(context=512), scores, 2, 3, "same", 3, 1, 2.0)
        assert "windows     1 of 3 tokens," in "\n".join(short.lines())
        assert "windows     1 of 10 tokens," in "\n".join(made([12.0]).lines())

    def test_one_window_shows_none(self) -> None:
        assert cluster_mean([12.0], [4]).error is None
        assert "one window shows no error" in "\n".join(made([12.0]).lines())


def made(nats: list[float], fingerprint: str = "same") -> Perplexity:
    """A result of windows of 10 tokens that cost so much."""
    scores = tuple(WindowScore(10, each) for each in nats)
    return Perplexity("it", Windowing(context=10), scores, 400, 100, fingerprint, 100, 1, 2.0)


class TestOneModelAgainstAnother:
    def test_what_both_find_hard_falls_out_of_the_error(self) -> None:
        hard = [20.0, 35.0, 28.0, 50.0, 22.0]
        worse = [nats + extra for nats, extra in zip(hard, (0.5, 0.6, 0.4, 0.55, 0.45), strict=True)]
        found = PerplexityComparison(made(worse), made(hard)).difference
        assert found is not None and found.mean == pytest.approx(0.05)
        assert found.error == pytest.approx(statistics.stdev((0.05, 0.06, 0.04, 0.055, 0.045)) / math.sqrt(5))
        alone = made(hard).nats.error
        assert alone is not None and found.error is not None and found.error < alone / 50

    def test_the_difference_is_not_told_where_the_tokens_differ(self) -> None:
        compared = PerplexityComparison(made([20.0, 30.0]), made([5.0, 6.0], "another"))
        assert compared.difference is None and compared.as_dict()["difference"] is None
        assert "compare bits a byte" in "\n".join(compared.lines())

    def test_a_result_beyond_all_numbers_is_no_number_in_json(self) -> None:
        endless = made([math.inf, 30.0])
        assert endless.perplexity == math.inf
        assert json.loads(json.dumps(endless.as_dict()))["perplexity"] is None
        assert endless.lines()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Llama whose tokens are bytes and whose length is 128."""
    return byte_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "fox.txt"
    file.write_text(LETTERS * 6, encoding="utf-8")
    return file


def windlass(*arguments: str, given: bytes | None = None) -> Any:
    return CliRunner().invoke(app, ["eval", "ppl", *arguments], input=given, prog_name="windlass")


class TestTheVerb:
    def test_it_says_what_it_found_beside_what_it_means(self, tiny: str, text: Path) -> None:
        result = windlass(tiny, "--text", str(text), "-q")
        assert (result.exit_code, result.stderr) == (0, "")
        assert "windows     5 of 128 tokens, the first of each not scored, as transformers' guide does" in result.stdout
        nats, tokens = guide(Path(tiny), LETTERS * 6, 128, 128)
        assert f"over {tokens:,} tokens" in result.stdout
        assert float(result.stdout.split("perplexity")[1].split()[0]) == pytest.approx(math.exp(nats), rel=0.01)

    def test_json_holds_every_window_and_the_progress_goes_to_standard_error(self, tiny: str, text: Path) -> None:
        result = windlass(tiny, "--text", str(text), "--context", "32", "--stride", "16", "--json")
        found = json.loads(result.stdout)
        assert found["nats_per_token"] == pytest.approx(guide(Path(tiny), LETTERS * 6, 32, 16)[0], abs=TOLERANCE)
        assert found["windows"] == len(found["window_nats"]) and sum(found["window_tokens"]) == found["tokens"]
        assert found["passes"] == 1 and found["nats_per_token_error"] > 0
        assert '"event": "progress"' in result.stderr and "bound by" in result.stderr

    def test_a_text_may_come_through_a_pipe_and_only_its_beginning_be_read(self, tiny: str) -> None:
        result = windlass(tiny, "--text", "-", "--context", "16", "--windows", "2", "-q", given=LETTERS.encode())
        assert result.exit_code == 0 and "over 30 tokens" in result.stdout

    def test_a_model_against_itself_differs_by_nothing(self, tiny: str, text: Path) -> None:
        result = windlass(tiny, "--text", str(text), "--against", tiny, "--json", "-q")
        found = json.loads(result.stdout)
        assert found["difference"] == {"nats_per_token": 0.0, "nats_per_token_error": 0.0, "perplexity_ratio": 1.0}

    def test_a_damaged_model_against_the_whole_one(self, tiny: str, text: Path, tmp_path: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(tiny)
        with torch.no_grad():
            model.model.layers[1].mlp.down_proj.weight.mul_(0.5)
        model.save_pretrained(tmp_path)
        _tokenizer(Path(tiny)).save_pretrained(tmp_path)
        found = json.loads(windlass(str(tmp_path), "--text", str(text), "--against", tiny, "--json", "-q").stdout)
        apart = guide(tmp_path, LETTERS * 6, 128, 128)[0] - guide(Path(tiny), LETTERS * 6, 128, 128)[0]
        assert found["difference"]["nats_per_token"] == pytest.approx(apart, abs=TOLERANCE) != 0
        assert found["difference"]["nats_per_token_error"] > 0

    def test_memory_that_holds_few_windows_takes_more_passes_and_gives_the_same(self, tiny: str, text: Path) -> None:
        whole = json.loads(windlass(tiny, "--text", str(text), "--json", "-q").stdout)
        few = json.loads(windlass(tiny, "--text", str(text), "--block-size", "2", "--json", "-q").stdout)
        assert (whole["passes"], few["passes"]) == (1, 3)
        assert few["nats_per_token"] == pytest.approx(whole["nats_per_token"], abs=1e-6)

    def test_the_group_alone_shows_its_verbs(self) -> None:
        result = CliRunner().invoke(app, ["eval"], prog_name="windlass")
        assert result.exit_code == 0 and "ppl" in result.stdout


def test_a_context_beyond_the_model_is_refused(tiny: str, text: Path) -> None:
    with LLM(tiny) as llm, pytest.raises(UsageError, match="--context 200 is more than the 128"):
        prepare(llm, text.read_text(), Windowing(context=200))
