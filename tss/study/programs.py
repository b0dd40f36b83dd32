"""The programs that a study runs: each line is printed as a user would type it, and run in this process.

In:  "run_train.py", a script next to the package, or "-m tss.training.tumour_pretraining", a module; what follows.
Out: the line on the screen; the program's exit code.
Paper: none.
See: tests/study/test_programs.py
"""

import importlib
import importlib.util
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import tss

TRAIN, EVALUATE, PREPROCESS = "run_train.py", "run_eval.py", "run_preprocess.py"
PRETRAIN = "-m tss.training.tumour_pretraining"


def main_of(program: str) -> Callable[[Sequence[str]], int]:
    """Return a program's main. Scripts lie next to the package, not on the import path."""
    if program.startswith("-m "):
        return importlib.import_module(program.removeprefix("-m ")).main
    spec = importlib.util.spec_from_file_location(Path(program).stem, Path(tss.__file__).parent.parent / program)
    assert spec and spec.loader  # as every file that ends in .py has
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.main


def type_in(program: str, words: Sequence[object]) -> int:
    """Print a command as typed, run it, and return its exit code."""
    line = [str(word) for word in words]
    print(f"$ python {program} {shlex.join(line)}", flush=True)
    return main_of(program)(line)
