"""Workers: what they do first, what is said where they cannot start or are killed, that they end with their parent."""

import errno
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from processes import is_running

from tss.data import workers
from tss.errors import InputError

PARENT = """
import time
from tss.data.workers import workers
with workers(2) as pool:
    for _ in range(2):
        pool.submit(time.sleep, 60)
    print(*pool._processes, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def interruptible():
    """Started in the background (with &), pytest itself, and what it starts, would be deaf to Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_each_does_first_what_it_is_told_and_hands_back_what_it_made(tmp_path, interruptible):
    with workers.workers(1, partial(os.chdir, tmp_path)) as pool:
        assert pool.submit(os.getcwd).result() == str(tmp_path)
        assert pool.submit(signal.getsignal, signal.SIGINT).result() == signal.SIG_IGN
        assert pool.submit(os.getpid).result() != os.getpid()


def test_one_that_is_killed_is_a_sentence_and_leaves_none():
    with pytest.raises(InputError, match="a worker was killed, most often for lack of memory. Rerun with fewer --jobs"):
        with workers.workers(2) as pool:
            tasks = [pool.submit(time.sleep, 60), pool.submit(signal.raise_signal, signal.SIGKILL)]
            started = list(pool._processes.values())
            pool.submit(int)  # Python watches the worker that was started last from the next event on
            [task.result() for task in reversed(tasks)]
    assert not any(process.is_alive() for process in started)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left"), "used: No space left. Free some space there, or give --jobs 1"),
        (PermissionError(errno.EACCES, "Permission denied"), "used: Permission denied. Make it writable, or give"),
        (NotImplementedError("no semaphores here"), "used: no semaphores here. Make it writable, or give --jobs 1"),
    ],
)
def test_without_shared_memory_none_are_started(monkeypatch, error, said):
    def fails(*_):
        raise error

    monkeypatch.setattr(workers, "ProcessPoolExecutor", fails)
    with pytest.raises(InputError, match=said), workers.workers(2):
        pass


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_they_end_with_a_parent_that_is_killed():
    words = [sys.executable, "-c", PARENT]
    with subprocess.Popen(words, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as parent:
        try:
            pids = list(map(int, parent.stdout.readline().split()))
            assert len(pids) == 2 and all(map(is_running, pids))
        finally:
            parent.kill()
    deadline = time.monotonic() + 20
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [process for process in pids if is_running(process)]
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert not left
