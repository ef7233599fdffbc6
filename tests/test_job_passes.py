"""The passes of a job as they are forecast: those that the engine makes, those of a walk row by row, and all tokens."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints import random_model, random_prompts, save
from planned_models import decoder, demands, laptop
from windlass.engine.llm import LLM
from windlass.engine.measurements import Measurements
from windlass.facts.plan import Plan
from windlass.facts.request import Request
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.jobs.prompt_lengths import RUN_TOKENS, KnownBeginnings
from windlass.planner.cost import forecast
from windlass.planner.job_passes import job_passes
from windlass.planner.job_rows import JobRows, rows_of
from windlass.planner.job_walk import Stretch, walk
from windlass.planner.search import search
from windlass.units import GIB

Pass = tuple[int, int, int, int]
"""Sequences that decode, tokens they attend to together, tokens of prompts, logits."""

MODEL = decoder()
PAGE = 64


def plan_of(block: int, pass_tokens: int, pages: int | None = None) -> Plan:
    plan = search(MODEL, Workload(block, 512, 256), demands(16 * GIB, block))
    return replace(plan, pass_tokens=pass_tokens, num_pages=pages or plan.num_pages)


def job(rows: list[tuple[int, int]]) -> Workload:
    prompts, answers = zip(*rows, strict=True)
    return Workload(len(rows), max(prompts), max(answers), tuple(prompts), gen_lens=tuple(answers))


def walked(plan: Plan, workload: Workload) -> list[Pass]:
    return [
        (each.decoding, each.context + number * each.decoding, each.reading, each.drawn)
        for each in walk(rows_of(plan, workload), plan)
        for number in range(each.passes)
    ]


def by_hand(rows: list[tuple[int, int]], block: int, pass_tokens: int, pages: int) -> list[Pass]:
    """Row by row and pass by pass: [prompt, answer, tokens stored, tokens drawn] of everyone who has a place."""
    waiting, running, passes = [[prompt, answer, 0, 0] for prompt, answer in rows], list[list[int]](), list[Pass]()
    while waiting or running:
        while waiting and len(running) < block:
            needed = sum(-(-(row[0] + row[1] - 1) // PAGE) for row in (*running, waiting[0]))
            if running and needed > pages:
                break
            running.append(waiting.pop(0))
        decoding = [row for row in running if row[3]]
        context, room, read, drawn = sum(row[2] + 1 for row in decoding), pass_tokens - len(decoding), 0, len(decoding)
        for row in running:
            if not row[3]:
                piece = min(room, row[0] - row[2])
                row[2], room, read = row[2] + piece, room - piece, read + piece
                if row[2] == row[0]:
                    row[3], drawn = 1, drawn + 1
        for row in decoding:
            row[2], row[3] = row[2] + 1, row[3] + 1
        passes.append((len(decoding), context, read, drawn))
        running = [row for row in running if row[3] < row[1]]
    return passes


ROWS = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 40)), min_size=1, max_size=25)


@settings(max_examples=60)
@given(ROWS, st.integers(1, 8), st.sampled_from((8, 64, 1000)), st.integers(8, 40))
def test_a_job_is_walked_as_row_by_row(rows: list[tuple[int, int]], block: int, pass_tokens: int, pages: int) -> None:
    plan = replace(plan_of(8, pass_tokens, pages), block_size=block)
    assert walked(plan, job(rows)) == by_hand(rows, block, pass_tokens, pages)


@given(st.integers(1, 60), st.integers(1, 90), st.integers(1, 30), st.sampled_from((16, 100, 4000)))
def test_so_are_rows_that_are_all_alike(number: int, prompt: int, answer: int, pass_tokens: int) -> None:
    plan = plan_of(16, pass_tokens)
    assert walked(plan, Workload(number, prompt, answer)) == by_hand(
        [(prompt, answer)] * number, 16, pass_tokens, plan.num_pages
    )


def test_the_engine_makes_these_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of many lengths in a block of four, and a beginning of 128 tokens that most of them share."""
    monkeypatch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)
    save(random_model("llama", max_position_embeddings=512), tmp_path)
    common, *ends = random_prompts(128, 20, 3, 60, 40, 7, 33, 90, 12, 5)
    prompts = [common + end for end in ends[:6]] + ends[6:]
    outs = (9, 3, 14, 2, 1, 6, 11, 8, 5)
    known, made = KnownBeginnings(), list[tuple[int, int]]()
    shared = [known.add(prompt) for prompt in prompts]
    assert shared == [0] + 5 * [128] + 3 * [0] and 128 % RUN_TOKENS == 0
    work = replace(job([(len(p), out) for p, out in zip(prompts, outs, strict=True)]), shared_lens=tuple(shared))
    begin = Measurements.begin_pass

    def noted(self: Measurements, read: int, drawn: int) -> None:
        made.append((drawn, read))
        begin(self, read, drawn)

    monkeypatch.setattr(Measurements, "begin_pass", noted)
    with LLM(tmp_path) as llm:
        plan = replace(llm.prepare(work), block_size=4, pass_tokens=100)
        llm.adopt(plan)
        params = [SamplingParams(max_tokens=out, temperature=0.0, ignore_eos=True) for out in outs]
        requests = (
            Request(str(i), None, tuple(p), each) for i, (p, each) in enumerate(zip(prompts, params, strict=True))
        )
        assert len(list(llm.answer(requests, work))) == 9
    assert [(decoding, read) for decoding, _, read, _ in walked(plan, work)] == made


