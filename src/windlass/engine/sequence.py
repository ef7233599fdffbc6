"""One answer being generated: its tokens, its place in the cache, and when it ends."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from windlass.engine.grammar import Grammar
from windlass.engine.logit_changes import LogitChanges
from windlass.engine.prompt_scan import PromptScan
from windlass.engine.reader import Reader
from windlass.engine.row import RowSpan
from windlass.engine.sampler import SampledToken, SamplerRow
from windlass.engine.stopping import StopCheck
from windlass.engine.token_texts import with_text
from windlass.facts.completion import CompletionOutput, Logprob
from windlass.facts.request import Request
from windlass.model.tokenizer import AnyTokenizer


@dataclass(slots=True, eq=False)
class Sequence:
    """One of the `n` answers to a request. `cached` counts the tokens whose keys and values are stored.

    While a `leader` is set, they are being stored for that one, and this one waits.

    With a `tokenizer` the candidates of logprobs are given their text. `bad_words` are runs of ids that may not come.
    A `scan` takes the log probabilities of the prompt while this one reads it. A `grammar` holds the answer to a form.
    """

    number: int
    request: Request
    sample_index: int
    seed: int
    stop: StopCheck
    max_tokens: int
    cached: int = 0
    turned: bool = False
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    cumulative_logprob: float = 0.0
    tokenizer: AnyTokenizer | None = None
    bad_words: tuple[tuple[int, ...], ...] = ()
    scan: PromptScan | None = None
    grammar: Grammar | None = None
    changes: LogitChanges | None = field(init=False, default=None)
    leader: Reader | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.request.sampling_params.changes_logits:
            self.changes = LogitChanges(self.request.sampling_params, self.request.prompt_token_ids)

    @property
    def length(self) -> int:
        """Prompt and answer so far, in tokens."""
        return len(self.request.prompt_token_ids) + len(self.token_ids)

    @property
    def tokens_left(self) -> int:
        """Tokens that must go through the model before the next one can be drawn: 1 while it simply decodes."""
        return self.length - self.cached

    @property
    def most_tokens(self) -> int:
        """Tokens whose keys and values may have to be stored: the last one generated is never fed back."""
        return len(self.request.prompt_token_ids) + self.max_tokens - 1

    @property
    def has_begun(self) -> bool:
        """Whether the answer has a token."""
        return bool(self.token_ids)

    @property
    def scans(self) -> bool:
        """Whether log probabilities of the prompt are still to come."""
        return self.scan is not None and not self.scan.finished

    @property
    def shareable(self) -> int:
        """All but the last, since the next token is drawn from what comes out of it; a scan wants something of each."""
        return 0 if self.scans else self.length - 1

    @property
    def finished(self) -> bool:
        """Whether the answer has ended."""
        return self.stop.finish is not None

    @property
    def decodes(self) -> bool:
        """Whether its next token follows from the one before it alone, all else being stored."""
        return bool(self.token_ids) and self.tokens_left == 1 and self.leader is None

    def next_span(self, most: int) -> RowSpan:
        """The next `most` or fewer tokens that are due; a scan wants the logits of all, a draw of the last of all."""
        ids = self.ids(self.cached, min(self.cached + most, self.length))
        wanted = len(ids) if self.scans else int(self.cached + len(ids) == self.length)
        return RowSpan(self.number, ids, self.cached, self.length, wanted)

    def draws_after(self, span: RowSpan) -> bool:
        """Whether the next token is drawn from what comes out of a span."""
        return span.context + len(span.token_ids) == self.length

    def read_again(self) -> None:
        """Forgets keys and values, so that the whole sequence goes through the model once more."""
        self.cached = 0

    def set_aside(self) -> None:
        """Leaves its place to another, with nothing stored; its tokens, and how it draws, stay as they are."""
        self.cached, self.leader = 0, None

    def turn(self, length: int) -> None:
        """Reads again, once, when what is stored was made for sequences of at most `length` tokens and it outgrew that.

        Reading again may take several passes, on the way through which less than `length` tokens are stored.
        """
        if not self.turned and self.cached <= length < self.length:
            self.turned = True
            self.read_again()

    def ids(self, start: int, stop: int) -> list[int]:
        """Tokens of prompt and answer, by their places in both."""
        prompt = self.request.prompt_token_ids
        if start >= len(prompt):
            return self.token_ids[start - len(prompt) : max(0, stop - len(prompt))]
        return [*prompt[start:stop], *self.token_ids[: max(0, stop - len(prompt))]]

    def sampler_row(self) -> SamplerRow:
        """How the next token is drawn."""
        banned = self.stop.banned_token_ids + self._ends_of_bad_words()
        step, params, allowed = len(self.token_ids), self.request.sampling_params, None
        if self.grammar is not None:
            allowed = self.grammar.allowed(banned, params.allowed_ids, params.ignore_eos)
            banned = ()  # and what the form leaves when all of these are taken away
        return SamplerRow(params, self.seed, self.sample_index, step, banned, self.changes, allowed)

    def _ends_of_bad_words(self) -> tuple[int, ...]:
        """Ids that would complete a bad word, all of it within the answer."""
        said = self.token_ids
        return tuple(word[-1] for word in self.bad_words if len(word) == 1 or said[-len(word) + 1 :] == list(word[:-1]))

    def replay(self, token_ids: Iterable[int]) -> None:
        """Takes tokens of an earlier run, as if they had been drawn here; what follows goes on from them."""
        for token_id in token_ids:
            if not self.finished:
                self._add(SampledToken(token_id))

    def take(self, token: SampledToken) -> None:
        """Adds a drawn token, unless the answer cannot be had in its form: then it ends before it."""
        self._add(token)
        if self.grammar is not None and not self.finished:
            self.grammar.prepare()

    def _add(self, token: SampledToken) -> None:
        if self.grammar is not None:
            self.grammar.take(token.token_id)
            if self.grammar.failure is not None:
                self.stop.cut(f"its form cannot be kept: {self.grammar.failure}")
                return
        self.token_ids.append(token.token_id)
        if self.changes is not None:
            self.changes.take(token.token_id)
        if token.top_logprobs is not None:
            self.logprobs.append(with_text(token.top_logprobs, self.tokenizer))
            self.cumulative_logprob += token.logprob or 0.0
        self.stop.take(token.token_id, self.grammar is not None and self.grammar.is_complete)

    def output(self) -> CompletionOutput:
        """The answer so far."""
        finish, asked = self.stop.finish, self.request.sampling_params.logprobs is not None
        return CompletionOutput(
            index=self.sample_index,
            text=self.stop.text,
            token_ids=tuple(self.token_ids),
            cumulative_logprob=self.cumulative_logprob if asked else None,
            logprobs=tuple(self.logprobs) if asked else None,
            finish_reason=finish.reason if finish else None,
            stop_reason=finish.stop_reason if finish else None,
        )
