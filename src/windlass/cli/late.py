"""The one late import of the command line, so that `windlass run --help` does not wait seconds for torch.

Verbs import flags and displays at the top of their file and ask here, when they run, for the module that computes.
"""

import importlib
import importlib.util
import sys
from typing import Any

from windlass.cli.held_signals import HeldSignals
from windlass.errors import UsageError

_PACKAGED_MODEL = "windlass.packaged_model"


def late(module: str) -> Any:
    """The module `windlass.<module>`, imported now: `late("engine.llm").LLM`.

    Ctrl-C is heard when that is done. Libraries swallow a KeyboardInterrupt that comes while they are imported, or make
    an error of their own of it, and are then neither there nor to be imported again.
    """
    with HeldSignals():
        return importlib.import_module(f"windlass.{module}")


def packaged_model() -> Any | None:
    """The package that holds a small model, or None in a build that was made without one."""
    present = _PACKAGED_MODEL in sys.modules or importlib.util.find_spec(_PACKAGED_MODEL) is not None
    return importlib.import_module(_PACKAGED_MODEL) if present else None


def require_plotting() -> None:
    """Raises UsageError where matplotlib, which pictures are drawn with, is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib, which is not installed; pip install 'windlass[plot]'")


def require_guidance() -> None:
    """Raises UsageError where llguidance, which holds answers to a form, is not installed: before a model is loaded."""
    if importlib.util.find_spec("llguidance") is None:
        raise UsageError(
            "--schema, --regex and --choice need llguidance, which is not installed; pip install 'windlass[structured]'"
        )
