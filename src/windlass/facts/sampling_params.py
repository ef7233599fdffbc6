"""How a request wants its tokens drawn, in vLLM's spelling."""

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, fields

from windlass.errors import RequestError, UsageError
from windlass.facts.plain_number import plain_real, plain_whole
from windlass.facts.sampling_refusals import refuse_foreign
from windlass.facts.sampling_values import (
    read_biases,
    read_strings,
    read_token_ids,
    require_bool,
    require_number,
    require_whole,
)
from windlass.facts.structured_outputs import StructuredOutputsParams, read_structured_outputs

# Below this a temperature divides logits by so little that only the largest survives; vLLM draws the same line.
GREEDY_TEMPERATURE = 1e-5
# vLLM's limit on the answers to a prompt; each holds memory from the first to the last pass.
MOST_ANSWERS = 16384
# OpenAI's limits on a bias and on the presence and frequency penalties.
MOST_BIAS = 100.0
MOST_PENALTY = 2.0
# A logit is multiplied or divided by this one; far beyond what anybody wants, and far from where float32 overflows.
MOST_REPETITION_PENALTY = 1e4

_WHOLE = ("n", "max_tokens", "min_tokens", "top_k", "seed", "logprobs", "prompt_logprobs")
_REAL = ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
# Fields that may be written in more than one way, and mean what the properties say.
_WRITTEN = ("stop", "stop_token_ids", "logit_bias", "allowed_token_ids", "bad_words")


