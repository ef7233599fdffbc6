"""The border between threads: what breaks on one side of it must not take the other side along."""

from types import TracebackType


class Caught:
    """A context that ends well whatever error is raised in it, which is kept as `error` for whoever goes on."""

    error: Exception | None = None

    def __enter__(self) -> "Caught":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.error = error if isinstance(error, Exception) else None
        return self.error is not None
