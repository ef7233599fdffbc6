"""A batch job around an engine that answers at once, on a disk that can be made to fail."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from fake_llm import FakeLLM
from windlass.engine.llm import LLM
from windlass.facts.batch_summary import BatchSummary
from windlass.facts.job_identity import JobIdentity
from windlass.facts.job_settings import JobSettings
from windlass.facts.sampling_facts import sampling_facts
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.jobs.answers.answer_sink import answer_sink
from windlass.jobs.batch.answerer import Answerer
from windlass.jobs.batch.begin import agree
from windlass.jobs.batch.engine_call import EngineCall
from windlass.jobs.batch.journal import Journal
from windlass.jobs.batch.meter import Meter
from windlass.jobs.batch.outbox import Outbox
from windlass.jobs.batch.place import JobPlace, OpenJob
from windlass.jobs.batch.run import Doors, Run, Work
from windlass.jobs.rows.row_source import row_source

Row = dict[str, Any] | bytes
FILES = {"model.safetensors": "8 bytes"}


@dataclass
class JobWorld:
    """A folder with `in.jsonl` and `out.jsonl`; every `start` is a process that begins the job or goes on with it."""

    folder: Path
    settings: JobSettings = JobSettings()
    window: int = 2000
    length_asked: bool = False
    files: dict[str, str] = field(default_factory=lambda: dict(FILES))
    defaults: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    forecast: list[Workload] = field(default_factory=list)

    @property
    def source(self) -> Path:
        return self.folder / "in.jsonl"

    @property
    def target(self) -> Path:
        return self.folder / "out.jsonl"

    @property
    def place(self) -> JobPlace:
        return JobPlace(self.target)

    def ask(self, *rows: Row) -> "JobWorld":
        """Writes the input."""
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        self.source.write_bytes(b"".join(line + b"\n" for line in lines))
        return self

    def start(self, llm: FakeLLM | Answerer | None = None, stopped: Callable[[], bool] = lambda: False) -> str:
        """Works on the job until its end, which is returned."""
        return self._run(llm or FakeLLM(), stopped)[0]

    def summary(self) -> BatchSummary:
        """Of a start that finds all done."""
        return self._run(FakeLLM(), lambda: False)[1]

    def journal(self) -> Journal:
        """What a passer-by sees."""
        return Journal(self.place.journal, read_only=True)

    def written(self) -> list[dict[str, Any]]:
        """The rows of the output. Raises where one of them is torn."""
        return [json.loads(line) for line in self.target.read_text().splitlines()]

    def numbers(self) -> list[int]:
        """The lines of the input that the rows of the output answer."""
        return [int(row["id"].removeprefix("batch_req_")) for row in self.written()]

    def texts(self) -> list[str | None]:
        """The answers in the output."""
        return [row["response"] and row["response"]["body"]["choices"][0]["text"] for row in self.written()]

    def errors(self) -> dict[int, str]:
        """What is said of rows without an answer."""
        return {row["error"]["line"]: row["error"]["message"] for row in self.written() if row["error"]}

    def _run(self, llm: FakeLLM | Answerer, stopped: Callable[[], bool]) -> tuple[str, BatchSummary]:
        with OpenJob(self.place) as job:
            journal = job.begin()
            answerer = EngineCall(cast(LLM, llm)) if isinstance(llm, FakeLLM) else llm
            defaults = SamplingParams(**({"temperature": 0.0} | self.defaults))
            identity = JobIdentity("model", self.files, {"dtype": "float32"}, sampling_facts(defaults), ("max_tokens",))
            agree(journal, identity)
            work = Work(
                "model",
                row_source(str(self.source)),
                identity,
                defaults,
                self.settings,
                self.length_asked,
                self.window,
                wait_scale=0.0,
            )
            open_sink = partial(answer_sink, str(self.target), may_exist=True)
            outbox = Outbox(journal, open_sink, self.settings.order, self.said.append)
            doors = Doors(self.told.extend, self.said.append, stopped, self.forecast.append)
            run = Run(answerer, work, journal, outbox, Meter(lambda event: None), doors)
            return run.run(), run.summary()


def asks(lengths: Sequence[int]) -> list[Row]:
    """A row for each length of answer."""
    return [{"prompt": "Hi", "max_tokens": length} for length in lengths]


def text(length: int) -> str:
    """What the engine answers."""
    return "x" * length
