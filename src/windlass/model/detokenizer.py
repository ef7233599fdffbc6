"""Text of a growing answer, piece by piece, each piece final the moment it is given.

Decoding token by token is wrong where characters span tokens, and decoding everything again each time is quadratic.
Here a short window of ids is decoded, behind a token whose own text is known, and what can still change is held.
"""

from windlass.model.tokenizer import AnyTokenizer, NoTokenizer

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# A byte-fallback run is final only when it ends: one bad byte turns all of it into replacement characters. Runs in
# real vocabularies are a character or two; from a longer one the oldest characters are given all the same.
LONGEST_HELD_RUN = 32
# An unfinished character spans at most this many tokens (UTF-8 has 4 bytes).
LONGEST_CHARACTER = 4


class Detokenizer:
    """Takes ids one at a time and gives text: the deltas of `push` and `flush` joined equal `tokenizer.decode(ids)`.

    Constant work a token. The one exception to equality: where more than LONGEST_HELD_RUN valid bytes of one
    byte-fallback run are followed by an invalid one, characters already given stay as they are.
    """

    def __init__(self, tokenizer: AnyTokenizer, skip_special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._window: list[int] = []
        self._given = 0  # characters of the window's text that were given before
        self._run = bytearray()  # the open byte-fallback run, whose ids end the window
        self._run_is_broken = False

    @property
    def has_text(self) -> bool:
        """Whether ids have any text at all: not where the model came without a tokenizer."""
        return not isinstance(self._tokenizer, NoTokenizer)

    @property
    def pending(self) -> str:
        """Whole characters that are held because the byte run they stand in may yet turn out invalid."""
        whole = len(_whole_characters(self._run))
        if not whole:
            return ""
        open_bytes = len(self._run) - whole
        return self._decode(self._window[: len(self._window) - open_bytes])[self._given :]

    def push(self, token_id: int) -> str:
        """The text that this id makes final; often nothing."""
        if self._tokenizer.is_silent(token_id, self._skip):
            return ""
        byte = self._tokenizer.byte_of(token_id)
        if byte is not None:
            return self._push_byte(token_id, byte)
        self._run.clear()
        self._run_is_broken = False
        return self._push_piece(token_id)

    def flush(self) -> str:
        """The rest: unfinished characters as replacement characters. The answer has ended."""
        rest = self._decode(self._window)[self._given :]
        self._run.clear()
        self._window, self._given = [], 0
        return rest

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, self._skip)

    def _push_piece(self, token_id: int) -> str:
        self._window.append(token_id)
        text = self._decode(self._window)
        alone = self._tokenizer.text_alone(token_id)
        if alone:
            delta = text[self._given :]
            self._window, self._given = [token_id], len(alone)
            return delta
        final = len(text) - text.endswith(REPLACEMENT)
        delta = text[self._given : final]
        self._given = max(self._given, final)
        if text and final == len(text):
            self._restart([])
        elif len(self._window) > 2 * LONGEST_CHARACTER:
            self._restart(self._window[-LONGEST_CHARACTER:])
        return delta

    def _restart(self, unfinished: list[int]) -> None:
        """Begins a new window behind the anchor; `unfinished` are trailing ids whose last character is held."""
        self._window = [*self._tokenizer.anchor(), *unfinished]
        text = self._decode(self._window)
        self._given = len(text) - (text.endswith(REPLACEMENT) if unfinished else 0)

    def _push_byte(self, token_id: int, byte: int) -> str:
        if self._run_is_broken:
            return REPLACEMENT
        self._window.append(token_id)
        self._run.append(byte)
        if not _may_become_text(self._run):
            self._run_is_broken = True
            delta = self.flush()
            self._restart([])
            return delta
        return self._give_oldest_character() if len(self._run) > LONGEST_HELD_RUN else ""

    def _give_oldest_character(self) -> str:
        size = len(bytes(self._run).decode("utf-8", "ignore")[0].encode())
        rest = self._window[len(self._window) - len(self._run) + size :]
        delta = self._decode(self._window[: len(self._window) - len(rest)])[self._given :]
        del self._run[:size]
        self._restart([])
        self._window += rest
        return delta


def _whole_characters(run: bytearray) -> bytes:
    """The run, a valid beginning of UTF-8, without its unfinished last character."""
    return bytes(run).decode("utf-8", "ignore").encode()


def _may_become_text(run: bytearray) -> bool:
    """Whether the bytes are valid UTF-8 but for a last character that may still be completed."""
    try:
        run.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return True
