"""Numbers on the command line, refused with the value that was written: typer's own messages leave it out."""

import math

import typer


def whole(text: str | int) -> int:
    """A whole number. Raises typer.BadParameter."""
    try:
        return int(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a whole number; write it as 16") from error


def counting(text: str | int) -> int:
    """A whole number from 1 up. Raises typer.BadParameter."""
    number = whole(text)
    if number < 1:
        raise typer.BadParameter(f"{number} is below 1, the least that makes sense")
    return number


def real(text: str | float) -> float:
    """A finite number. Raises typer.BadParameter."""
    try:
        number = float(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a number; write it as 0.7") from error
    if not math.isfinite(number):
        raise typer.BadParameter(f"{text!r} is not finite; write it as 0.7")
    return number
