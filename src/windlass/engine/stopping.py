"""Decides after each token whether an answer has ended, and which of its text may be shown.

Text that may yet be the beginning of a stop string is held back, so that nothing shown is ever taken away.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from windlass.errors import UsageError
from windlass.facts.completion import FinishReason
from windlass.facts.sampling_params import SamplingParams
from windlass.model.detokenizer import Detokenizer


@dataclass(frozen=True, slots=True)
class Finish:
    """Why an answer ended. `stop_reason` is the stop string or stop id; None for an end id, a whole form, and length.

    An answer that cannot be had in its form is cut, as by its length, and `stop_reason` says why.
    """

    reason: FinishReason
    stop_reason: int | str | None = None


class StopCheck:
    """Follows one growing answer: `take` each new id until it returns a Finish; `text` is what may be shown.

    end_token_ids: the model's end ids. max_tokens: most new tokens, the request's and the model's limit taken
    together. detokenizer: a fresh one. Raises UsageError for stop strings where the model has no tokenizer,
    and where min_tokens leaves nothing of the allowed ids.

    Stop strings are looked for in what tokens after the first min_tokens add; of several the one that is complete
    first wins, and of those the longest. The id that ends an answer adds no text unless the stop is to be included.
    """

    def __init__(
        self,
        params: SamplingParams,
        end_token_ids: Sequence[int],
        max_tokens: int,
        detokenizer: Detokenizer,
    ) -> None:
        self._params = params
        self._stops = params.stop_strings
        if self._stops and not detokenizer.has_text:
            raise UsageError(
                f"stop={list(self._stops)!r} needs text, and this model has no tokenizer; use stop_token_ids"
            )
        self._end_ids = frozenset() if params.ignore_eos else frozenset(end_token_ids)
        self._stop_ids = frozenset(params.stop_ids)
        if params.min_tokens and params.allowed_ids and self._end_ids | self._stop_ids >= set(params.allowed_ids):
            raise UsageError(
                f"allowed_token_ids holds only ids that end an answer, and min_tokens={params.min_tokens} bans these; "
                "allow more, or set min_tokens=0"
            )
        self._max_tokens = max_tokens
        self._detokenizer = detokenizer
        self._longest = max(map(len, self._stops), default=0)
        self._shown: list[str] = []
        self._held = ""  # text that may be the beginning of a stop string
        self.token_count = 0
        self.finish: Finish | None = None

    @property
    def text(self) -> str:
        """What may be shown: after the end, all the text of the answer."""
        self._shown = ["".join(self._shown)]
        return self._shown[0]

    @property
    def banned_token_ids(self) -> tuple[int, ...]:
        """Ids that may not come next, as min_tokens is not reached."""
        if self.token_count >= self._params.min_tokens:
            return ()
        return tuple(sorted(self._end_ids | self._stop_ids))

    def take(self, token_id: int, is_whole: bool = False) -> Finish | None:
        """Adds the next id; tells how the answer ended, or None where it goes on. A whole one may not go on."""
        assert self.finish is None, "the answer has ended"
        self.token_count += 1
        self.finish = self._ended_by_id(token_id) or self._ended_by_text(token_id)
        if self.finish is None and (is_whole or self.token_count >= self._max_tokens):
            self._show_rest("")
            self.finish = Finish("stop" if is_whole else "length")
        return self.finish

    def cut(self, reason: str) -> None:
        """Ends the answer as it is: no token can go on with it."""
        self._show_rest("")
        self.finish = Finish("length", reason)

    def _ended_by_id(self, token_id: int) -> Finish | None:
        is_stop = token_id in self._stop_ids
        if self.token_count <= self._params.min_tokens or not (is_stop or token_id in self._end_ids):
            return None
        self._show_rest(self._detokenizer.push(token_id) if self._params.include_stop_str_in_output else "")
        return Finish("stop", token_id if is_stop else None)

    def _ended_by_text(self, token_id: int) -> Finish | None:
        self._held += self._detokenizer.push(token_id)
        found = None
        if self.token_count > self._params.min_tokens:
            found = self._first_stop(self._held + self._detokenizer.pending)
        if found is None:
            start = len(self._held) - self._possible_beginning(self._held)
            self._show(self._held[:start])
            self._held = self._held[start:]
            return None
        before, stop = found
        self._show(before + stop if self._params.include_stop_str_in_output else before)
        self._held = ""
        return Finish("stop", stop)

    def _first_stop(self, text: str) -> tuple[str, str] | None:
        """The text before the stop string that is complete first, and that stop string."""
        places = [(start + len(stop), start, stop) for stop in self._stops if (start := text.find(stop)) >= 0]
        if not places:
            return None
        _, start, stop = min(places)
        return text[:start], stop

    def _possible_beginning(self, text: str) -> int:
        """Length of the longest end of the text that some stop string begins with, short of the whole of it."""
        for size in range(min(len(text), self._longest - 1), 0, -1):
            if any(len(stop) > size and stop.startswith(text[-size:]) for stop in self._stops):
                return size
        return 0

    def _show(self, text: str) -> None:
        if text:
            self._shown.append(text)

    def _show_rest(self, delta: str) -> None:
        self._show(self._held + delta + self._detokenizer.flush())
        self._held = ""
