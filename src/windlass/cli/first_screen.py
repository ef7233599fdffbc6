"""What `windlass` alone shows: what it is, and where to begin."""

from windlass import __version__

_COMMANDS = (
    ("windlass chat", "talk with the small model in the box; windlass chat MODEL takes any other"),
    ('windlass run MODEL "Once upon a time" --host-memory 4GiB', "a model larger than the memory it may use"),
    ("windlass doctor", "what this machine can do"),
)


def first_screen() -> str:
    """A few lines for somebody who has never met it."""
    tries = "\n".join(f"  {command}\n      {meaning}" for command, meaning in _COMMANDS)
    return f"""\
Windlass {__version__}: language models far larger than memory, with the same tokens, inside a budget you set.

Three commands to begin with (MODEL is a folder or a Hugging Face id):

{tries}

windlass --help lists every verb; windlass VERB --help has examples.
"""
