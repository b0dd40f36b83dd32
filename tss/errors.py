"""The one error that users see, and how a program ends with it.

In:  what is wrong, where, and what to do, in a sentence or two.
Out: an exception, which the programs print without a traceback; exit code 2.
Paper: none.
See: tests/data/test_inputs.py
"""

import sys
from collections.abc import Callable


class InputError(Exception):
    """What the user gave cannot be used. The message names the file, the problem and the remedy."""


def exit_code(prog: str, work: Callable[[], int | None], rerun: str) -> int:
    """Do the work and return its exit code, or 0; 2 and a message for what the user can mend.

    rerun: how an interrupted run is continued.
    """
    print_in_any_encoding()
    try:
        return work() or 0
    except InputError as error:
        print(f"{prog}: {error}", file=sys.stderr)
    except OSError as error:
        print(f"{prog}: {error}. Check the folder given with --out.", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"{prog}: interrupted. Rerun {rerun} to continue.", file=sys.stderr)
    return 2


def print_in_any_encoding() -> None:
    """Let names with accents be printed where the output is ASCII (LC_ALL=C, some schedulers): as \\xe9, not as an end."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
