"""Reads what a caller gives to LLM beside prompts, so that a value of the wrong kind is one plain line.

Each function returns the value in the one form the engine uses, and raises UsageError with the value, what is accepted
and how to write it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from windlass.errors import UsageError
from windlass.facts.choices import OTHER_DTYPE_NAMES, check_folder
from windlass.facts.plain_number import plain_whole
from windlass.facts.shape import Shape
from windlass.model.dtypes import dtype_name
from windlass.units import parse_size

Kind = TypeVar("Kind")


def read_model(value: object) -> str | Path | Shape:
    """A folder or a hub id; or a shape, whose weights are made up."""
    if isinstance(value, Shape):
        return value
    if not isinstance(value, (str, Path)) or not str(value).strip():
        raise UsageError(f"model must be a folder or a Hugging Face id, got {shown(value)}; write it as LLM('folder')")
    return value


def read_memory(flag: str, value: object) -> int | None:
    """A size in bytes, or None."""
    if value is None:
        return None
    size = value if isinstance(value, (str, bool)) else plain_whole(value)
    if size is None:
        raise UsageError(f"{flag} must be a size, got {shown(value)}; write it as '8GiB' or a whole number of bytes")
    try:
        return parse_size(size)
    except UsageError as error:
        raise UsageError(f"{flag}: {error}") from None


def read_count(flag: str, value: object) -> int | None:
    """A whole number from 1, or None."""
    if value is None:
        return None
    number = read_whole(flag, value)
    if number < 1:
        raise UsageError(f"{flag} must be 1 or more, got {number}")
    return number


def read_tokens(flag: str, value: object) -> int:
    """A whole number of tokens, from 0."""
    number = read_whole(flag, value)
    if number < 0:
        raise UsageError(f"{flag} must be 0 or more, got {number}")
    return number


def read_whole(flag: str, value: object) -> int:
    """A whole number, of numpy too; a bool is none."""
    number = plain_whole(value)
    if number is None:
        raise UsageError(f"{flag} must be a whole number, got {shown(value)}; write it as 1")
    return number


def read_switch(flag: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise UsageError(f"{flag} must be True or False, got {shown(value)}")
    return value


def read_device(value: object) -> str:
    """A name such as "cuda:0"; a torch.device is taken too."""
    if isinstance(value, torch.device):
        return str(value)
    if not isinstance(value, str):
        raise UsageError(f"device must be a name, got {shown(value)}; use 'auto', 'cpu', 'cuda', 'cuda:0' or 'sim'")
    return value


def read_dtype(value: object) -> str:
    """A name such as "float16"; a torch.dtype is taken too."""
    if isinstance(value, torch.dtype):
        return dtype_name(value)
    if not isinstance(value, str):
        raise UsageError(f"dtype must be a name or a torch.dtype, got {shown(value)}; use 'auto' or 'bfloat16'")
    return OTHER_DTYPE_NAMES.get(value, value)


def read_optional(flag: str, value: object, kind: type[Kind], advice: str) -> Kind | None:
    """A value of one kind, or None."""
    if value is not None and not isinstance(value, kind):
        raise UsageError(f"{flag} must be {advice} or None, got {shown(value)}")
    return value


def read_function(flag: str, value: object) -> Callable[..., None] | None:
    """Something to call, or None."""
    if value is not None and not callable(value):
        raise UsageError(f"{flag} must be a function or None, got {shown(value)}")
    return value


def read_folder(flag: str, value: object) -> Path | None:
    """A folder that exists and can be written, or None."""
    if value is None:
        return None
    if not isinstance(value, (str, Path)):
        raise UsageError(f"{flag} must be a folder, got {shown(value)}")
    folder = Path(value).expanduser()
    check_folder(flag, folder)
    return folder


def refuse_for_a_shape(shape: str, revision: str | None) -> None:
    """Raises UsageError for a revision of what is made up."""
    if revision is not None:
        raise UsageError(f"the shape {shape} is made up and has no revision {revision!r}; leave the revision out")


def shown(value: object) -> str:
    """A value and its type, cut to a line."""
    return f"{value!r:.60} ({type(value).__name__})"
