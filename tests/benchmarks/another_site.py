"""A trained network at another site, whose scanner shifts its scores: what recalibration gives back there.

    python tests/benchmarks/another_site.py make site                 200 phantoms, another seed and scanner
    python run_preprocess.py site/cohort.csv --like CKPT --atlas ATLAS --out site_data
    python run_eval.py CKPT --data site_data --out site_eval --gradcam 0
    python tests/benchmarks/another_site.py table site_eval/NAME/predictions.csv

CKPT is a network that was trained on TSS-Phantom, level middle. The site's FLAIR has a TR of 4.8 s in the place of 8.5:
an infarct's longer T1 makes it darker on FLAIR, the more so the shorter TR; so it looks younger than it is, and the
scores shift. Voxels are larger, noise and bias field stronger. The table: of N patients drawn at random the line is
fitted, the intercept alone or intercept and slope, as tss.evaluation.recalibration does; then intercept (off by;
0 = right), slope (1 = right) and Brier score of all others.
These patients are phantoms: phantom scores are not clinical results.
"""

import argparse
import csv
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
from scipy.special import expit, logit

sys.path.insert(0, str(Path(__file__).parents[2]))

from tss.data.files import as_csv, write_text
from tss.display.tables import aligned
from tss.metrics import brier, roc_auc
from tss.metrics.platt import Line, fit_line
from tss.phantom import cohort_phantom, onset_law
from tss.phantom.benchmark import difficulty_of
from tss.phantom.mr_signal import FLAIR_TR_MS, SUBSTANCES

SEED = 31415  # of the site's patients
TR_MS, HEALTHY_T1_MS, LONGER_T1 = 4800.0, 1000.0, 1.3  # our choice: an infarct's T1 is 30 % longer
SCANNER = {"dwi_mm": (2.0, 2.3), "flair_mm": (1.0, 1.2), "snr": (15.0, 25.0), "bias": (0.15, 0.35)}
SIZES = (20, 50, 100)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="make the site's patients")
    make.add_argument("folder", type=Path)
    make.add_argument("--patients", type=int, default=200)
    make.add_argument("--jobs", type=int, default=1)
    table = commands.add_parser("table", help="recalibrate on some, score the others")
    table.add_argument("predictions", type=Path, help="predictions.csv of the site's patients")
    table.add_argument("--draws", type=int, default=200, help="choices of the N patients")
    args = parser.parse_args()
    if args.command == "make":
        make_site(args.folder, args.patients, args.jobs)
    else:
        print_table(*read_scores(args.predictions), args.draws)
    return 0


def make_site(folder: Path, patients: int, jobs: int) -> None:
    """Write the site's scans and cohort.csv."""
    factor = darker(TR_MS) / darker(FLAIR_TR_MS)
    print(f"FLAIR, lesion / healthy: {factor:.3f} times what the training patients' scanner gives", flush=True)
    rows = []
    for row in cohort_phantom.on_cores(partial(make_patient, folder, factor), patients, jobs):
        rows.append(row)
        print(f"{row['patient']}  {len(rows)}/{patients}", flush=True)
    write_text(folder / "cohort.csv", as_csv(rows))


def darker(tr: float) -> float:
    """What the longer T1 alone makes of lesion / healthy, at the inversion time that nulls CSF."""
    csf = SUBSTANCES["csf"].t1
    inversion = csf * (np.log(2) - np.log1p(np.exp(-tr / csf)))
    t1 = HEALTHY_T1_MS * np.array([LONGER_T1, 1.0])
    lesion, healthy = 1 - 2 * np.exp(-inversion / t1) + np.exp(-tr / t1)
    return float(lesion / healthy)


def make_patient(folder: Path, factor: float, number: int) -> dict[str, str]:
    """One patient as this scanner sees it; factor: of FLAIR's lesion / healthy. The latent's law stays as it is."""
    names = {name: value for name, value in vars(onset_law).items() if not name.startswith("__")}
    seen = SimpleNamespace(**names | {"flair_ratio": lambda latent: factor * onset_law.flair_ratio(latent)})
    rng, difficulty = np.random.default_rng([SEED, number]), replace(difficulty_of("middle"), **SCANNER)
    with mock.patch.object(cohort_phantom, "onset_law", seen):
        return cohort_phantom.make_stroke_patient(folder, f"s{number + 1:03d}", rng, difficulty)


def read_scores(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and logits of the patients that have both."""
    with open(path, newline="", encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line["label"] and line["probability"]]
    probability = np.array([float(line["probability"]) for line in lines])
    return np.array([int(line["label"]) for line in lines]), logit(probability.clip(1e-12, 1 - 1e-12))


def print_table(y: np.ndarray, z: np.ndarray, draws: int) -> None:
    """Print the figures before, and after for each N, as medians and middle halves over the choices."""
    print(f"{len(y)} patients, {y.sum()} positive, AUC {roc_auc(y, z):.3f}, mean logit {z.mean():+.2f}")
    off, slope, score = judged(y, z, Line(0.0, 1.0))
    print(f"before, all of them: intercept off by {off:+.2f}, slope {slope:.2f}, Brier score {score:.4f}")
    rows = [["N", "fitted", "", "off by", "slope", "Brier before", "Brier after", "better in"]]
    for n in SIZES:
        for with_slope in (False, True):
            chosen = [one_choice(y, z, n, with_slope, seed) for seed in range(draws)]
            found = np.array([choice for choice in chosen if choice])
            words = "intercept and slope" if with_slope else "intercept"
            rows.append(
                [str(n), words, "median (middle half)"]
                + [middle(column, digits) for column, digits in zip(found[:, :4].T, (2, 2, 4, 4), strict=True)]
                + [f"{100 * found[:, 4].mean():.0f} % of {len(found)}"]
            )
    print(aligned(rows))


def one_choice(y: np.ndarray, z: np.ndarray, n: int, slope: bool, seed: int) -> list[float]:
    """Of the others: off by, slope, Brier score before and after, and is it better? [] with too few of a class."""
    drawn = np.random.default_rng(seed).permutation(len(y))
    some, others = drawn[:n], drawn[n:]
    if min(y[some].sum(), n - y[some].sum()) < 3:  # refused by tss.metrics.platt.gain_of_line
        return []
    line = fit_line(y[some], z[some], slope)
    off, found, after = judged(y[others], z[others], line)
    before = brier(y[others], expit(z[others]))
    return [off, found, before, after, after < before]


def judged(y: np.ndarray, z: np.ndarray, line: Line) -> tuple[float, float, float]:
    """Calibration intercept (at slope 1), slope and Brier score of recalibrated logits."""
    new = line.of(z)
    return fit_line(y, new, slope=False).intercept, fit_line(y, new, slope=True).slope, brier(y, expit(new))


def middle(values: np.ndarray, digits: int) -> str:
    low, half, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{half:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    sys.exit(main())
