"""An engine that answers at once and as told, for the jobs around it: prompts end in the order of their lengths."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import SimpleNamespace

from windlass.errors import StorageError, UsageError
from windlass.facts.completion import CompletionOutput, Logprob, RequestOutput
from windlass.facts.plan import MemoryBill, Plan
from windlass.facts.request import Request
from windlass.facts.run_report import RunReport
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload

PLAN = Plan(
    "fake", "cpu", "float32", 8, 64, 64, 16, 8, (), frozenset(), MemoryBill(1000, 400, 300, 100, 0, 50, 10, 10, 10)
)


class FakeTokenizer:
    """A character is a token, its id the code point. Only messages of a user can be asked."""

    has_chat_template = True

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def encode_plain(self, text: str) -> list[int]:
        return self.encode(text)

    def chat_text(self, messages: Sequence[Mapping[str, str]], tools: object = None) -> str:
        if any(message["role"] != "user" for message in messages):
            raise UsageError("this template knows users only")
        return "".join(message["content"] for message in messages)


class FakeLLM:
    """Answers `x` once a pass for every sequence, max_tokens times; `ends_after` passes Ctrl-C is pressed.

    `answer` has `block_size` places; what it was asked goes to `asked` and `begun` as it is drawn.

    Calls one after the other break off with a disk that fails after so many passes of `fails_after`.
    """

    def __init__(
        self,
        max_model_len: int = 64,
        ends_after: int | None = None,
        fails_after: Sequence[int] = (),
        block_size: int = 8,
    ) -> None:
        self.tokenizer = FakeTokenizer()
        self.opened = SimpleNamespace(facts=SimpleNamespace(max_model_len=max_model_len, vocab_size=256), made=None)
        self.default_sampling_params = SamplingParams(temperature=0.0)
        self.report = RunReport()
        self.plan = PLAN
        self.workloads: list[Workload] = []
        self.adopted: list[Plan] = []
        self.asked: list[tuple[list[int], SamplingParams]] = []
        self.begun: list[tuple[tuple[int, ...], ...]] = []
        self._ends_after, self._fails_after, self._block_size = ends_after, list(fails_after), block_size
        self._next_request = 7  # the engine does not begin at 0 when it has answered before

    def check(self, sampling_params: SamplingParams) -> None:
        sampling_params.check_vocabulary(self.opened.facts.vocab_size)

    def plan_for(self, workload: Workload) -> Plan:
        return self.plan

    def adopt(self, plan: Plan) -> None:
        self.adopted.append(plan)
        self.plan = plan

    def prepare(self, workload: Workload) -> Plan:
        self.workloads.append(workload)
        return self.plan

    def stream(
        self, prompts: Sequence[Mapping[str, list[int]]], params: Sequence[SamplingParams]
    ) -> Iterator[RequestOutput]:
        self.asked = [(prompt["prompt_token_ids"], each) for prompt, each in zip(prompts, params, strict=True)]
        for done in range(1, max(each.max_tokens or 1 for each in params) + 1):
            if self._ends_after is not None and done > self._ends_after:
                raise KeyboardInterrupt
            for number, (prompt, each) in enumerate(self.asked):
                if done <= (each.max_tokens or 1):
                    yield self._output(self._next_request + number, prompt, each, done)

    def answer(
        self,
        requests: Iterable[Request],
        workload: Workload,
        *,
        stream: bool = False,
        until: Callable[[], bool] | None = None,
    ) -> Iterator[RequestOutput]:
        source, running, passes = iter(requests), dict[str, tuple[Request, int]](), 0
        fails_after = self._fails_after.pop(0) if self._fails_after else None
        while running := running | {
            request.request_id: (request, len(request.begun[0]) if request.begun else 0)
            for request in map(self._drawn, islice(source, self._block_size - len(running)))
        }:
            passes += 1
            if self._ends_after is not None and passes > self._ends_after:
                raise KeyboardInterrupt
            if fails_after is not None and passes > fails_after:
                raise StorageError("model.safetensors cannot be read at byte 0: Input/output error")
            for name, (request, before) in list(running.items()):
                prompt, params = list(request.prompt_token_ids), request.sampling_params
                output = self._output(int(name), prompt, params, before + 1)
                running[name] = request, before + 1
                if output.finished:
                    del running[name]
                if output.finished or stream:
                    yield output
            if until is not None and until():
                return

    def _drawn(self, request: Request) -> Request:
        self.asked.append((list(request.prompt_token_ids), request.sampling_params))
        self.begun.append(request.begun)
        return request

    def generate(self, prompts: Sequence[Mapping[str, list[int]]], params: SamplingParams) -> list[RequestOutput]:
        """Takes a second for the prompts and two for the rest, each time."""
        outputs = [output for output in self.stream(prompts, [params] * len(prompts)) if output.finished]
        steps = (params.max_tokens or 1) - 1
        before = self.report
        self.report = RunReport(
            prefill_tokens=before.prefill_tokens + sum(len(prompt["prompt_token_ids"]) for prompt in prompts),
            prefill_seconds=before.prefill_seconds + 1.0,
            decode_tokens=before.decode_tokens + steps * len(prompts),
            decode_seconds=before.decode_seconds + 2.0,
            decode_passes=before.decode_passes + steps,
        )
        return outputs

    def _output(self, number: int, prompt: list[int], params: SamplingParams, done: int) -> RequestOutput:
        finished = done == (params.max_tokens or 1)
        table = {120: Logprob(-0.5, 2, "x"), 121: Logprob(-0.25, 1, "y")}
        choices = tuple(
            CompletionOutput(
                index=index,
                text="x" * done,
                token_ids=(120,) * done,
                logprobs=None if params.logprobs is None else (table,) * done,
                finish_reason="length" if finished else None,
            )
            for index in range(params.n)
        )
        return RequestOutput(str(number), None, tuple(prompt), choices, finished)
