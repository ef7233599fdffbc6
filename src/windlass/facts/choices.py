"""What may be named as device, dtype and the like, known without torch, so that a wrong name is refused at once."""

import os
from pathlib import Path

from windlass.errors import UsageError
from windlass.facts.simulated_device import parse_simulated_device
from windlass.facts.weight_formats import SMALLER_FORMATS

DEVICES = "auto, cpu, cuda, cuda:0 or sim"
PACKINGS = tuple(sorted(SMALLER_FORMATS))
DTYPES = ("float32", "bfloat16", "float16")
# The names that vLLM takes besides.
OTHER_DTYPE_NAMES = {"half": "float16", "float": "float32"}


def check_device(name: str, has_memory: bool) -> None:
    """`has_memory`: whether --gpu-memory is given. Raises UsageError for what no machine could make sense of."""
    kind = name.split(":")[0]
    if kind == "sim":
        parse_simulated_device(name)
        if not has_memory:
            raise UsageError("a simulated device has no memory until it is given some; use --gpu-memory 4GiB")
    elif name not in ("auto", "cpu") and kind != "cuda":
        raise UsageError(f"device {name!r} is not known; use {DEVICES}")
    elif name == "cpu" and has_memory:
        raise UsageError("--gpu-memory has no effect on the CPU; leave it out, or use --device cuda")


def check_dtype(name: str) -> None:
    """ "auto" or a dtype to compute in, in the engine's spelling or vLLM's. Raises UsageError."""
    if name not in ("auto", *DTYPES, *OTHER_DTYPE_NAMES):
        raise UsageError(f"dtype {name!r} is not known; choose one of auto, {', '.join(DTYPES)}")


def check_quantization(name: object, flag: str = "") -> None:
    """None or the name of a format to pack weights in, given by `flag` if not by `quantization`. Raises UsageError."""
    if name is not None and name not in PACKINGS:
        given = f"{flag} {name}" if flag else f"quantization={name!r}"
        raise UsageError(f"{given} is not known; use {' or '.join(PACKINGS)}, or leave it out: weights run as they are")


def check_folder(flag: str, folder: Path) -> None:
    """Raises UsageError for a folder that is not there or cannot be written."""
    if not folder.is_dir():
        raise UsageError(f"{flag} {folder} is not a folder; make it, or name another one")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{flag} {folder} cannot be written; change its permissions, or name another one")


def check_packing(name: str) -> None:
    """The name of a format to pack weights in. Raises UsageError for any that is not known."""
    if name not in PACKINGS:
        raise UsageError(f"--to {name!r} is not known; choose {' or '.join(PACKINGS)}")
