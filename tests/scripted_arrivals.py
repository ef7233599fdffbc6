"""Requests that come to a running block at passes that a test names, with all that the block tells meanwhile."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from windlass.engine.block_state import BlockState
from windlass.engine.llm import LLM
from windlass.errors import UsageError
from windlass.facts.completion import RequestOutput
from windlass.facts.request import Request
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload


class ScriptedArrivals:
    """`script` has what comes once so many passes are over, `gone` who is given up then; closed when all has ended."""

    def __init__(
        self, script: Mapping[int, Sequence[Request]], gone: Mapping[int, Sequence[str]] | None = None
    ) -> None:
        self._coming = [(at, request) for at in sorted(script) for request in script[at]]
        self._gone = dict(gone or {})
        self._passes, self._before = 0, -1
        self.closed = False
        self.states: list[BlockState] = []
        self.entered: list[tuple[int, str]] = []
        self.errors: dict[str, UsageError] = {}

    def next(self, idle: bool) -> Request | None:
        if self._coming and (idle or self._coming[0][0] <= self._passes):
            return self._coming.pop(0)[1]
        self.closed = self.closed or (idle and not self._coming)
        return None

    def withdrawn(self) -> Collection[str]:
        return [request_id for at in [*self._gone] if at <= self._passes for request_id in self._gone.pop(at)]

    def refused(self, request_id: str, error: UsageError) -> None:
        self.errors[request_id] = error

    def tell(self, state: BlockState) -> None:
        if self._before < 0:
            self._before = state.passes  # of an engine that has answered others
        self._passes = state.passes - self._before
        self.states.append(state)
        self.entered += [(self._passes, request_id) for request_id in state.entered]


def request(number: int, prompt: Sequence[int], params: SamplingParams, priority: int = 0) -> Request:
    """Numbered, so that it can be told from the others."""
    return Request(str(number), None, tuple(prompt), params, priority=priority)


def served(llm: LLM, arrivals: ScriptedArrivals, workload: Workload) -> dict[str, RequestOutput]:
    """The last output of each request. What was stored for them has been given back then, and every page is counted."""
    outputs = {output.request_id: output for output in llm.serve(arrivals, workload)}
    table = llm._engine.cache.table
    table.check()
    assert table.room == table.num_pages and not table.pages
    assert arrivals.states[-1].running == arrivals.states[-1].waiting == 0
    return outputs


def alone(llm: LLM, asked: Sequence[Request]) -> dict[str, RequestOutput]:
    """Each request without any other in the block, seeded by its number as it is when it is served."""
    found = {}
    for each in asked:
        workload = Workload(1, len(each.prompt_token_ids), each.sampling_params.max_tokens or 1)
        (output,) = llm.answer([replace(each, priority=0)], workload)
        found[each.request_id] = output
    return found
