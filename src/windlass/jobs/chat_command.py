"""The commands of a chat: a line that starts with a slash."""

from dataclasses import dataclass
from difflib import get_close_matches

from windlass.errors import UsageError

# Command, what follows it, what it does.
COMMANDS = (
    ("/system", "TEXT", "set the system message; without TEXT there is none"),
    ("/save", "FILE", "keep the conversation in a file"),
    ("/load", "FILE", "go on with a conversation from a file"),
    ("/stats", "", "tokens, speed, memory beside its budget, what bound the run"),
    ("/clear", "", "forget the conversation, keep the system message"),
    ("/help", "", "show this"),
    ("/exit", "", "leave, as Ctrl-D does"),
)
# What people know from elsewhere.
ALIASES = {"/bye": "/exit", "/quit": "/exit", "/?": "/help"}
_NEED_ARGUMENT = ("/save", "/load")
_TAKE_NONE = tuple(name for name, argument, _ in COMMANDS if not argument)


@dataclass(frozen=True, slots=True)
class Command:
    """A command with what follows it, white space around taken away."""

    name: str
    argument: str


def parse_command(line: str) -> Command:
    """Raises UsageError for a command that does not exist, or lacks what it needs, with the nearest that does."""
    first, _, rest = line.strip().partition(" ")
    name, argument = ALIASES.get(first, first), rest.strip()
    known = [name for name, _, _ in COMMANDS]
    if name not in known:
        near = get_close_matches(name, known, 1)
        advice = f"did you mean {near[0]}" if near else "/help lists them"
        raise UsageError(f"{name:.40} is no command ({advice}); put a space before a message that starts with a slash")
    if name in _NEED_ARGUMENT and not argument:
        raise UsageError(f"{name} needs the name of a file; write it as {name} talk.json")
    if name in _TAKE_NONE and argument:
        raise UsageError(f"{name} takes nothing after it, got {argument!r:.60}; write {name} alone")
    return Command(name, argument)


def help_lines() -> tuple[str, ...]:
    """Every command, and how a message of several lines is written."""
    listed = (f"{f'{name} {argument}':<14} {does}" for name, argument, does in COMMANDS)
    return (
        *listed,
        '"""            opens a message of several lines; """ closes it',
        "\\              at the end of a line: the message goes on in the next",
        "Ctrl-C         stops the answer; at an empty prompt it leaves",
    )