@dataclass(frozen=True, slots=True, eq=False)
class SamplingParams:
    """Sampling parameters of one request; every field means what it means in vLLM. Raises UsageError on a bad value.

    Numbers may be numpy's or torch's and are kept as Python's. Fields that may be written in several ways stay as they
    were written; `stop_strings`, `stop_ids`, `biases`, `allowed_ids` and `bad_strings` say what they mean. Parameters
    are equal when they mean the same. What is named from `best_of` on does not exist here: such a name is taken
    at the value that asks for nothing.

    n: answers per prompt. max_tokens: most new tokens (None: to the model's length). min_tokens: no end before these.
    temperature: 0 is greedy. top_p in (0, 1], top_k (0 or -1: off), min_p in [0, 1]: which tokens stay candidates.
    seed: fixes the draws of the request. stop: strings that end an answer, one or several.
    stop_token_ids: ids that end it. ignore_eos: the model's own end ids do not. logprobs: how many alternatives to
    report beside each token (None: none, 0: the token's own). prompt_logprobs: the same for the prompt's tokens.
    include_stop_str_in_output: keep the stop string. repetition_penalty: above 1 makes tokens of prompt and answer less
    likely. presence_penalty, frequency_penalty: taken off the logits of the answer's tokens, once or for each time.
    logit_bias: added to the logits of ids.
    allowed_token_ids: only these may come. bad_words: texts whose own tokens may not come in a row.
    structured_outputs: the form that the answer must have; a mapping is read as its fields.
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
    prompt_logprobs: int | None = None
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] | None = None
    allowed_token_ids: Sequence[int] | None = None
    bad_words: Sequence[str] | None = None
    structured_outputs: StructuredOutputsParams | None = None
    best_of: InitVar[object] = None
    use_beam_search: InitVar[object] = None
    length_penalty: InitVar[object] = None
    early_stopping: InitVar[object] = None
    spaces_between_special_tokens: InitVar[object] = None
    detokenize: InitVar[object] = None
    guided_decoding: InitVar[object] = None
    logits_processors: InitVar[object] = None
    truncate_prompt_tokens: InitVar[object] = None
    extra_args: InitVar[object] = None

    def __post_init__(self, *foreign: object) -> None:
        refuse_foreign(foreign)
        for name in _WHOLE:
            self._keep(name, plain_whole(getattr(self, name)))
        for name in _REAL:
            self._keep(name, plain_real(getattr(self, name)))
        object.__setattr__(self, "structured_outputs", read_structured_outputs(self.structured_outputs))
        self._check_texts_and_ids()
        self._check_counts()
        self._check_distribution()
        self._check_penalties()
        require_bool("ignore_eos", self.ignore_eos)
        require_bool("skip_special_tokens", self.skip_special_tokens)
        require_bool("include_stop_str_in_output", self.include_stop_str_in_output)

    def _keep(self, name: str, number: int | float | None) -> None:
        """A number in place of another library's; what is none stays, to be refused with what it is."""
        if number is not None:
            object.__setattr__(self, name, number)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The strings that end an answer."""
        return read_strings("stop", self.stop)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids, beside the model's own, that end an answer."""
        return read_token_ids("stop_token_ids", self.stop_token_ids)

    @property
    def biases(self) -> tuple[tuple[int, float], ...]:
        """What is added to the logits: pairs of id and bias, by id."""
        return read_biases("logit_bias", self.logit_bias, MOST_BIAS)

    @property
    def allowed_ids(self) -> tuple[int, ...]:
        """The only ids that may come; none where all may."""
        return tuple(sorted(set(read_token_ids("allowed_token_ids", self.allowed_token_ids))))

    @property
    def bad_strings(self) -> tuple[str, ...]:
        """Texts that may not come."""
        return read_strings("bad_words", self.bad_words)

    @property
    def has_penalties(self) -> bool:
        """Whether what was said changes what may come."""
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0

    @property
    def changes_logits(self) -> bool:
        """Whether logits are changed before a token is drawn, greedily or not."""
        return self.has_penalties or bool(self.logit_bias) or self.allowed_token_ids is not None

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raises RequestError for ids that a model of `vocab_size` ids does not have."""
        for name, ids in (
            ("logit_bias", tuple(token_id for token_id, _ in self.biases)),
            ("allowed_token_ids", self.allowed_ids),
        ):
            if ids and max(ids) >= vocab_size:
                raise RequestError(
                    f"{name} holds token id {max(ids)}; the model has ids from 0 to {vocab_size - 1}: encode with this "
                    "model's tokenizer"
                )

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken; top_p, top_k and min_p then change nothing."""
        return self.temperature < GREEDY_TEMPERATURE

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SamplingParams) and self._meaning() == other._meaning()

    def __hash__(self) -> int:
        return hash(self._meaning())

    def _meaning(self) -> tuple[object, ...]:
        plain = tuple(getattr(self, field.name) for field in fields(self) if field.name not in _WRITTEN)
        return (*plain, self.stop_strings, self.stop_ids, self.biases, self.allowed_ids, self.bad_strings)

    def _check_texts_and_ids(self) -> None:
        read_token_ids("stop_token_ids", self.stop_token_ids)
        read_biases("logit_bias", self.logit_bias, MOST_BIAS)
        if "" in self.stop_strings:
            raise UsageError("stop holds an empty string, which would end every answer at once; leave it out")
        if any(not word.strip() for word in self.bad_strings):
            raise UsageError("bad_words holds a text of nothing but spaces; leave it out")
        if self.allowed_token_ids is not None and not self.allowed_ids:
            raise UsageError("allowed_token_ids is empty, so no token could come; name at least one, or leave it out")

    def _check_counts(self) -> None:
        require_whole("n", self.n, least=1)
        if self.n > MOST_ANSWERS:
            raise UsageError(f"n must be at most {MOST_ANSWERS}, got {self.n}; give the prompt several times")
        require_whole("min_tokens", self.min_tokens, least=0)
        if self.max_tokens is not None:
            require_whole("max_tokens", self.max_tokens, least=1)
            if self.min_tokens > self.max_tokens:
                raise UsageError(
                    f"min_tokens is {self.min_tokens}, above max_tokens = {self.max_tokens}; "
                    f"lower min_tokens or raise max_tokens"
                )
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                require_whole(name, getattr(self, name), least=0)
        if self.seed is not None:
            require_whole("seed", self.seed, least=None)

    def _check_distribution(self) -> None:
        require_number("temperature", self.temperature)
        if self.temperature < 0:
            raise UsageError(f"temperature must be 0 (greedy) or more, got {self.temperature}; 1.0 samples as trained")
        require_number("top_p", self.top_p)
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must be above 0 and at most 1, got {self.top_p}; 1.0 switches it off")
        require_number("min_p", self.min_p)
        if not 0 <= self.min_p <= 1:
            raise UsageError(f"min_p must be between 0 and 1, got {self.min_p}; 0.0 switches it off")
        require_whole("top_k", self.top_k, least=-1)
        if self.is_greedy and self.n > 1:
            raise UsageError(
                f"n is {self.n} with temperature 0, where all answers would be equal; set n=1 or raise temperature"
            )

    def _check_penalties(self) -> None:
        require_number("repetition_penalty", self.repetition_penalty)
        if self.repetition_penalty <= 0:
            raise UsageError(
                f"repetition_penalty must be above 0, got {self.repetition_penalty}; 1.0 switches it off, 1.1 is usual"
            )
        if not 1 / MOST_REPETITION_PENALTY <= self.repetition_penalty <= MOST_REPETITION_PENALTY:
            raise UsageError(
                f"repetition_penalty must be between {1 / MOST_REPETITION_PENALTY} and {MOST_REPETITION_PENALTY}, got "
                f"{self.repetition_penalty}; 1.0 switches it off, 1.1 is usual"
            )
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            require_number(name, value)
            if not -MOST_PENALTY <= value <= MOST_PENALTY:
                raise UsageError(f"{name} must be between -2 and 2, got {value}; 0.0 switches it off")
