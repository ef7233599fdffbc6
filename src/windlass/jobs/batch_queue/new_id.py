"""Names that nobody else has, in the order in which they were given."""

import secrets
import time


def new_id(beginning: str) -> str:
    """Sorted by the time at which it was made, and no name of another process."""
    return f"{beginning}{time.time_ns():016x}{secrets.token_hex(4)}"
