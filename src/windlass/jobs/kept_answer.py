"""Answers of other processes, kept in the cache folder: asking again takes seconds."""

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any


def kept_answer(file: Path) -> Any:
    """What was kept there; None where nothing was, or it is broken: then it is asked for again."""
    with suppress(OSError, ValueError):
        return json.loads(file.read_bytes())
    return None


def keep_answer(file: Path, answer: Any) -> None:
    """Written whole or not at all: two processes may ask at once. Where it cannot be, seconds are lost, no more."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False, encoding="utf-8") as half:
            json.dump(answer, half)
        os.replace(half.name, file)
