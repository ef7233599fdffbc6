"""Places in the cache: which pages an answer gets, and how the `n` answers to a request share those of their prompt.

The first answer of a request to come in reads the prompt. Those beside it hold the pages that the prompt fills as
well, and get a copy of the last one, where each goes on writing. Where answers must wait for the next block, one that
leaves this block keeps the prompt's pages for them, so that a prompt is read once however small a block is.
"""

from collections import Counter
from collections.abc import Iterable

from windlass.engine.sequence import Sequence
from windlass.model.kvcache import KVCache


class Places:
    """For the sequences of one call. `read_again_beyond` is the model's: what may be read again is not shared."""

    def __init__(self, cache: KVCache, read_again_beyond: int | None, sequences: Iterable[Sequence]) -> None:
        self._cache, self._table = cache, cache.table
        self._read_again_beyond = read_again_beyond
        self._to_come = Counter(sequence.request.request_id for sequence in sequences)
        self._readers: dict[str, int] = {}
        self._kept: dict[str, int] = {}

    def has_room(self, sequence: Sequence) -> bool:
        """Whether there are free pages for all that a sequence may become."""
        request_id, given = sequence.request.request_id, 0
        if request_id in self._kept:
            given = len(self._table.pages[self._kept[request_id]])
        elif request_id in self._readers:
            given = self._shared_pages(sequence)
        return self._table.pages_for(sequence.most_tokens) - given <= len(self._table.free)

    def enter(self, sequence: Sequence) -> None:
        """Gives a sequence its pages. Raises BudgetError where the cache is too small for it alone."""
        request_id, number = sequence.request.request_id, sequence.number
        self._to_come[request_id] -= 1
        if request_id in self._kept:
            self._table.hand_over(self._kept.pop(request_id), number)
            self._readers[request_id] = number
        elif request_id in self._readers:
            self._table.share(number, self._readers[request_id], self._shared_pages(sequence))
        elif sequence.token_ids:
            sequence.read_again()  # the prompt was read for an earlier block, which could not keep it
        else:
            self._readers[request_id] = number
        self._table.reserve(number, sequence.most_tokens)
        if sequence.cached and self._table.num_places:
            self._take_full_pages(sequence)
        elif sequence.cached:
            self._copy_prompt(sequence)

    def prompt_read(self, answers: Iterable[Sequence]) -> None:
        """The prompt of these answers has been read: those in the block get what they cannot hold together."""
        for sequence in answers:
            sequence.cached = len(sequence.request.prompt_token_ids)
            if sequence.number in self._table.pages:
                self._copy_prompt(sequence)

    def pass_over(self, sequence: Sequence) -> None:
        """A sequence that waited and has ended already, with the token behind its prompt, needs no place."""
        request_id = sequence.request.request_id
        self._to_come[request_id] -= 1
        if not self._to_come[request_id] and request_id in self._kept:
            self._table.release(self._kept.pop(request_id))

    def leave(self, sequence: Sequence) -> None:
        """Takes a sequence's pages back, but for those of a prompt that others wait for. May be called twice."""
        request_id, number = sequence.request.request_id, sequence.number
        self._readers.pop(request_id, None)
        if self._kept.get(request_id) == number:
            return
        if self._to_come[request_id] and request_id not in self._kept and self._stays(sequence):
            self._table.shrink(number, len(sequence.request.prompt_token_ids))
            self._kept[request_id] = number
        else:
            self._table.release(number)

    def close(self) -> None:
        """Takes back what is still kept."""
        while self._kept:
            self._table.release(self._kept.popitem()[1])

    def _stays(self, sequence: Sequence) -> bool:
        """Whether what was stored of the prompt is never written anew."""
        return self._read_again_beyond is None or len(sequence.request.prompt_token_ids) > self._read_again_beyond

    def _shared_pages(self, sequence: Sequence) -> int:
        filled = len(sequence.request.prompt_token_ids) // self._table.page_tokens
        return filled if self._stays(sequence) else 0

    def _take_full_pages(self, sequence: Sequence) -> None:
        """Of a prompt that was read before, the page that it does not fill was gone on with: its tokens come again."""
        prompt, size = len(sequence.request.prompt_token_ids), self._table.page_tokens
        sequence.cached = prompt // size * size
        self._copy(sequence, range(self._shared_pages(sequence), prompt // size))

    def _copy_prompt(self, sequence: Sequence) -> None:
        """Copies the pages of the prompt that a sequence holds alone from the one that has just read them."""
        prompt = len(sequence.request.prompt_token_ids)
        full, every = prompt // self._table.page_tokens, self._table.pages_for(prompt)
        self._copy(sequence, range(self._shared_pages(sequence), full))
        reader, places = self._readers[sequence.request.request_id], self._table.places
        open_places = (places[reader], places[sequence.number]) if places else None
        self._copy(sequence, range(full, every), open_places)

    def _copy(self, sequence: Sequence, pages: range, places: tuple[int, int] | None = None) -> None:
        reader = self._readers[sequence.request.request_id]
        if reader != sequence.number:
            mine, read = self._table.pages[sequence.number], self._table.pages[reader]
            self._cache.copy_pages([(read[page], mine[page]) for page in pages], places)
