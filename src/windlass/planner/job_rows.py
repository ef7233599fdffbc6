"""The rows of a job as the walk through it takes them: few enough to be walked one after the other, however many.

A job of no more rows than are walked is taken as it is. Of a longer one a sample is: the rows by length, cut into equal
parts, each as its mean, so that all tokens are counted; and the parts in an order that mixes long and short ones, the
same each time. Where a block holds more than `PLACES` sequences, rows that are alike are walked together.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from windlass.facts.plan import Plan
from windlass.facts.workload import Workload

# So many sequences of a block are walked apart: what their number does to a pass is smooth beyond it.
PLACES = 128
# Blocks that are walked of a longer job, and rows at least: what lies between its beginning and its end repeats.
BLOCKS, LEAST_ROWS = 6, 192
# Rows of a table at most where they are drawn from some that are known.
MOST_ROWS = 20_000

Table = npt.NDArray[np.int64]
"""(4, rows): tokens to read, tokens shared, tokens of the answer, pages reserved."""


class Rows(NamedTuple):
    """`number` rows alike: `own` tokens of a prompt to read behind `shared` ones, an answer, and pages of their own."""

    number: int
    own: int
    shared: int
    answer: int
    pages: int

    @property
    def prompt(self) -> int:
        """Tokens of the prompt."""
        return self.own + self.shared


class JobRows(NamedTuple):
    """What is walked of a job, and what there is of it in all: tokens `read`, and tokens `decoded` behind the first."""

    rows: tuple[Rows, ...]
    read: int
    decoded: int
    common_pages: int
    mean_own: float
    mean_shared: float
    mean_pages: float


def rows_of(plan: Plan, workload: Workload) -> JobRows:
    """The rows of a job for a plan."""
    pages = _table(workload, plan.page_tokens)[3].mean()
    places = max(1, min(plan.block_size, workload.num_prompts, int(plan.num_pages / max(1.0, pages))))
    return _walked(workload, plan.page_tokens, places)


@lru_cache(maxsize=64)
def _walked(workload: Workload, page_tokens: int, places: int) -> JobRows:
    table = _table(workload, page_tokens)
    number = workload.num_prompts
    weight = number / table.shape[1]
    if table.shape[1] == 1 < number:  # all alike
        rows: list[Rows] = [Rows(_sample_size(number, places, 1), *map(int, table[:, 0]))]
    else:
        together = -(-places // PLACES)
        sample = _sample_size(number, places, together)
        if sample == number and together == 1:
            rows = [Rows(1, *each) for each in table.T.tolist()]
        else:
            rows = _sampled(table, sample, together)
    own, shared, answer, pages = (float(total) for total in table.sum(axis=1) * weight)
    common = int(table[1].max()) // page_tokens
    means = (own / number, shared / number, pages / number)
    return JobRows(tuple(_alike(rows)), round(own), round(answer - number), common, *means)


def _sample_size(number: int, places: int, together: int) -> int:
    """Rows that are walked of `number`: all, or some blocks and the rest that does not fill one."""
    most = max(LEAST_ROWS, BLOCKS * -(-places // together)) * together
    return number if number <= most else most // places * places + number % places


@lru_cache(maxsize=8)
def _table(workload: Workload, page_tokens: int) -> Table:
    """One column a row, or a single one where all are alike; of more than `MOST_ROWS` so many, which stand for all.

    Where fewer rows are known than there are they come again and again, where more are some of them are left out.
    """
    number = workload.num_prompts
    columns = max(map(len, (workload.prompt_lens, workload.gen_lens, workload.shared_lens, workload.reserved_lens)))
    if not columns:
        return _table_of(workload, number if workload.answer_len(0.0) != workload.answer_len(1.0) else 1, page_tokens)
    wanted = min(number, max(MOST_ROWS, columns))
    places = np.arange(wanted)
    chosen = places % columns if wanted > columns else places * columns // wanted
    return _table_of(workload, columns, page_tokens)[:, chosen]


def _table_of(workload: Workload, columns: int, page_tokens: int) -> Table:
    prompt = np.array(workload.prompt_lens or (max(1, workload.prompt_len),) * columns, np.int64)
    shared = np.array(workload.shared_lens or (0,) * columns, np.int64)
    most = np.array(workload.gen_lens or (max(1, workload.gen_len),) * columns, np.int64)
    answer = most if workload.gen_lens else _answers(workload, columns)
    # The last token goes through the model in any case, but for further answers to the same prompt.
    whole = np.minimum(shared, prompt - 1) // page_tokens * page_tokens
    whole = np.where(shared >= prompt, prompt - 1, whole)
    stored = np.array(workload.reserved_lens, np.int64) if workload.reserved_lens else prompt + most - 1
    reserved = -(-stored // page_tokens)
    return np.stack([prompt - whole, whole, np.maximum(answer, 1), reserved - whole // page_tokens])


def _answers(workload: Workload, count: int) -> Table:
    """Lengths of answers as they are expected to be spread, long and short ones mixed."""
    lengths = [workload.answer_len((place + 0.5) / count) for place in range(count)]
    return np.array(lengths, np.int64)[_mixed(count)]


def _sampled(table: Table, sample: int, together: int) -> list[Rows]:
    """`sample` rows, `together` of them alike at a time, whose means are those of all."""
    parts = -(-sample // together)
    ordered = table[:, np.lexsort((table[0], table[2]))]
    edges = np.linspace(0, table.shape[1], parts + 1).round().astype(np.int64)
    means = np.add.reduceat(ordered, edges[:-1], axis=1) / np.diff(edges)
    counts = [together] * (parts - 1) + [sample - together * (parts - 1)]
    columns = means.round().astype(np.int64).T[_mixed(parts)].tolist()
    return [Rows(count, *column) for count, column in zip(counts, columns, strict=True)]


def _mixed(count: int) -> Table:
    """0 .. count - 1 in steps of about the golden section: whatever follows each other lies far apart."""
    step = max(1, round(count * 0.618))
    while np.gcd(step, count) > 1:
        step += 1
    return np.arange(count, dtype=np.int64) * step % count


def _alike(rows: list[Rows]) -> Iterator[Rows]:
    """Rows alike that follow each other, as one."""
    held: Rows | None = None
    for each in rows:
        if held is not None and held[1:] == each[1:]:
            held = held._replace(number=held.number + each.number)
        else:
            if held is not None:
                yield held
            held = each
    if held is not None:
        yield held
