"""What the passes of a service should give on this machine, where `windlass doctor` has measured it."""

from collections.abc import Sequence
from contextlib import suppress

from windlass.engine.block_state import BlockState
from windlass.engine.llm import LLM
from windlass.errors import UsageError
from windlass.facts.plan import Plan
from windlass.facts.work_done import WorkDone


class Outlook:
    """Forecasts passes, each kind of them once. Passes of the same powers of two of tokens are of a kind."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        self._plan: Plan | None = None
        self._seconds: dict[tuple[int, int], float | None] = {}

    def tokens_per_second(self, passes: Sequence[BlockState], plan: Plan) -> float | None:
        """Tokens of answers a second, over what passes have done; the first is where counting begins."""
        if self._llm.foresight is None or len(passes) < 2:
            return None
        if plan is not self._plan:
            self._plan, self._seconds = plan, {}
        seconds = [self._seconds_of(each, plan) for each in passes[1:]]
        known = [each for each in seconds if each is not None]
        tokens = passes[-1].generated_tokens - passes[0].generated_tokens
        total = sum(known)
        return tokens / total if len(known) == len(seconds) and total else None

    def _seconds_of(self, state: BlockState, plan: Plan) -> float | None:
        done = state.last_pass
        if done is None:
            return None
        if done.kind not in self._seconds:
            self._seconds[done.kind] = None
            context = state.stored_tokens // max(1, state.running)
            work = WorkDone(1, max(1, done.drawn), max(1, context, done.read), 1, (done,))
            assert self._llm.foresight is not None
            with suppress(UsageError):  # a machine without a rate that the plan depends on
                forecast = self._llm.foresight.of(work, self._llm.opened.facts, plan)
                self._seconds[done.kind] = forecast.prefill.seconds + forecast.decode.seconds
        return self._seconds[done.kind]
