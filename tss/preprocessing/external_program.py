"""A program from elsewhere, FSL's or dcm2niix: ended with all that it has started, and with this process.

In:  a command line, the folder and the environment it runs in, a time limit.
Out: its exit code and what it said.
Paper: 2.1 uses FSL; how it is run is our choice.
See: tests/preprocessing/test_external_program.py
"""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

WATCH = 'read _; kill -s KILL -- "-$1"'  # of a shell: its standard input ends with the process that has started it


def run_program(
    command: Sequence[str], timeout: float, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program without input to its end.

    timeout: in seconds.

    Raises OSError: it cannot be started; subprocess.TimeoutExpired: it was stopped.
    """
    # A session of its own: bet is a script, and stopping it alone would leave the bet2 that it started.
    with (
        subprocess.Popen(command, cwd=cwd, env=env, text=True, errors="replace", stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process,
        _ended_with_us(process),
    ):  # fmt: skip
        output, errors = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


@contextmanager
def _ended_with_us(process: subprocess.Popen) -> Iterator[None]:
    """End a program, and what is left of its session, at the end; at once when this process is killed before it."""
    if os.name != "posix":  # Windows has neither sessions nor a shell that could watch
        try:
            yield
        finally:
            process.kill()
        return
    words = ["/bin/sh", "-c", WATCH, "sh", str(process.pid)]
    try:
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        ) as watcher:
            try:
                yield
            finally:
                watcher.kill()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
