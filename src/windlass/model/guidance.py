"""The door to llguidance, which an extra brings: it is imported where an answer must have a form, and only there."""

import importlib.util
from typing import Any

from windlass.errors import UsageError


def load_guidance() -> Any:
    """The module llguidance. Raises UsageError where it is not installed."""
    if importlib.util.find_spec("llguidance") is None:
        raise UsageError(
            "structured_outputs and response_format need llguidance, which is not installed; pip install "
            "'windlass[structured]'"
        )
    import llguidance

    return llguidance
