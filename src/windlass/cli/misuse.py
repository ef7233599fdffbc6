"""What the parser of the command line refuses, in one line as every other error."""

import re
from typing import Any

import typer

# The parent of BadParameter is what every misuse of a command line is, in click or in typer's own copy of it.
Misuse: Any = typer.BadParameter.__base__

# The parser's words, and ours.
_WORDS = (
    (r"^Missing (argument|option) '(\S+)'(.*)$", r"\1 \2\3 is missing"),
    (r"^Invalid value for '(\S+)'(?: / '\S+')?: (.+)$", r"\1: \2"),
    (r"^No such option: (\S+)(.*)$", r"there is no option \1\2"),
    (r"^No such command (.+)$", r"there is no verb \1"),
    (
        r"^Got unexpected extra arguments? ?(?:\(s\))? ?\((.+)\)$",
        r"\1 is more than it takes; quote a text of words",
    ),
    (r"^Option '(\S+)' requires an argument$", r"option \1 needs a value after it"),
    (r"^Option '(\S+)' requires (\d+) arguments$", r"option \1 needs \2 values after it"),
    (r"Input should be a valid integer, unable to parse string as an integer", "one of its values is no whole number"),
    (r"[.]? Did you mean (.+)\?$", r" (did you mean \1?)"),
    (r" \(Possible options: (.+)\)$", r" (did you mean \1?)"),
)


def misuse_text(error: Any) -> str:
    """What is wrong, what was probably meant, and where to look."""
    text = " ".join(error.format_message().split()).removesuffix(".")
    for theirs, ours in _WORDS:
        text = re.sub(theirs, ours, text)
    path = error.ctx.command_path if error.ctx is not None else "windlass"
    return f"{text}; see `{path} --help`"
