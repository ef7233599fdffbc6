"""The work that a call has really done, and the forecast of just that: a promise is kept or broken for equal work."""

from dataclasses import dataclass, replace

from windlass.facts.forecast import Forecast, PhaseForecast
from windlass.facts.workload import Workload


@dataclass(frozen=True, slots=True)
class PassesDone:
    """`passes` passes that were much alike: `read` tokens of prompts and `drawn` tokens decoded in all of them."""

    passes: int = 0
    read: int = 0
    drawn: int = 0

    @property
    def kind(self) -> tuple[int, int]:
        """Those of the same powers of two are counted together."""
        return (self.read // max(1, self.passes)).bit_length(), (self.drawn // max(1, self.passes)).bit_length()

    def joined(self, other: "PassesDone") -> "PassesDone":
        """Both."""
        return PassesDone(self.passes + other.passes, self.read + other.read, self.drawn + other.drawn)


@dataclass(frozen=True, slots=True)
class WorkDone:
    """`prompts` were read for `sequences` answers; `prompt_len` and `gen_len` are tokens of a sequence on average.

    Of prompts that were `scored` nothing was generated.
    """

    prompts: int
    sequences: int
    prompt_len: int
    gen_len: int
    passes: tuple[PassesDone, ...]
    scored: bool = False

    @property
    def read_tokens(self) -> int:
        """Tokens of prompts that went through the model: what was known already is not among them."""
        return sum(each.read for each in self.passes)

    @property
    def drawn_tokens(self) -> int:
        """Tokens that were decoded: all of the answers but the first of each."""
        return sum(each.drawn for each in self.passes)

    @property
    def mean_own(self) -> float:
        """Tokens of a prompt that were read, on average."""
        return self.read_tokens / max(1, self.prompts)

    @property
    def workload(self) -> Workload:
        """The nearest work of equal sequences."""
        known = max(0, self.prompt_len - round(self.mean_own))
        prompts = max(1, self.prompts)
        lens, shared = ((self.prompt_len,) * prompts, (known,) * prompts) if known else ((), ())
        return Workload(prompts, self.prompt_len, self.gen_len, lens, scored=self.scored, shared_lens=shared)


def together(first: Forecast, second: Forecast) -> Forecast:
    """One after the other, loaded once."""
    return replace(
        first,
        prefill=_sum(first.prefill, second.prefill),
        decode=_sum(first.decode, second.decode),
        low=min(first.low, second.low),
        high=max(first.high, second.high),
    )


def _sum(first: PhaseForecast, second: PhaseForecast) -> PhaseForecast:
    names = dict.fromkeys((*first.lanes, *second.lanes))
    return PhaseForecast(
        first.tokens + second.tokens,
        first.passes + second.passes,
        first.seconds + second.seconds,
        {lane: first.lanes.get(lane, 0.0) + second.lanes.get(lane, 0.0) for lane in names},
    )
