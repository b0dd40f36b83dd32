"""The one error that users see, and how a program ends with it.

In:  what is wrong, where, and what to do, in a sentence or two.
Out: an exception, which the programs print without a traceback; exit code 2.
Paper: none.
See: tests/data/test_inputs.py
"""

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress

MEMORY = "Close other programs, or ask for more memory; give fewer --jobs or a smaller --batch-size where they are set."
FOR_LACK_OF_MEMORY = "memory", "could not create a primitive", "can't start new thread"  # torch, oneDNN, Python
RIGHTS = "Check who may read that path, or write there; --out chooses another folder for what is written."
OTHER_DISK = "The disk, or the connection to it, fails: try again, or choose another folder with --out."
REMEDIES: dict[int | None, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Free some space there, or choose another folder with --out."),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ETIMEDOUT), OTHER_DISK),
    # A library's own has no number: Pillow's "codec configuration error", where the disk has room, is lack of memory.
    **dict.fromkeys((errno.ENOMEM, None), MEMORY),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "Let more files be open (ulimit -n), or give fewer --jobs."),
    errno.EAGAIN: "Let more processes run (ulimit -u), or give fewer --jobs.",
    errno.EFBIG: "Let files be larger (ulimit -f), or choose another folder with --out.",
    errno.ENAMETOOLONG: "Give shorter names.",
}


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
        say(prog, str(error))
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # or Python complains again when it ends  # noqa: SIM115
        say(prog, f"whoever read the output has ended. Rerun {rerun}, with the output to a file.")
    except OSError as error:
        say(prog, f"{error}. {advice(error)}")
    except MemoryError:
        say(prog, f"too little memory. {MEMORY}")
    except RuntimeError as error:  # torch's, which may not be loaded here
        if not any(words in str(error) for words in FOR_LACK_OF_MEMORY):
            raise
        said = str(error).splitlines()[0].rstrip(".")
        say(prog, f"{said}. Ask for another GPU, or give --device cpu. On the CPU: {MEMORY}")
    except KeyboardInterrupt:
        say(prog, f"interrupted. Rerun {rerun} to continue.")
    return 2


def say(prog: str, message: str) -> None:
    """Print a message where errors go, as far as that is there."""
    with suppress(OSError):
        print(f"{prog}: {message}", file=sys.stderr)


def advice(error: OSError) -> str:
    """Return what helps against an error of the file system."""
    try:
        os.getcwd()
    except OSError:
        return "The working folder is gone: change to another one and rerun."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and str(error.filename or "").startswith("/dev/shm"):
        return "The system's shared memory, /dev/shm, must be writable for more than one of --jobs: give --jobs 1."
    return REMEDIES.get(error.errno, RIGHTS)


def print_in_any_encoding() -> None:
    """Let names with accents be printed where the output is ASCII (LC_ALL=C, some schedulers), as \\xe9."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
