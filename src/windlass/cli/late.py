"""The one late import of the command line, so that `windlass run --help` does not wait seconds for torch.

Verbs import flags and displays at the top of their file and ask here, when they run, for the module that computes.
"""

import importlib
from typing import Any


def late(module: str) -> Any:
    """The module `windlass.<module>`, imported now: `late("engine.llm").LLM`."""
    return importlib.import_module(f"windlass.{module}")
