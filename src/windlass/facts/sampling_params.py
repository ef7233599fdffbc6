"""How a request wants its tokens drawn, in vLLM's spelling; its penalties, biases and prompt logprobs are not here."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields

from windlass.errors import UsageError
from windlass.facts.plain_number import plain_real, plain_whole

# Below this a temperature divides logits by so little that only the largest survives; vLLM draws the same line.
GREEDY_TEMPERATURE = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class SamplingParams:
    """Sampling parameters of one request; every field means what it means in vLLM. Raises UsageError on a bad value.

    Numbers may be numpy's and are kept as Python's. `stop` and `stop_token_ids` stay as they were written;
    `stop_strings` and `stop_ids` say what they mean. Parameters are equal when they mean the same.

    n: answers per prompt. max_tokens: most new tokens (None: to the model's length). min_tokens: no end before these.
    temperature: 0 is greedy. top_p in (0, 1], top_k (0 or -1: off), min_p in [0, 1]: which tokens stay candidates.
    seed: fixes the draws of the request. stop: strings that end an answer, one or several.
    stop_token_ids: ids that end it. ignore_eos: the model's own end ids do not. logprobs: how many alternatives to
    report beside each token (None: none, 0: the token's own). include_stop_str_in_output: keep the stop string.
    """

    n: int = 1
    max_tokens: int | None = 16
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | Sequence[str] | None = ()
    stop_token_ids: Sequence[int] | None = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False

    def __post_init__(self) -> None:
        for name in _WHOLE:
            self._keep(name, plain_whole(getattr(self, name)))
        for name in _REAL:
            self._keep(name, plain_real(getattr(self, name)))
        _strings("stop", self.stop)
        _token_ids("stop_token_ids", self.stop_token_ids)
        self._check_counts()
        self._check_distribution()
        _require_bool("ignore_eos", self.ignore_eos)
        _require_bool("skip_special_tokens", self.skip_special_tokens)
        _require_bool("include_stop_str_in_output", self.include_stop_str_in_output)

    def _keep(self, name: str, number: int | float | None) -> None:
        """A number in place of another library's; what is none stays, to be refused with what it is."""
        if number is not None:
            object.__setattr__(self, name, number)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The strings that end an answer."""
        return _strings("stop", self.stop)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids, beside the model's own, that end an answer."""
        return _token_ids("stop_token_ids", self.stop_token_ids)

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken; top_p, top_k and min_p then change nothing."""
        return self.temperature < GREEDY_TEMPERATURE

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SamplingParams) and self._meaning() == other._meaning()

    def __hash__(self) -> int:
        return hash(self._meaning())

    def _meaning(self) -> tuple[object, ...]:
        written = ("stop", "stop_token_ids")
        plain = tuple(getattr(self, field.name) for field in fields(self) if field.name not in written)
        return (*plain, self.stop_strings, self.stop_ids)

    def _check_counts(self) -> None:
        _require_int("n", self.n, least=1)
        _require_int("min_tokens", self.min_tokens, least=0)
        if self.max_tokens is not None:
            _require_int("max_tokens", self.max_tokens, least=1)
            if self.min_tokens > self.max_tokens:
                raise UsageError(
                    f"min_tokens is {self.min_tokens}, above max_tokens = {self.max_tokens}; "
                    f"lower min_tokens or raise max_tokens"
                )
        if self.logprobs is not None:
            _require_int("logprobs", self.logprobs, least=0)
        if self.seed is not None:
            _require_int("seed", self.seed, least=None)

    def _check_distribution(self) -> None:
        _require_number("temperature", self.temperature)
        if self.temperature < 0:
            raise UsageError(f"temperature must be 0 (greedy) or more, got {self.temperature}; 1.0 samples as trained")
        _require_number("top_p", self.top_p)
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must be above 0 and at most 1, got {self.top_p}; 1.0 switches it off")
        _require_number("min_p", self.min_p)
        if not 0 <= self.min_p <= 1:
            raise UsageError(f"min_p must be between 0 and 1, got {self.min_p}; 0.0 switches it off")
        _require_int("top_k", self.top_k, least=-1)
        if self.is_greedy and self.n > 1:
            raise UsageError(
                f"n is {self.n} with temperature 0, where all answers would be equal; set n=1 or raise temperature"
            )


_WHOLE = ("n", "max_tokens", "min_tokens", "top_k", "seed", "logprobs")
_REAL = ("temperature", "top_p", "min_p")


def _require_int(name: str, value: object, least: int | None) -> None:
    if type(value) is not int:
        raise UsageError(f"{name} must be a whole number, got {value!r} ({type(value).__name__}); write it as {name}=1")
    if least is not None and value < least:
        raise UsageError(f"{name} must be {least} or more, got {value}; write it as {name}={max(least, 1)}")


def _require_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UsageError(
            f"{name} must be a finite number, got {value!r} ({type(value).__name__}); write it as {name}=0.7"
        )


def _require_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be True or False, got {value!r} ({type(value).__name__})")


def _strings(name: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise UsageError(f'{name} must be a string or a list of strings, got {value!r}; write it as {name}=["\\n"]')
    if "" in value:
        raise UsageError(f"{name} holds an empty string, which would end every answer at once; leave it out")
    return tuple(value)


def _token_ids(name: str, value: object) -> tuple[int, ...]:
    if value is None:
        return ()
    if not isinstance(value, Collection) or isinstance(value, (str, bytes, Mapping)):
        raise UsageError(f"{name} must be a list of token ids, got {value!r}; write it as {name}=[2]")
    return tuple(_token_id(name, item) for item in value)


def _token_id(name: str, value: object) -> int:
    token_id = plain_whole(value)
    if token_id is None or token_id < 0:
        raise UsageError(f"{name} holds {value!r}, which is no token id; ids are whole numbers from 0")
    return token_id
