"""The form of one growing answer: which tokens may come next, and whether it is whole.

The next mask is worked out by a thread beside the pass in which the model computes the next logits. It depends on the
tokens alone, so nothing changes whether it was there in time.

V vocabulary of the model.
"""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
"""(V,): whether an id may come."""
Submit = Callable[[Callable[[], Mask]], "Future[Mask]"]

A_DEAD_END = "no token of this model's vocabulary goes on with it"


class Compiled(NamedTuple):
    """A matcher of llguidance that has seen no token, and the ids that may come first."""

    matcher: Any
    first: Mask


class Form(Protocol):
    """What an answer is held to."""

    def shared(self, other_than: Compiled | None = None) -> Compiled:
        """What answers in one form copy: they share the states of a lexer, whose number is limited."""

    def alone(self) -> Compiled:
        """For one answer."""


class Grammar:
    """Of one answer. `submit` has the worker work.

    `failure` says why the form cannot be followed to its end, if so: the library's limits were reached, or no token
    goes on. It is then for the caller to end the answer. The limits are those of this answer: where others have used
    up what they share, it goes on with another copy, and at last by itself.
    """

    def __init__(self, form: Form, end_token_ids: Sequence[int], submit: Submit) -> None:
        self._form, self._submit, self._origin = form, submit, form.shared()
        self._size = self._origin.first.size
        self._ends = np.array([token_id for token_id in end_token_ids if token_id < self._size], dtype=np.int64)
        self._matcher: Any = None
        self._tokens: list[int] = []
        self._next: Future[Mask] | None = None
        self._again = [lambda: form.shared(self._origin), form.alone]
        self.failure: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the answer has its form and nothing may be added."""
        return self.failure is None and self._matcher is not None and bool(self._matcher.is_stopped())

    def take(self, token_id: int) -> None:
        """The answer has grown by a token."""
        if self.failure is not None:
            return
        self._wait()
        if self._matcher is None:
            self._matcher = self._origin.matcher.deep_copy()
        self._next = None
        self._tokens.append(token_id)
        if not self._matcher.consume_token(token_id):
            self._begin_again()

    def prepare(self) -> None:
        """Has the next mask worked out while the caller does other things."""
        if self._next is None and self._matcher is not None and not self._matcher.is_stopped():
            self._next = self._submit(self._compute)

    def allowed(self, banned: Collection[int], only: Collection[int], goes_on: bool) -> Mask | None:
        """Which ids may come: not those `banned`, of `only` if there are any, and no end while the answer `goes_on`.

        Where that leaves none an end may come all the same, if the answer has its form; else it has failed: None.
        """
        fitting = self._mask()
        if self.failure is not None:
            return None
        if only:
            fitting = _kept(fitting, only)
        left = _without(fitting, banned)
        if goes_on:
            left = _without(left, self._ends)
        if left.any():
            return left
        ends = _kept(fitting, self._ends)
        if ends.any():
            return ends
        self.failure = A_DEAD_END
        return None

    def _mask(self) -> Mask:
        if self._matcher is None:
            return self._origin.first
        while self.failure is None:
            self.prepare()
            assert self._next is not None, "a whole answer has ended"
            mask = self._next.result()
            if not self._matcher.is_error():
                return mask
            self._begin_again()
        return self._origin.first

    def _wait(self) -> None:
        """Until the worker has let go of the matcher."""
        if self._next is not None:
            self._next.result()

    def _compute(self) -> Mask:
        return unpacked(self._matcher, self._size)

    def _begin_again(self) -> None:
        """From the same tokens with another copy, as long as there is one; else the answer has failed."""
        said = self._matcher.get_error().strip() or "the token does not belong to it"
        while self._again:
            self._origin, self._next = self._again.pop(0)(), None
            self._matcher = self._origin.matcher.deep_copy()
            if self._matcher.consume_tokens(self._tokens):
                return
        self.failure = said.splitlines()[0]


def unpacked(matcher: Any, vocab_size: int) -> Mask:
    """The matcher's next mask, (V,)."""
    bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
    return np.unpackbits(bits, count=vocab_size, bitorder="little").view(np.bool_)


def _kept(mask: Mask, ids: Collection[int] | NDArray[np.int64]) -> Mask:
    kept = np.zeros_like(mask)
    chosen = _indices(ids, mask.size)
    kept[chosen] = mask[chosen]
    return kept


def _without(mask: Mask, ids: Collection[int] | NDArray[np.int64]) -> Mask:
    if not len(ids):
        return mask
    left = mask.copy()
    left[_indices(ids, mask.size)] = False
    return left


def _indices(ids: Collection[int] | NDArray[np.int64], size: int) -> NDArray[np.int64]:
    chosen = np.fromiter(ids, np.int64, len(ids))
    return chosen[chosen < size]
