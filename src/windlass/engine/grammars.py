"""Grammars of one model: a form that is asked for is compiled once, and each answer gets a state of its own.

llguidance compiles and matches; it is told how this model's tokens are spelled. What it may spend is limited, as a form
may come from a stranger.
"""

import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from windlass.engine.grammar import Compiled, Grammar, Mask, unpacked
from windlass.engine.grammar_refusal import refusal
from windlass.errors import RequestError
from windlass.facts.structured_outputs import StructuredOutputsParams
from windlass.model.guidance import load_guidance
from windlass.model.tokenizer import AnyTokenizer

# Forms that stay compiled: those of one batch are few, and each takes up to some megabytes.
MOST_KEPT = 32
# States of a lexer take one or two kB each. The rest of what llguidance may spend is as its makers chose it.
MOST_STATES = 20_000
MOST_SYMBOLS = 100_000


class Grammars:
    """`vocab_size` is that of the logits, `end_token_ids` end an answer. Threads may ask at once."""

    def __init__(self, tokenizer: AnyTokenizer, vocab_size: int, end_token_ids: tuple[int, ...]) -> None:
        self._words, self._vocab_size, self._end_token_ids = tokenizer, vocab_size, end_token_ids
        self._lock, self._workers_lock = threading.Lock(), threading.Lock()  # a pass waits for no compiler
        self._tokenizer: Any = None
        self._compiled: OrderedDict[StructuredOutputsParams, Compiled] = OrderedDict()
        self._worker: ThreadPoolExecutor | None = None

    def check(self, asked: StructuredOutputsParams) -> None:
        """Raises RequestError for a form that cannot be followed, UsageError where this model can follow none."""
        self.shared(asked)

    def begin(self, asked: StructuredOutputsParams) -> Grammar:
        """For one answer. Raises as check does."""
        self.check(asked)
        return Grammar(_AskedForm(self, asked), self._tokenizer.eos_tokens, self._submit)

    def close(self) -> None:
        """Ends the worker. The next answer has another."""
        with self._workers_lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.shutdown()

    def _submit(self, work: Any) -> "Future[Mask]":
        with self._workers_lock:
            if self._worker is None:
                self._worker = ThreadPoolExecutor(1, thread_name_prefix="windlass-grammar")
            return self._worker.submit(work)

    def shared(self, asked: StructuredOutputsParams, other_than: Compiled | None = None) -> Compiled:
        """What stays compiled, or is now; another than one that is used up."""
        with self._lock:
            found = self._compiled.get(asked)
            if found is None or found is other_than:
                found = self._compiled[asked] = self._compile(asked)
                while len(self._compiled) > MOST_KEPT:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(asked)
            return found

    def alone(self, asked: StructuredOutputsParams) -> Compiled:
        """Compiled for one answer."""
        with self._lock:
            return self._compile(asked)

    def _compile(self, asked: StructuredOutputsParams) -> Compiled:
        library = load_guidance()
        if self._tokenizer is None:
            self._tokenizer = self._spelled(library)
        matcher = self._matcher(library, _grammar_of(library, asked))
        first = unpacked(matcher, self._vocab_size)
        if matcher.is_error():
            said = refusal(asked, matcher.get_error(), lambda text: self._refused(library, asked, text))
            raise RequestError(said, "structured_outputs")
        if not first.any():
            raise RequestError(
                f"the {asked.kind} cannot be followed: no token of this model's vocabulary begins it",
                "structured_outputs",
            )
        return Compiled(matcher, first)

    def _matcher(self, library: Any, grammar: str) -> Any:
        limits = library.LLParserLimits(
            max_lexer_states=MOST_STATES, max_grammar_size=MOST_SYMBOLS, verbose_errors=False
        )
        return library.LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits)

    def _refused(self, library: Any, asked: StructuredOutputsParams, schema: str) -> str:
        """What is said about another schema."""
        said: str = self._matcher(library, _json_grammar(library, schema, asked.space)).get_error()
        return said

    def _spelled(self, library: Any) -> Any:
        """The model's tokens as llguidance wants them. Raises UsageError for a tokenizer that it cannot read."""
        written, known = self._words.as_json(), self._words.vocab_size
        ends = [token_id for token_id in self._end_token_ids if token_id < max(known, self._vocab_size)]
        try:
            return library.LLTokenizer(written, n_vocab=max(known, self._vocab_size), eos_token=ends or None)
        except ValueError as error:
            raise RequestError(
                f"this model's tokenizer is of a kind that no form of answers can be made for ({error!s:.100}); ask "
                "for text",
                "structured_outputs",
            ) from error


@dataclass(frozen=True, slots=True)
class _AskedForm:
    """A Form."""

    grammars: Grammars
    asked: StructuredOutputsParams

    def shared(self, other_than: Compiled | None = None) -> Compiled:
        return self.grammars.shared(self.asked, other_than)

    def alone(self) -> Compiled:
        return self.grammars.alone(self.asked)


def _grammar_of(library: Any, asked: StructuredOutputsParams) -> str:
    """In llguidance's own form. Raises RequestError for a grammar that is not one."""
    try:
        match asked.kind:
            case "json" | "json_object":
                return _json_grammar(library, str(asked.form), asked.space)
            case "regex":
                return str(library.LLMatcher.grammar_from_regex(asked.form))
            case "choice":
                return str(library.grammar_from("choice", list(asked.form)))
        return str(library.grammar_from("grammar", asked.form))
    except ValueError as error:
        raise RequestError(refusal(asked, str(error), lambda text: ""), "structured_outputs") from error


def _json_grammar(library: Any, schema: str, space: str) -> str:
    # All options there are, and last, so that no schema can change one by a member of its own ("x-guidance").
    options = {
        "whitespace_flexible": bool(space), "whitespace_pattern": space or None, "lenient": False,
        "item_separator": ",", "key_separator": ":", "coerce_one_of": False,
    }  # fmt: skip
    grammar: str = library.LLMatcher.grammar_from_json_schema(schema, overrides=options)
    return grammar
