"""Answers never go where their questions are."""

from pathlib import Path

from windlass.errors import UsageError


def check_apart(source: str, target: str) -> None:
    """Raises UsageError when a batch would write over its own questions."""
    both_exist = "-" not in (source, target) and Path(source).exists() and Path(target).exists()
    if both_exist and Path(source).samefile(target):
        raise UsageError(f"{target} holds the questions and would be overwritten; name another file for the answers")
