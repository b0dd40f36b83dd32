"""The whole study at small scale, on made-up patients: phantom, preprocessing, phases, evaluation.

In:  an empty folder; the three scripts' main functions, so that the demo runs exactly what a user would type.
Out: OUT/phantom (scans), OUT/data (prepared), OUT/runs, OUT/eval, and a table beside the phantom's ceiling.
Paper: Table 2 in shape. Phantom scores are not clinical results.
See: tests/test_demo.py
"""

import os
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tss import phantom
from tss.files import InputError

PATIENTS = 120  # 77 to train, 19 to validate, 24 to test
GRID = (112, 112, 13)  # half the paper's resolution along each axis
WIDTH = {"2d": 16}  # a quarter of the paper's channels
# The paper's rates are for 272 patients at full size and up to 100 epochs; here each phase has a few dozen steps.
SETTINGS = ("--epochs", "20", "--patience", "8")

Script = Callable[[Sequence[str]], int]


def run(out: Path, model: str, seed: int, preprocess: Script, train: Script, evaluate: Script,
        patients: int = PATIENTS, grid: tuple[int, int, int] = GRID, settings: Sequence[str] = SETTINGS) -> int:
    """Run the four steps, printing each as the command to type; a finished step is not done twice.

    Returns:
        the exit code: 0, or that of the script that did not end well.
    """
    started = time.monotonic()
    jobs = os.cpu_count() or 1
    raw, data, runs, results = out / "phantom", out / "data", out / "runs" / model, out / "eval" / model
    atlas = raw / "atlas_t2w.nii.gz"

    print(f"1. {patients} phantom patients and their atlas in {raw}", flush=True)
    if not (raw / "cohort.csv").is_file():
        phantom.write_atlas(atlas)
        phantom.make_cohort(raw, patients, seed, jobs=jobs)

    steps = {
        "2. Bring the scans into one space": ("run_preprocess.py", preprocess, [
            raw / "cohort.csv", "--out", data, "--atlas", atlas, "--grid", *grid, "--tools", "builtin",
            "--jobs", jobs, "--seed", seed]),
        "3. Train phases 1 to 4": ("run_train.py", train, [
            "--data", data, "--model", model, "--phase", "all", "--out", runs, "--width", WIDTH[model],
            *settings, "--seed", seed, "--resume"]),
        "4. Evaluate each phase on the test patients": ("run_eval.py", evaluate, [
            *(runs / f"phase{number}" / "best.pt" for number in (1, 2, 3, 4)), "--data", data, "--out", results,
            "--gradcam", 3, "--overwrite"]),
    }
    for title, (name, script, words) in steps.items():
        line = [str(word) for word in words]
        print(f"\n{title}\n$ python {name} {shlex.join(line)}", flush=True)
        if code := script(line):
            raise InputError(f"the demo stopped: {name} ended with exit code {code}; what it printed says why.")
    print(f"\nThe demo took {(time.monotonic() - started) / 60:.1f} min. Look at:\n"
          f"  {data / 'qc' / 'index.html'}\n  {runs / 'phase4' / 'curves.png'}\n"
          f"  {results / 'phase4' / 'roc.png'}\n  {results / 'phase4' / 'gradcam'}")
    return 0
