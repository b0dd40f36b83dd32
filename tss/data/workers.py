"""Worker processes: they end with their parent, and where they cannot start or are killed a sentence says so.

In:  how many, and what each does first.
Out: a pool of processes, empty again when it is left, however it is left.
Paper: none (our choice: a node that is shared has little memory, and jobs on it are killed).
See: tests/data/test_workers.py
"""

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process

from tss.errors import InputError


@contextmanager
def workers(jobs: int, first: Callable[[], object] | None = None) -> Iterator[ProcessPoolExecutor]:
    """Return a pool of `jobs` processes. What was asked of them and is not begun when it is left is not done.

    first: called in each, before its first task.

    Raises InputError: they cannot be started, or one was killed.
    """
    try:
        # spawn: a fork of a process that has run threaded libraries may hang.
        pool = ProcessPoolExecutor(jobs, get_context("spawn"), _start, (first,))
    except (OSError, NotImplementedError) as error:  # its semaphores lie in shared memory
        why = getattr(error, "strerror", None) or error
        raise InputError(
            f"{jobs} jobs at a time need the system's shared memory, /dev/shm, which cannot be used: {why}. "
            f"{'Free some space there' if getattr(error, 'errno', 0) == errno.ENOSPC else 'Make it writable'}, or "
            "give --jobs 1."
        ) from error
    with pool:
        try:
            yield pool
        except BrokenProcessPool as error:
            raise InputError("a worker was killed, most often for lack of memory. Rerun with fewer --jobs.") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start(first: Callable[[], object] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer; workers finish their task
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if first:
        first()


def _end_with_parent() -> None:
    """End this worker when the process that started it is no more: killed, it could not tell."""
    parent = parent_process()
    assert parent is not None  # this is a worker
    parent.join()
    os._exit(1)
