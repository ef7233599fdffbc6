"""What clients are told when the machine fails: its kind. The whole message names folders, and is in the log."""

from windlass.errors import BudgetError, DeviceError, ModelError, StorageError, WindlassError

_KINDS: tuple[tuple[type[WindlassError], str], ...] = (
    (StorageError, "a disk of the server failed"),
    (BudgetError, "the memory of the server did not suffice"),
    (DeviceError, "a device of the server failed"),
    (ModelError, "the model of the server could not be loaded"),
)


def what_broke(error: BaseException) -> str:
    """In a few words that hold nothing of the error's own."""
    said = next((told for kind, told in _KINDS if isinstance(error, kind)), "a bug of the server broke it off")
    return f"{said} (its log says more)"
