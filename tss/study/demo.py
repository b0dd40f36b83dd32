"""All of it at small scale, on made-up patients: phantom, preprocessing, phases or the whole Table 2, evaluation.

In:  an empty folder.
Out: OUT/phantom (scans), OUT/data (preprocessed), OUT/runs, OUT/eval, and a table next to the phantom's ceiling.
Paper: Table 2 in shape. Phantom scores are not clinical results.
See: tests/study/test_demo.py

Every step but the phantom is the command that a user would type, printed and run (tss.study.programs).
"""

import csv
import os
import time
from collections.abc import Sequence
from pathlib import Path

from tss.data.prepared import qc_page
from tss.data.tasks import POSITIVE
from tss.display.tables import aligned
from tss.evaluation.results import NETWORK, SOFT_CLOCK, Estimate, with_interval
from tss.phantom import cohort_phantom, tumour_phantom
from tss.phantom.ideal_observer import PHANTOM_NOTE
from tss.study.programs import EVALUATE, PREPROCESS, TRAIN, type_in
from tss.study.table2_study import Study, run_study
from tss.training.phases import RECIPES

SOME_FAILED = 1  # exit code of run_preprocess.py: they have their rows with the reason, and the rest is complete
PATIENTS = 80  # 51 to train, 13 to validate, 16 to test
GRID = (112, 112, 13)  # half the paper's resolution along each axis
WIDTH = {"2d": 16, "3d": 8}  # a quarter of the paper's channels
# The paper's rates are for 272 patients and up to 100 epochs. Here an epoch has a dozen steps, so steps are larger.
TWELVE = "--epochs 12 --patience 6 "
TSS = {2: TWELVE + "--lr 5e-4 --final-lr 1e-2", 3: TWELVE + "--lr 5e-4 --final-lr 1e-2", 4: TWELVE + "--lr 5e-5"}
FLAGS = {  # model -> phase -> further flags
    "2d": {1: TWELVE + "--lr 2e-3"} | TSS,
    "3d": {
        0: "--epochs 5 --batch-size 4 --lr 1e-2 --final-lr 1e-1",
        1: "--epochs 20 --patience 10 --batch-size 8 --lr 2e-3",
    }
    | TSS,
}
# To save a minute, half of the least steps of the extended recipe's phase 1: with two seeds the 13 validation patients'
# AUC for stroke was 0.988 and 1.000, with all the steps of the first seed 0.988.
EXTENDED_FLAGS = {1: "--epochs 20"}
# Table 2: rows of one task differ in their first weights alone, so all of them are trained with the flags above.
STUDY_PATIENTS = 160  # 102 to train, 26 to validate, 32 to test
TUMOUR_PATIENTS = 60  # our choice: enough to learn three kinds of tumour from, in a minute or two
TUMOUR_FLAGS = {"2d": TWELVE, "3d": "--epochs 8 --batch-size 2 --lr 1e-2 --final-lr 1e-1"}


def run(out: Path, model: str, seed: int, patients: int = PATIENTS, grid: tuple[int, int, int] = GRID) -> int:
    """Run the four steps of one model; a finished step is not repeated.

    Returns 0; a program that fails has said why, and its exit code is returned.
    """
    started = time.monotonic()
    data, results = out / "data", out / "eval" / model
    runs = {"paper": out / "runs" / model, "extended": out / "runs" / f"{model}-extended"}
    best = {
        (recipe, number): folder / f"phase{number}" / "best.pt"
        for recipe, folder in runs.items()
        for number in FLAGS[model]
        if number > 0 or recipe == "paper"  # restoring is the same in both
    }

    if (code := make_data(out / "phantom", data, patients, grid, seed)) > SOME_FAILED:
        return code

    print("\n3. Train the phases, each from the one before: the paper's, then the extended recipe's", flush=True)
    for recipe, number in best:
        parent = best.get((recipe, number - 1), best.get(("paper", 0)))
        start = ["--init", parent] if parent and number > 0 else ["--model", model, "--width", WIDTH[model]]
        flags = FLAGS[model][number].split()
        if recipe == "extended":
            flags = ["--recipe", recipe, *EXTENDED_FLAGS.get(number, "").split()]
        words = ["--phase", number, *start, "--data", data, "--out", runs[recipe], *flags]
        if code := type_in(TRAIN, [*words, "--seed", seed, "--resume"]):
            return code

    print("\n4. Evaluate each phase on the test patients", flush=True)
    tested = [path for (_, number), path in best.items() if number > 0]
    if code := type_in(
        EVALUATE, [*tested, "--data", data, "--out", results, *"--table --gradcam 3 --overwrite".split()]
    ):
        return code
    print(f"\nAUC [95% CI] on the test patients. {PHANTOM_NOTE}\n{aligned(side_by_side(results / 'table2.csv'))}")
    print(
        f"\nThe demo took {(time.monotonic() - started) / 60:.1f} min. Look at:\n"
        f"  {qc_page(data)}        every patient, before and after\n"
        f"  {runs['paper'] / 'phase1' / 'curves.png'}    how phase 1 learned\n"
        f"  {results / 'table2.md'}    the paper's Table 2\n"
        f"  {results / f'{model}-phase4' / 'gradcam'}    where the paper's network looked\n"
        f"  {results / f'{model}-extended-phase4' / 'gradcam'}    where the extended recipe reads",
        flush=True,
    )
    return 0


