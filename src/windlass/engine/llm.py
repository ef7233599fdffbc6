"""The public face of the engine, in vLLM's spelling: open a model, give it prompts, get text.

The plan is made for the work at hand: with the first prompts, and again when later ones need another shape.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import overload

import torch

from windlass.engine.admission import Admission
from windlass.engine.arguments import (
    read_count,
    read_device,
    read_dtype,
    read_folder,
    read_memory,
    read_model,
    read_optional,
    read_switch,
    read_tokens,
    read_whole,
)
from windlass.engine.arrivals import Arrivals
from windlass.engine.block_state import BlockState
from windlass.engine.continuations import Continuations, read_continuations
from windlass.engine.disk_rate import best_disk
from windlass.engine.engine import Engine
from windlass.engine.foresight import Foresight, known_foresight
from windlass.engine.generation import Generation
from windlass.engine.given_plan import checked_plan, read_given_plan, refuse_longer_work
from windlass.engine.line import Line, ListedLine, LiveLine
from windlass.engine.load_progress import load_progress
from windlass.engine.measurements import Measurements
from windlass.engine.opened_model import OpenedModel, open_model, warn_of_unheeded, warn_of_unpacking
from windlass.engine.passage import Passage
from windlass.engine.planning import Budgets, check_disk, make_plan, still_suits
from windlass.engine.process import set_up_process
from windlass.engine.prompts import Messages, Prompts, read_conversations, read_prompts
from windlass.engine.proven_files import ModelChoice, proven_files
from windlass.engine.run_record import keep
from windlass.engine.scoring import Scoring
from windlass.engine.target import choose_target
from windlass.engine.trace import Trace
from windlass.engine.workloads import workload_of_answers, workload_of_passages
from windlass.errors import UsageError
from windlass.facts.choices import check_quantization
from windlass.facts.completion import RequestOutput
from windlass.facts.continuation_score import ContinuationScore
from windlass.facts.plan import Plan
from windlass.facts.plan_file import PlanFile
from windlass.facts.progress import Progress
from windlass.facts.prompt_scores import PromptScores
from windlass.facts.request import Request
from windlass.facts.run_report import RunReport
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.shape import Shape
from windlass.facts.workload import Workload
from windlass.model.tokenizer import AnyTokenizer


class LLM:
    """A model, far larger than memory if need be. Sizes are `"8GiB"` or bytes; see DESIGN for the names.

    `plan` is one made before, or the file that `windlass plan -o` wrote; it is used as it is. A Shape in place of a
    name has random weights; what of them streams is written below `offload_dir` meanwhile.

    Raises UsageError for arguments that make no sense, ModelError when the model cannot be run, and BudgetError from
    the first use when the work does not fit `host_memory`, the limit on the memory of the whole process.

    `interactive_reserve` tokens of the cache, and a place, are left free by requests that can wait (see serve).
    """

    def __init__(
        self,
        model: str | Path | Shape,
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        gpu_memory: str | int | None = None,
        host_memory: str | int | None = None,
        offload_dir: str | Path | None = None,
        quantization: str | None = None,
        kv_cache_dtype: str = "auto",
        max_model_len: int | None = None,
        plan: Plan | PlanFile | str | Path | None = None,
        seed: int = 0,
        block_size: int | None = None,
        micro_batch_tokens: int | None = None,
        enable_prefix_caching: bool = True,
        interactive_reserve: int = 0,
        unproven: bool = False,
        revision: str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        trace: Trace | None = None,
    ) -> None:
        check_quantization(quantization)
        self._offload_dir = read_folder("--offload-dir", offload_dir)
        name, dtype_asked = read_model(model), read_dtype(dtype)
        self._host_memory = read_memory("--host-memory", host_memory)
        self._gpu_memory = read_memory("--gpu-memory", gpu_memory)
        self._block_size = read_count("--block-size", block_size) or 0
        self._micro_batch_tokens = read_count("--micro-batch-tokens", micro_batch_tokens)
        self._seed = read_whole("seed", seed)
        self._share_prefixes = read_switch("enable_prefix_caching", enable_prefix_caching)
        self._reserve = read_tokens("--interactive-reserve", interactive_reserve)
        self._on_progress = read_optional("on_progress", on_progress, Callable, "a function")
        self._trace = read_optional("trace", trace, Trace, "a Trace")
        brought, kept_as = read_given_plan(plan, block_size, micro_batch_tokens, kv_cache_dtype)
        longest = None if max_model_len is None else read_whole("--max-model-len", max_model_len)
        chosen = choose_target(read_device(device), self._gpu_memory)
        set_up_process()
        unproven, revision = read_switch("unproven", unproven), read_optional("revision", revision, str, "a name")
        choice = ModelChoice(name, dtype_asked, quantization, longest, revision, unproven)
        files = proven_files(choice, self._offload_dir, self._on_progress)
        self.opened: OpenedModel = open_model(files, str(name), dtype_asked, longest, chosen, kept_as)
        warn_of_unheeded(self.opened, name)
        warn_of_unpacking(files, chosen)
        self._brought_plan = self._given_plan = checked_plan(brought, self.opened, self._host_memory, self._gpu_memory)
        self._engine: Engine | None = None
        self.foresight: Foresight | None = known_foresight(self.opened.folder, self.opened.target)
        self._machine = self.foresight.machine if self.foresight is not None else None
        self._loading: Plan | None = None
        self._measurements: Measurements | None = None
        self._planned_for: Workload | None = None
        self._numbers = itertools.count()
        self._call: object | None = None
        self._admission = Admission(self.opened, self._seed, self._numbers)

    @property
    def tokenizer(self) -> AnyTokenizer:
        """The model's tokenizer; one that refuses text where the checkpoint has none."""
        return self.opened.tokenizer

    @property
    def default_sampling_params(self) -> SamplingParams:
        """What the checkpoint asks for when a call says nothing."""
        return self.opened.defaults.sampling_params

    @property
    def plan(self) -> Plan:
        """Where every byte lives; made for a small job if nothing has run yet."""
        return self._loaded(self._planned_for or Workload()).plan

    @property
    def report(self) -> RunReport:
        """What was measured so far."""
        return self._measurements.report() if self._measurements else RunReport()

    def prepare(self, workload: Workload) -> Plan:
        """Plans for a known workload and loads the model, so that the first call need not."""
        self._refuse_a_second_call()
        return self._fitting(workload).plan

    def plan_for(self, workload: Workload) -> Plan:
        """The plan that a workload would get, which is the one brought along if there is one; nothing is loaded.

        A model that is loaded is put away first: what it holds would count against the plan.
        """
        self._refuse_a_second_call()
        self._unload()
        return self._brought_plan or self._make_plan(workload)

    def adopt(self, plan: Plan) -> None:
        """Runs everything from now on by `plan`, as if it had been given when the model was opened.

        It may be one of `plan_for`, placed differently (planner.by_hand). The next use loads the model by it. Raises
        UsageError and StorageError where what it puts on disk has no place there.
        """
        self._refuse_a_second_call()
        check_disk(self.opened, plan, self._offload_dir)
        self._unload()
        self._given_plan = plan

    def foresee(self, foresight: Foresight) -> None:
        """Has reports set another forecast beside what is measured, and every run kept for later forecasts.

        Without it that of the profile which `windlass doctor` kept is used, if any; plans are always made by
        the latter. To be called before the model is loaded.
        """
        self.foresight = foresight

    def generate(
        self, prompts: Prompts, sampling_params: SamplingParams | Sequence[SamplingParams] | None = None
    ) -> list[RequestOutput]:
        """Answers every prompt; the outputs come in the order of the prompts.

        A prompt is a string or `{"prompt_token_ids": [...]}`. Raises UsageError for anything else, and RequestError
        for a prompt that is too long or has no tokens, before anything runs.
        """
        requests = read_prompts(prompts, sampling_params, self.default_sampling_params, self.tokenizer, self._numbers)
        finished = {output.request_id: output for output in self._run(requests, stream=False)}
        return [finished[request.request_id] for request in requests]

    def stream(
        self, prompts: Prompts, sampling_params: SamplingParams | Sequence[SamplingParams] | None = None
    ) -> Iterator[RequestOutput]:
        """As generate, but yields each request again after every token; `finished` is true on its last.

        One call runs at a time: until the stream has ended or is closed, other calls raise UsageError.
        """
        requests = read_prompts(prompts, sampling_params, self.default_sampling_params, self.tokenizer, self._numbers)
        return self._run(requests, stream=True)

    def answer(
        self,
        requests: Iterable[Request],
        workload: Workload,
        *,
        stream: bool = False,
        until: Callable[[], bool] | None = None,
    ) -> Iterator[RequestOutput]:
        """Answers as many requests as there are, which are asked for only as places fall free; see Generation.

        `workload` says what to plan for: the longest prompt and answer among them, and about how many they are. Every
        `request_id` is a whole number of its own; one without a seed is seeded by it. Outputs come as they end, in any
        order. Raises UsageError and RequestError for a request when its turn has come.
        """
        return self._outputs(ListedLine(self._admission.groups(requests, workload)), workload, stream, until)

    def serve(self, arrivals: Arrivals, workload: Workload) -> Iterator[RequestOutput]:
        """Answers requests that come while others run, until `arrivals` is closed; yields after each of their tokens.

        The urgent ones (`priority`) go first, and take the places and pages of others, which go on later with the same
        tokens. `workload` says what to plan for. Every `request_id` is a whole number of its own, see answer.
        """
        line = LiveLine(arrivals, self._admission.answers)
        return self._outputs(line, workload, True, lambda: arrivals.closed, tell=arrivals.tell)

    def chat(
        self,
        messages: Messages,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[RequestOutput]:
        """Answers one conversation or several, by the tokenizer's chat template."""
        conversations = read_conversations(messages)
        prompts = [{"prompt_token_ids": self.tokenizer.apply_chat_template(talk)} for talk in conversations]
        return self.generate(prompts, sampling_params)

    @overload
    def score(self, prompts: Prompts, *, first: int | Sequence[int] = 1) -> list[PromptScores]: ...
    @overload
    def score(self, prompts: Prompts, continuations: Continuations) -> list[list[ContinuationScore]]: ...
    def score(
        self, prompts: Prompts, continuations: Continuations | None = None, *, first: int | Sequence[int] = 1
    ) -> list[PromptScores] | list[list[ContinuationScore]]:
        """How likely each continuation is after its prompt: for each prompt a list, with a score a continuation.

        A prompt has one continuation or a list of several, each a prompt by its form; continuations.py says how text
        is cut into tokens. Without continuations: how likely the tokens of each prompt are after those before them,
        from the place `first` on, 1 or more. Nothing is generated, and what texts begin with alike is read once.
        Raises UsageError and RequestError as generate does.
        """
        if continuations is None:
            requests = read_prompts(prompts, None, self.default_sampling_params, self.tokenizer, self._numbers)
            passages = self._admission.passages(requests, first)
            self._score(passages)
            return [passage.scores() for passage in passages]
        if first != 1:
            raise UsageError(f"first={first!r:.40} says where scores begin, and so do continuations; leave one out")
        groups = self._admission.continuations(read_continuations(prompts, continuations, self.tokenizer))
        self._score([passage for group in groups for passage in group])
        return [[passage.continuation() for passage in group] for group in groups]

    def check(self, sampling_params: SamplingParams) -> None:
        """Raises UsageError for parameters that make no sense for this model: ids it lacks, texts without tokenizer."""
        self._admission.check(sampling_params)

    def check_request(self, request: Request) -> None:
        """Raises what `answer` would raise for a request when its turn has come; any thread may ask."""
        self._admission.check_request(request)

    def record(self, trace: Trace) -> None:
        """Has every lane tell `trace` of its work, if nothing is told yet. To be called before the model is loaded."""
        self._trace = self._trace or trace

    def close(self) -> None:
        """Stops the disk and frees the memory; the next call loads the model again. May be called twice."""
        self._call = None
        self._unload()
        self._admission.close()
        if self.opened.made is not None:
            self.opened.made.remove()

    def _unload(self) -> None:
        engine, self._engine = self._engine, None
        if engine is None:
            return
        try:
            if self.foresight is not None:
                keep(self.report, self.opened.facts.name, engine.plan, self.foresight.machine)
        finally:
            engine.close()

    def __enter__(self) -> "LLM":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _score(self, passages: Sequence[Passage]) -> None:
        """Passages that begin alike go one behind the other, so that little has to be kept for long."""
        if passages:
            with self._called(workload_of_passages(passages)) as (engine, measurements):
                Scoring(engine, measurements).finish(sorted(passages, key=lambda passage: passage.token_ids))

    def _run(self, requests: Sequence[Request], stream: bool) -> Iterator[RequestOutput]:
        """Checks the requests now and runs them as the iterator is read."""
        groups = [self._admission.answers(request) for request in requests]
        if not groups:
            return iter(())
        most = sum(answer.max_tokens - 1 for answers in groups for answer in answers)
        return self._outputs(ListedLine(groups), workload_of_answers(groups), stream, None, most)

    def _outputs(
        self,
        line: Line,
        workload: Workload,
        stream: bool,
        until: Callable[[], bool] | None,
        most_tokens: int | None = None,
        tell: Callable[[BlockState], None] | None = None,
    ) -> Iterator[RequestOutput]:
        with self._called(workload) as (engine, measurements):
            call = self._call
            generation = Generation(engine, measurements, stream, until, most_tokens, self._reserve, tell)
            try:
                for output in generation.run_line(line):
                    yield output
                    if self._call is not call:
                        raise UsageError("the LLM was closed before this stream was read to its end; ask again")
            finally:
                measurements.end_call(generation.tally)

    @contextmanager
    def _called(self, workload: Workload) -> Iterator[tuple[Engine, Measurements]]:
        """One call, with an engine that is fit for it; whatever breaks off inside leaves the next call a fresh one."""
        self._refuse_a_second_call()
        self._call = call = object()
        try:
            engine = self._fitting(workload)
            assert self._measurements is not None
            self._measurements.begin_call()
            yield engine, self._measurements
        except (Exception, KeyboardInterrupt):
            # The disk lane stands somewhere in the middle of a pass: the next call must begin with a fresh one.
            if self._call is call:
                self._unload()
            raise
        finally:
            if self._call is call:
                self._call = None

    def _refuse_a_second_call(self) -> None:
        if self._call is not None:
            raise UsageError("this LLM is answering another call; read that stream to its end, or close() the stream")

    def _fitting(self, workload: Workload) -> Engine:
        """The engine for work that is about to run. Raises UsageError where a given plan has no room for it."""
        if self._given_plan is not None:
            refuse_longer_work(self._given_plan, workload)
        return self._loaded(workload)

    def _loaded(self, workload: Workload) -> Engine:
        """The engine, loaded by a plan that suits the workload."""
        if self._engine is not None and self._suits(workload):
            return self._engine
        self._unload()
        plan = self._given_plan or self._make_plan(workload)
        self._planned_for = workload
        check_disk(self.opened, plan, self._offload_dir)
        self._loading = plan
        if self.opened.made is not None:
            self.opened.made.store(self.opened.groups, plan)
        disk, share = best_disk(self.opened.folder, plan), self._share_prefixes
        self._engine = Engine(self.opened, plan, disk, self._tell_load, self._offload_dir, self._trace, share)
        self._measurements = Measurements(self._engine, self._on_progress, self.foresight)
        self._engine.runner.after_slice = self._measurements.end_slice
        return self._engine

    def _suits(self, workload: Workload) -> bool:
        """Whether the present plan holds the work: the longest sequence fits, and the block is not far too small."""
        assert self._engine is not None and self._planned_for is not None
        return self._given_plan is not None or still_suits(self._engine.plan, self._planned_for, workload)

    def _make_plan(self, workload: Workload) -> Plan:
        budgets = Budgets(
            self._host_memory, self._gpu_memory, self._micro_batch_tokens, self._block_size, self._offload_dir
        )
        return make_plan(self.opened, workload, budgets, self._machine)

    def _tell_load(self, done: int, total: int, seconds: float) -> None:
        if self._on_progress is not None:
            self._on_progress(load_progress(done, total, seconds, self._loading))
