"""What the positional arguments of a verb mean when a model may be left out: the model in the box answers then."""

import re
import sys
from pathlib import Path

from windlass.cli.late import packaged_model
from windlass.errors import UsageError
from windlass.facts.gguf_model import SUFFIX

DEFAULT_PROMPT = "Once upon a time"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:\w+)?")


def boxed_model() -> str:
    """The folder of the model in the box; said on standard error, since nobody named it. Raises UsageError."""
    package = packaged_model()
    if package is None:
        raise UsageError("MODEL is missing, and this build has no model in the box; name a folder or a hub id")
    folder = str(package.packaged_model_folder())
    sys.stderr.write("no MODEL named, so the small one in the box answers; name a folder or a hub id for another\n")
    return folder


def model_and_prompt(first: str | None, second: str | None) -> tuple[str, str]:
    """`run MODEL PROMPT`, `run PROMPT` and `run` alone, told apart by what the one argument looks like.

    A folder, a path or a hub id is a model whose prompt was forgotten: UsageError. Anything else is a prompt.
    """
    if first is None:
        model = boxed_model()
        sys.stderr.write(f'no PROMPT given, so it goes on from "{DEFAULT_PROMPT}"\n')
        return model, DEFAULT_PROMPT
    if second is not None:
        return first, second
    if Path(first).expanduser().is_file() and not first.endswith(SUFFIX):
        raise UsageError(f"{first} is a file; for its text as the prompt write `windlass run - < {first}`")
    if names_model(first):
        raise UsageError(
            f'{first} names a model, so PROMPT is missing; write `windlass run {first} "{DEFAULT_PROMPT}"`, '
            f"or `windlass chat {first}` to talk"
        )
    return boxed_model(), first


def names_model(text: str) -> bool:
    """Whether a single argument can only have been meant as a model: a folder, a path, or an id such as org/name.

    A GGUF file is a model too, here or on the hub.
    """
    if not text or text == "-" or any(map(str.isspace, text)):
        return bool(text) and text != "-" and Path(text).expanduser().is_dir()
    looks_like_path = text.startswith(("./", "../", "~", "/")) or text.endswith("/") or text.count("/") > 1
    looks_like_path |= text.endswith(SUFFIX)
    return looks_like_path or _HUB_ID.fullmatch(text) is not None or Path(text).is_dir()
