"""How a long text is cut into windows that a model reads, and which tokens of each are scored.

Two conventions are in use, and figures of one cannot be set beside figures of the other:

* transformers (its guide "Perplexity of fixed-length models"): a window begins every `stride` tokens, and scores what
  no window before it has. The first token of the text is never scored, nor, where windows do not overlap, the first of
  any. The last window may be shorter.
* llama.cpp (tools/perplexity): windows do not overlap, what does not fill one is left out, each begins with the
  begin-of-sequence token where the tokenizer adds one, and only what lies behind the middle is scored.
"""

from dataclasses import dataclass

from windlass.errors import UsageError

TRANSFORMERS, LLAMA_CPP = "transformers", "llama.cpp"
CONVENTIONS = (TRANSFORMERS, LLAMA_CPP)
# Tokens of a window that nobody set: that of most published figures, or all that the model takes; llama.cpp's own.
USUAL_CONTEXT = {TRANSFORMERS: 2048, LLAMA_CPP: 512}
# The beginning of a text of so many characters a token holds as many tokens as are wanted, whatever the tokenizer.
CHARACTERS_A_TOKEN = 32


@dataclass(frozen=True, slots=True)
class TextWindow:
    """Tokens start:stop of the text; those from the place `first` of the window on are scored."""

    start: int
    stop: int
    first: int

    @property
    def scored(self) -> int:
        """How many tokens are."""
        return self.stop - self.start - self.first


@dataclass(frozen=True, slots=True)
class Windowing:
    """`context` tokens a window, None for the usual number; `stride` from one to the next, None for as many.

    With `most` only the first so many windows are read. Raises UsageError for what makes no windows.
    """

    convention: str = TRANSFORMERS
    context: int | None = None
    stride: int | None = None
    most: int | None = None

    def __post_init__(self) -> None:
        if self.convention not in CONVENTIONS:
            raise UsageError(f"the convention {self.convention!r} is not known; choose {' or '.join(CONVENTIONS)}")
        if self.context is not None and self.context < 2:
            raise UsageError(f"--context must be 2 or more, got {self.context}: nothing stands before a first token")
        if self.stride is not None and self.convention == LLAMA_CPP:
            raise UsageError(f"--stride {self.stride} has no meaning in llama.cpp's convention; leave it out")
        if self.stride is not None and self.context is not None and self.stride > self.context:
            raise UsageError(
                f"--stride {self.stride} is more than --context {self.context}, so that tokens would be left out; "
                "lower it"
            )

    def for_model(self, max_model_len: int) -> "Windowing":
        """With context and stride settled for a model. Raises UsageError where it does not take as many tokens."""
        context = self.context or min(USUAL_CONTEXT[self.convention], max_model_len)
        if context > max_model_len:
            raise UsageError(f"--context {context} is more than the {max_model_len} tokens this model takes; lower it")
        return Windowing(self.convention, context, self.stride and min(self.stride, context), self.most)

    @property
    def most_characters(self) -> int | None:
        """Characters of the text that hold all its windows; None where all of it is read."""
        if self.most is None:
            return None
        context = self.context or USUAL_CONTEXT[self.convention]
        return CHARACTERS_A_TOKEN * (context + (self.most - 1) * (self.stride or context))

    def windows(self, tokens: int) -> list[TextWindow]:
        """The windows of a text of `tokens` tokens, once context is settled; none where it is too short."""
        assert self.context is not None, "for_model settles it"
        if self.convention == LLAMA_CPP:
            starts = range(0, tokens - self.context + 1, self.context)
            found = [TextWindow(start, start + self.context, self.context // 2 + 1) for start in starts]
        else:
            found = _strided(tokens, self.context, self.stride or self.context)
        return [window for window in found[: self.most] if window.scored > 0]


def _strided(tokens: int, context: int, stride: int) -> list[TextWindow]:
    found, end = list[TextWindow](), 0
    for start in range(0, tokens, stride):
        stop = min(start + context, tokens)
        found.append(TextWindow(start, stop, max(1, end - start)))
        end = stop
        if end == tokens:
            break
    return found
