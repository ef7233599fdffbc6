"""Places in the cache: which pages an answer gets, and which of them it shares.

What a prompt begins with may be known already: then its pages are held with others (prefix_tree.py), and reading begins
behind them. It may just be being read for another answer: then its pages are held with that one, which leads, and this
one is read as far as the leader has come. The `n` answers to one request that come in together share more: the first
reads the prompt for all, and each of the others gets a copy of the page that the prompt ends in.
"""

from collections.abc import Iterable

from windlass.engine.prefix_tree import PrefixTree
from windlass.engine.reader import Reader
from windlass.model.kvcache import KVCache


class Places:
    """Of one engine. `read_again_beyond` is the model's: prompts that may be read again are not shared.

    Without `prefixes` only the answers to one request share anything.
    """

    def __init__(self, cache: KVCache, read_again_beyond: int | None, prefixes: PrefixTree | None) -> None:
        self._cache, self._table = cache, cache.table
        self._read_again_beyond, self._prefixes = read_again_beyond, prefixes
        self._reading: dict[int, Reader] = {}

    def has_room(self, sequence: Reader, kept_free: int = 0) -> bool:
        """Whether there are pages for all that a sequence may become, and `kept_free` pages beside them."""
        pages, _ = self._shared(sequence)
        resting = sum(page in self._table.resting for page in pages)
        return self._table.pages_for(sequence.most_tokens) - len(pages) <= self._table.room - resting - kept_free

    def would_have_room(self, sequence: Reader, leaving: Iterable[Reader]) -> bool:
        """Whether there would be pages for all that a sequence may become, if those had left."""
        gone = {reader.number for reader in leaving}
        tables = self._table.pages.items()
        held = {page for number, pages in tables if number not in gone for page in pages}
        shared = sum(page in held for page in self._shared(sequence)[0])
        return self._table.pages_for(sequence.most_tokens) - shared <= self._table.num_pages - len(held)

    def held_by(self, readers: Iterable[Reader]) -> int:
        """Pages that these hold together."""
        return len({page for reader in readers for page in self._table.pages[reader.number]})

    def enter(self, sequence: Reader) -> None:
        """Gives a sequence its pages. Raises BudgetError where the cache is too small for it alone."""
        number = sequence.number
        pages, leader = self._shared(sequence)
        self._table.begin(number, pages)
        self._table.reserve(number, sequence.most_tokens)
        sequence.cached = len(pages) * self._table.page_tokens
        sequence.leader = leader
        if leader is not None and leader.request is sequence.request:
            sequence.cached = 0  # all that it needs comes when the prompt has been read
        self._reading[number] = sequence

    def ready(self, sequence: Reader) -> bool:
        """Whether what a sequence shares with the one that leads it is stored, so that it may be read on."""
        leader = sequence.leader
        if leader is None:
            return True
        if leader.request is sequence.request or not self.ready(leader) or leader.cached < sequence.cached:
            return False
        sequence.leader = None
        return True

    def prompt_read(self, reader: Reader, answers: Iterable[Reader]) -> None:
        """The prompt of these answers has been read: those that wait for it get what they do not hold with it."""
        self._reading.pop(reader.number, None)
        for sequence in answers:
            if sequence.leader is reader:
                sequence.cached, sequence.leader = len(reader.request.prompt_token_ids), None
                self._reading.pop(sequence.number, None)
                self._copy_prompt(reader, sequence)
        self._keep(reader)

    def leave(self, sequence: Reader) -> None:
        """Takes a sequence's pages back; what it stored is kept for others while there is room. May be repeated."""
        number = sequence.number
        self._reading.pop(number, None)
        self._pass_on(sequence)
        if number in self._table.pages and sequence.leader is None:
            self._keep(sequence)
        self._table.release(number)

    def _pass_on(self, sequence: Reader) -> None:
        """Where one leaves before it has read what others share with it, one of these reads it, and leads the others.

        They hold the same pages, which only one may write to.
        """
        followers = list[Reader]()
        for other in self._reading.values():
            if other.leader is sequence:
                if (
                    sequence.leader is None
                    and other.request is not sequence.request
                    and other.cached <= sequence.cached
                ):
                    other.leader = None
                else:
                    followers.append(other)
        if not followers:
            return
        # Another answer to the same request holds all full pages of the prompt; of others, whoever shares the most.
        heir = max(followers, key=lambda other: (other.request is sequence.request, other.cached))
        size = self._table.page_tokens
        if heir.request is sequence.request:
            heir.cached = len(heir.request.prompt_token_ids) // size * size if self._stays(heir) else 0
        heir.cached, heir.leader = min(heir.cached, sequence.cached // size * size), sequence.leader
        for other in followers:
            if other is not heir:
                other.leader = heir

    def _keep(self, sequence: Reader) -> None:
        if self._prefixes is not None and self._stays(sequence):
            self._prefixes.keep(sequence.ids(0, sequence.cached), self._table.pages[sequence.number])

    def _shared(self, sequence: Reader) -> tuple[list[int], Reader | None]:
        """The pages a sequence would share, and who is reading them, if they have not been read already."""
        sibling = next((other for other in self._reading.values() if self._is_sibling(other, sequence)), None)
        if sibling is not None:
            filled = len(sequence.request.prompt_token_ids) // self._table.page_tokens
            return self._table.pages[sibling.number][: filled if self._stays(sequence) else 0], sibling
        if self._prefixes is None or not self._stays(sequence):
            return [], None
        ids, leader = sequence.ids(0, sequence.shareable), None
        pages, size = self._prefixes.find(ids), self._table.page_tokens
        for other in self._reading.values():
            # Few of many share a page more than is known, which is seen by that page.
            start, stop = len(pages) * size, (len(pages) + 1) * size
            if stop <= len(ids) and other.ids(start, stop) == ids[start:stop]:
                count = self._common_pages(other, ids)
                if count > len(pages):
                    pages, leader = self._table.pages[other.number][:count], other
        return pages, leader

    def _is_sibling(self, other: Reader, sequence: Reader) -> bool:
        return (
            other.request is sequence.request and other.leader is None and not (other.has_begun or sequence.has_begun)
        )

    def _common_pages(self, other: Reader, ids: list[int]) -> int:
        """Full pages that another's tokens and `ids` begin with alike."""
        if not self._stays(other) or (other.leader is not None and other.leader.request is other.request):
            return 0
        size = self._table.page_tokens
        theirs, count = other.ids(0, other.length), 0
        while (end := (count + 1) * size) <= min(len(ids), len(theirs)) and _alike(theirs, ids, count * size, end):
            count += 1
        return count

    def _stays(self, sequence: Reader) -> bool:
        """Whether what is stored of the prompt is never written anew."""
        return self._read_again_beyond is None or len(sequence.request.prompt_token_ids) > self._read_again_beyond

    def _copy_prompt(self, reader: Reader, sequence: Reader) -> None:
        """Copies the pages of the prompt that a sequence holds alone from the one that has just read them."""
        prompt, size = len(reader.request.prompt_token_ids), self._table.page_tokens
        full, every = prompt // size, self._table.pages_for(prompt)
        shared = full if self._stays(sequence) else 0
        places = self._table.places
        self._copy(reader, sequence, range(shared, full))
        open_places = (places[reader.number], places[sequence.number]) if places else None
        self._copy(reader, sequence, range(full, every), open_places)

    def _copy(self, reader: Reader, sequence: Reader, pages: range, places: tuple[int, int] | None = None) -> None:
        mine, read = self._table.pages[sequence.number], self._table.pages[reader.number]
        self._cache.copy_pages([(read[page], mine[page]) for page in pages], places)


def _alike(one: list[int], other: list[int], start: int, stop: int) -> bool:
    return one[start:stop] == other[start:stop]