def side_by_side(table: Path) -> list[list[str]]:
    """Return of table2.csv a line a phase: both recipes, the soft tissue clock, the best possible on average."""
    rows = read_table(table)
    lines = [["phase", "positive class", "n", *RECIPES, SOFT_CLOCK, "best on average"]]
    networks = [row for row in rows if row["kind"] == NETWORK]  # on all patients
    for phase in dict.fromkeys(row["phase"] for row in networks):
        own = {row["recipe"]: row for row in networks if row["phase"] == phase}
        one = own["paper"]
        clock = [row for row in rows if row["name"].startswith(SOFT_CLOCK) and row["task"] == one["task"]]
        cells = [interval(own[recipe], "auc") for recipe in RECIPES]
        cells += [interval(clock[0], "auc") if clock else "-", interval(one, "ceiling")]
        lines.append([phase, POSITIVE[one["task"]] + ", attention" * (one["attention"] == "yes"), one["n"], *cells])
    return lines


def read_table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def interval(row: dict[str, str], name: str) -> str:
    """Write a number of table2.csv with its interval."""
    value, low, high = (float(row[name + ending]) for ending in ("", "_ci_low", "_ci_high"))
    return with_interval(Estimate(value, (low, high)), 3)


def run_table2(
    out: Path, models: Sequence[str], seed: int, patients: int = STUDY_PATIENTS, grid: tuple[int, int, int] = GRID
) -> int:
    """Make phantom patients and phantoms with tumours, and run tss.study.table2_study on them; as `run`."""
    started = time.monotonic()
    data, scans = out / "data", out / "tumours"
    if (code := make_data(out / "phantom", data, patients, grid, seed)) > SOME_FAILED:
        return code

    print(f"\n3. Make {TUMOUR_PATIENTS} phantoms with tumours in {scans}", flush=True)
    if not (scans / "tumours.csv").is_file():
        tumour_phantom.make_tumours(scans, TUMOUR_PATIENTS, seed, jobs=os.cpu_count() or 1)

    print("\n4. Train every row of Table 2 that can be trained, and evaluate", flush=True)
    values = {
        (recipe, model, number): {"width": WIDTH[model]} | (values_in(flags) if recipe == "paper" else {})
        for recipe in RECIPES
        for model in models
        for number, flags in ({None: TUMOUR_FLAGS[model]} | FLAGS[model]).items()
    }
    code = run_study(Study(data, out / "study", tuple(models), tumours=scans / "tumours.csv", seed=seed, values=values))
    if not code:
        print(f"It took {(time.monotonic() - started) / 60:.1f} min.", flush=True)
    return code


def make_data(raw: Path, data: Path, patients: int, grid: tuple[int, int, int], seed: int) -> int:
    """Make phantom patients in `raw` and preprocess them into `data`; returns the exit code of run_preprocess.py."""
    print(f"1. Make {patients} phantom patients and their atlas in {raw}", flush=True)
    jobs, atlas = os.cpu_count() or 1, raw / "atlas_t2w.nii.gz"
    if not (raw / "cohort.csv").is_file():
        cohort_phantom.write_atlas(atlas)
        cohort_phantom.make_cohort(raw, patients, seed, jobs=jobs)

    print("\n2. Bring the scans into one space", flush=True)
    words = [raw / "cohort.csv", "--out", data, "--atlas", atlas, "--grid", *grid]
    return type_in(PREPROCESS, [*words, "--tools", "builtin", "--jobs", jobs, "--seed", seed])


def values_in(flags: str) -> dict[str, int | float]:
    """Return "--final-lr 1e-2 --epochs 12" as {"final_lr": 0.01, "epochs": 12}."""
    words = flags.split()
    return {
        name.removeprefix("--").replace("-", "_"): int(value) if value.isdigit() else float(value)
        for name, value in zip(words[::2], words[1::2], strict=True)
    }