@settings(max_examples=25)
@given(
    st.integers(300, 5000),
    st.sampled_from((1, 8, 100, 700)),
    st.integers(0, 5),
    st.sampled_from((None, 20.0)),
)
def test_a_sample_of_a_long_job_counts_all_its_tokens(number: int, block: int, seed: int, mean: float | None) -> None:
    lens = tuple(16 + (place * (97 + seed)) % 300 for place in range(number))
    work = Workload(number, 320, 90, lens, mean_gen_len=mean)
    passes = job_passes(plan_of(block, max(512, block)), work)
    decoded = sum(shape.decoding * times for shape, times in passes.shapes)
    read = sum(shape.reading * times for shape, times in passes.shapes)
    assert decoded == pytest.approx(work.generated_tokens - number, rel=0.06)
    assert read == pytest.approx(sum(lens), rel=0.1) and passes.read == sum(lens)
    assert len(passes.shapes) <= 13


def test_fifty_thousand_rows_take_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk of every pass would take minutes."""
    stretches = list[Stretch]()

    def noted(rows: JobRows, plan: Plan) -> Iterator[Stretch]:
        for stretch in walk(rows, plan):
            stretches.append(stretch)
            yield stretch

    monkeypatch.setattr("windlass.planner.job_passes.walk", noted)
    lens = tuple(16 + (place * 7919) % 497 for place in range(50_000))
    outs = tuple(4 + (place * 104_729) % 253 for place in range(50_000))
    work, plan = Workload(50_000, 512, 256, lens, gen_lens=outs), plan_of(64, 2048)
    told = forecast(MODEL, plan, laptop(), work)
    assert 0 < len(stretches) < 2000
    assert told.prefill.tokens == sum(lens) and told.decode.tokens == sum(outs) - 50_000


def test_what_prompts_share_is_read_once() -> None:
    plain = Workload(40, 1064, 20, (1064,) * 40)
    alike = replace(plain, shared_lens=(0,) + 39 * (1000,))
    plan = plan_of(8, 2048, 8 * 17)
    told = [forecast(MODEL, plan, laptop(), each).prefill for each in (plain, alike)]
    assert told[0].tokens == 40 * 1064 and told[1].tokens == 40 * 1064 - 39 * 960  # fifteen pages of 64
    assert told[1].seconds < 0.3 * told[0].seconds


def test_a_pass_that_reads_and_decodes_counts_in_both_phases_by_its_tokens() -> None:
    """Of two places one is taken by a long prompt while the other decodes; together they are the job."""
    work = job([(10, 40), (600, 2)])
    plan = plan_of(2, 64)
    told = forecast(MODEL, plan, laptop(), work)
    mixed = [each for each in walked(plan, work) if each[0] and each[2]]
    assert len(mixed) >= 8
    assert told.decode.passes == sum(1 for each in walked(plan, work) if each[0])
    assert told.prefill.passes == sum(1 for each in walked(plan, work) if not each[0])
    assert told.prefill.seconds > 8 * told.decode.seconds_per_pass * 0.5


@pytest.mark.parametrize("number", [3, 7, 24, 1000, 50_000])
def test_rows_that_are_known_stand_for_those_that_are_not(number: int) -> None:
    known = [(100, 40), (300, 20), (30, 5), (200, 1), (10, 33), (64, 8), (128, 16), (256, 2)]
    some = replace(job(known), num_prompts=number)
    # Fewer than there are come again and again; of more, those are left out that lie between.
    every = job([known[place * 8 // number if number < 8 else place % 8] for place in range(number)])
    plan = plan_of(8, 64)
    found, wanted = rows_of(plan, some), rows_of(plan, every)
    assert (found.read, found.decoded) == pytest.approx((wanted.read, wanted.decoded), rel=1e-3)
    assert some.generated_tokens == pytest.approx(every.generated_tokens, rel=0.35 if number < 8 else 0.01)
    if number <= 1000:
        assert found == wanted
