"""Planted faults: each is put into a copy of the suite, and a test that is named beside it must fail.

In:  tests/campaign/faults.py: a file, a piece of it, what stands there instead, the tests that must notice.
Out: a line for each that survives, and counts by folder; exit code 1 where there are survivors.
Paper: none (our choice: a test that no fault can make fail tests nothing; mutation analysis, DeMillo 1978).
See: tests/campaign/test_campaign.py

    python tests/campaign/planted.py                     all, each in a fork of one process
    python tests/campaign/planted.py metrics models      those of some folders
"""

import argparse
import contextlib
import importlib
import io
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}  # of workers too: no stale code of a fault

from faults import FAULTS, Fault  # noqa: E402
from pytest import ExitCode  # noqa: E402

ROOT = Path(__file__).parents[2]
NO_PYTHON = 99  # exit code
MOST_SECONDS = 300  # of CPU: a fault that makes a test run on without end is caught


def can_be_planted(fault: Fault) -> bool:
    """Is the piece that it replaces in its file, once? If not, the code has changed, and the list must too."""
    count = (ROOT / "tss" / fault.file).read_text(encoding="utf-8").count(fault.old)
    if count != 1:
        print(f"left out: {fault.file} holds {count} times, not once: {fault.old!r}", flush=True)
    return count == 1


def caught(fault: Fault, copy: Path) -> bool:
    """Put the fault into the copy, run its tests in a fork, and take it out again. Did any test fail?"""
    file = copy / "tss" / fault.file
    good = file.read_text(encoding="utf-8")
    file.write_text(good.replace(fault.old, fault.new), encoding="utf-8")
    try:
        code = tests_fail(fault.tests, copy, fault.file)
    finally:
        file.write_text(good, encoding="utf-8")
    if code == NO_PYTHON:
        raise SystemExit(f"{fault.file} cannot be imported with {fault.new!r} in place of {fault.old!r}: no fault")
    if code in (ExitCode.USAGE_ERROR, ExitCode.NO_TESTS_COLLECTED):
        raise SystemExit(f"{fault.tests}: no such test")
    return bool(code)


def tests_fail(tests: str, copy: Path, file: str = "errors.py") -> int:
    """Return pytest's exit code. What is not the suite's own has been imported before the fork.

    NO_PYTHON: the file, below tss, cannot even be imported, which any test would notice.
    """
    child = os.fork()
    if not child:
        code = 3
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
            os.chdir(copy)
            sys.path[:0] = [str(copy)]
            sys.dont_write_bytecode = True
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                import pytest

                try:
                    importlib.import_module("tss." + file.removesuffix(".py").replace("/", "."))
                except BaseException:
                    os._exit(NO_PYTHON)
                paths = [str(copy / "tests" / name) for name in tests.split()]
                code = int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-m", "not slow", "--tb=no", *paths]))
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(faults: Sequence[Fault], say=print) -> list[Fault]:
    """Plant the faults one by one; returns those that survive. Raises SystemExit: the tests fail without any."""
    import adabound  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import nibabel  # noqa: F401
    import pytest
    import scipy.ndimage  # noqa: F401
    import scipy.optimize  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch  # noqa: F401

    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(["--version"])  # loads its own modules

    survivors = []
    with tempfile.TemporaryDirectory(prefix="tss-planted-") as folder:
        copy = Path(folder) / "tss"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache"))
        for tests in dict.fromkeys(fault.tests for fault in faults):
            if code := tests_fail(tests, copy):
                raise SystemExit(f"{tests} fail without a fault (pytest's exit code {code})")
        for number, fault in enumerate(faults, 1):
            started = time.monotonic()
            if not caught(fault, copy):
                survivors.append(fault)
                say(f"survives: {fault.file}: {fault.new!r} in place of {fault.old!r}", flush=True)
            elif number % 10 == 0:
                say(f"{number} of {len(faults)}, {time.monotonic() - started:.0f} s for the last", flush=True)
    return survivors


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="how files' names begin, below tss; unset = all")
    parts = tuple(parser.parse_args(argv).parts) or ("",)
    chosen = [fault for fault in FAULTS if fault.file.startswith(parts)]
    faults = [fault for fault in chosen if can_be_planted(fault)]
    survivors = run(faults)
    counts, lost = (Counter(fault.file.split("/")[0] for fault in which) for which in (faults, survivors))
    for part, count in counts.items():
        print(f"{part:10} {count - lost[part]:3d} of {count:3d} caught")
    print(f"{len(faults) - len(survivors)} of {len(faults)} faults caught")
    return 1 if survivors or len(faults) < len(chosen) else 0


if __name__ == "__main__":
    sys.exit(main())
