"""What the libraries raise over a vocabulary that is not sound, told as what it is.

The tokenizers library raises `Exception` itself, of no subclass, for whatever it cannot parse: such an error is known
by being of that very type, and by nothing narrower.
"""

from types import TracebackType

from windlass.errors import CheckpointError


class VocabularyDamage:
    """A context in which such an error, or one of `faults`, becomes a CheckpointError: `what`, first line, `advice`.

    Everything else goes on as it is: our own errors, bugs, memory that ran out, Ctrl-C.
    """

    def __init__(self, what: str, advice: str, faults: tuple[type[Exception], ...]) -> None:
        self._what, self._advice, self._faults = what, advice, faults

    def __enter__(self) -> None:
        """Nothing to be done before."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if type(error) is Exception or isinstance(error, self._faults):
            raise CheckpointError(f"{self._what}: {first_line(error)}; {self._advice}") from error


def first_line(error: BaseException) -> str:
    """Of what an error says, or its name."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
