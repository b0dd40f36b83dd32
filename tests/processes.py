"""Processes that tests have started: whether one still runs, and waiting for something to become true."""

import time
from pathlib import Path


def until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def ends(*processes):
    """Wait until processes have ended, for less long than they would run if nobody ended them."""
    until(lambda: not any(map(is_running, processes)), 20)
