"""A prompt as the answer to it repeats it, where a row asks for `echo`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Echo:
    """`first_token` is the text of the prompt's first token, which no log probability shows; None where it has none."""

    text: str
    first_token: str | None
