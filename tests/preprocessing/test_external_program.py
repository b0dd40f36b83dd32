"""Programs from elsewhere: what they say, and that they end, with all that they started, when they must."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import ends, is_running, until

from tss.preprocessing.external_program import run_program

KILLED = """
import sys
from tss.preprocessing.external_program import run_program
run_program(["sh", "-c", sys.argv[1]], timeout=60)
"""


def shell(tmp_path, then="sleep 60"):
    """A script that starts another, whose number it writes into a file."""
    return f'sh -c \'echo $$ > "{tmp_path}/new"; mv "{tmp_path}/new" "{tmp_path}/child"; sleep 60\' & {then}'


def started(tmp_path):
    until(lambda: (tmp_path / "child").exists())
    return int((tmp_path / "child").read_text())


def test_what_it_says_and_where_it_runs(tmp_path):
    words = ["sh", "-c", "pwd; echo $A >&2; cat; exit 3"]  # cat: there is no input
    done = run_program(words, 30, tmp_path, os.environ | {"A": "b"})
    assert (done.returncode, done.stdout, done.stderr) == (3, f"{tmp_path}\n", "b\n")
    with pytest.raises(FileNotFoundError):
        run_program(["no such program"], 30)


def test_its_time_limit_ends_what_it_started_too(tmp_path):
    with pytest.raises(subprocess.TimeoutExpired):
        run_program(["sh", "-c", shell(tmp_path)], timeout=1)
    child = started(tmp_path)
    ends(child)


def test_what_it_leaves_running_is_ended(tmp_path):
    """And holds the output open: it is waited for as long as for the program."""
    with pytest.raises(subprocess.TimeoutExpired):
        run_program(["sh", "-c", shell(tmp_path, then="exit 0")], timeout=1)
    child = started(tmp_path)
    ends(child)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_it_ends_when_who_started_it_is_killed(tmp_path):
    words = [sys.executable, "-c", KILLED, shell(tmp_path)]
    process = subprocess.Popen(words, cwd=Path(__file__).parents[2])
    try:
        child = started(tmp_path)
        assert is_running(child)
    finally:
        process.kill()
        process.wait()
    ends(child)
