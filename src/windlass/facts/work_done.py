"""The work that a call has really done, and the forecast of just that: a promise is kept or broken for equal work."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from windlass.facts.forecast import Forecast, PhaseForecast
from windlass.facts.workload import Workload


@dataclass(frozen=True, slots=True)
class WorkDone:
    """`prompts` were read for `sequences` answers; `prompt_len` and `gen_len` are tokens of a sequence on average.

    Tokens and passes are counted by phase, as in a RunReport. Of prompts that were `scored` nothing was generated.
    """

    prompts: int
    sequences: int
    prompt_len: int
    gen_len: int
    prefill_tokens: int
    prefill_passes: int
    decode_tokens: int
    decode_passes: int
    scored: bool = False

    @property
    def workload(self) -> Workload:
        """The nearest work of equal sequences."""
        gen_len = max(self.gen_len, 2 if self.decode_passes else 1)
        return Workload(self.sequences, self.prompt_len, gen_len, scored=self.scored)


def forecast_of(done: WorkDone, forecast: Callable[[Workload], Forecast]) -> Forecast:
    """What `forecast` says of equal sequences, scaled to what was done.

    Prefill goes by tokens. Decode goes by passes, of which uneven sequences take more than even ones: a pass that has
    fewer of them still reads every weight.
    """
    even = forecast(done.workload)
    reading = even
    if done.prompts != done.sequences:
        reading = forecast(replace(done.workload, num_prompts=max(1, done.prompts)))
    prefill = _scaled(reading.prefill, done.prefill_tokens, reading.prefill.tokens)
    decode = _scaled(even.decode, done.decode_passes, even.decode.passes)
    return replace(
        even,
        prefill=replace(prefill, tokens=done.prefill_tokens, passes=done.prefill_passes),
        decode=replace(decode, tokens=done.decode_tokens, passes=done.decode_passes),
    )


def together(first: Forecast, second: Forecast) -> Forecast:
    """One after the other, loaded once."""
    return replace(
        first,
        prefill=_sum(first.prefill, second.prefill),
        decode=_sum(first.decode, second.decode),
        low=min(first.low, second.low),
        high=max(first.high, second.high),
    )


def _scaled(phase: PhaseForecast, done: int, forecast: int) -> PhaseForecast:
    """A phase that takes `done / forecast` of its time."""
    factor = done / forecast if forecast else 0.0
    lanes = {lane: seconds * factor for lane, seconds in phase.lanes.items()}
    return replace(phase, seconds=phase.seconds * factor, lanes=lanes)


def _sum(first: PhaseForecast, second: PhaseForecast) -> PhaseForecast:
    names = dict.fromkeys((*first.lanes, *second.lanes))
    return PhaseForecast(
        first.tokens + second.tokens,
        first.passes + second.passes,
        first.seconds + second.seconds,
        {lane: first.lanes.get(lane, 0.0) + second.lanes.get(lane, 0.0) for lane in names},
    )
