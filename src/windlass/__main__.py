"""The door `windlass`, and `python -m windlass`: Ctrl-C is one line from the first moment on.

It imports almost nothing outside the part that is guarded: the verbs take a quarter of a second to import, and a
person may have thought better of it by then.
"""

import sys

INTERRUPTED = 130


def main() -> None:
    """Entry point of the `windlass` command."""
    try:
        from windlass.cli.main import main as verbs

        verbs()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
