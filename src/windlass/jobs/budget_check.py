"""Looks at a budget before a model is opened: one that this machine cannot keep is legal, and worth a word."""

from windlass.memory.process_memory import available_bytes, resident_bytes
from windlass.units import MIB, format_size


def beyond_the_machine(budget: int) -> str | None:
    """A sentence where `budget` (bytes) is more than this process can have now, else None.

    It is not refused: a script may carry one budget to many machines, and a small model never takes it all.
    """
    most = resident_bytes() + available_bytes()
    if budget <= most:
        return None
    return (
        f"--host-memory {format_size(budget)} is more than the {format_size(most)} that this process can have here "
        f"now, and the system may end a run that takes it; --host-memory {most * 9 // 10 // MIB}MiB stays inside"
    )
