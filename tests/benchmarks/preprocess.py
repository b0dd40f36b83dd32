"""Preprocessing on phantoms with known truth: 12 ordinary, 12 much harder, one with a huge infarct.

    python tests/benchmarks/preprocess.py                              both backends, FSL where it is installed
    python tests/benchmarks/preprocess.py --tools builtin --folder /scratch/phantoms
    python tests/benchmarks/preprocess.py --tools fsl literal --count 6        FLIRT takes minutes a patient
    python tests/benchmarks/preprocess.py --alone                      each difficulty by itself, beyond HARD's

What is printed for each set, median and worst: Dice of the brain mask against the true one; distance in mm between
where the found and the true affine bring the infarct's centroid; between where they bring the corners of the FLAIR's
brain, at worst and on average over the brain; whether the infarct lies in its own hemisphere of the output; by how
much its contrast to the mirror side differs from the scan's own, in percent; seconds for one patient on one core,
start-up left out, without and with writing of its files; how many are flagged. Seconds are the processor's, FSL's
programs included, so that other jobs on the machine do not count.

Contrast is compared with the same scan without bias field (the same patient made again, as the same random numbers
allow), since a field of 60 % makes one side brighter than the other and is there to be taken away.
Scores on phantoms are not clinical results. Exit code 1 where the built-in tools miss a target.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: seconds on one core
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path[:0] = map(str, Path(__file__).parents[1:3])
import numpy as np  # noqa: E402
from heads import HARD

from tss.data import hemispheres, nifti
from tss.data.cohort import Patient, read_cohort
from tss.data.nifti import apply_affine
from tss.data.prepared import GRID
from tss.phantom import cohort_phantom
from tss.preprocessing import fsl, patient_record, quality_control
from tss.preprocessing.atlas import load_atlas
from tss.preprocessing.pipeline import Prepared
from tss.preprocessing.scans import load_scans
from tss.preprocessing.tools import NAMES, find_tools

DWI_BIAS = cohort_phantom.DWI_BIAS  # what the DWI's field has beyond the b0's
PLAIN = replace(cohort_phantom.ORDINARY, volume_ml=(40.0, 0.5))
HUGE = replace(cohort_phantom.ORDINARY, volume_ml=(240.0, 0.01), volume_range=(230.0, 250.0), both=0.0)
SETS = {"ordinary": (cohort_phantom.ORDINARY, 41), "hard": (HARD, 42), "huge": (HUGE, 43)}
ALONE = {  # each of HARD's difficulties by itself and beyond it, where a middling draw is hard already
    "tilt 35": replace(PLAIN, tilt=35.0),
    "shift 50": replace(PLAIN, shift=50.0),
    "neck 120": replace(PLAIN, neck=120.0),
    "cut top 25": replace(PLAIN, cut_top=25.0),
    "bias 80 %": replace(PLAIN, bias=(0.8, 0.8)),
    "snr 6": replace(PLAIN, snr=(6.0, 6.0)),
    "stripped": replace(PLAIN, stripped=1.0),
    "huge infarct": HUGE,
    "tiny infarct": replace(PLAIN, volume_ml=(0.3, 0.01), volume_range=(0.3, 0.4)),
    "old infarct": replace(PLAIN, old_infarct=1.0),
    "midline 14": replace(PLAIN, midline_shift=14.0),
    "motion 20": replace(PLAIN, motion=(20.0, 20.0)),
}
TARGETS = {  # set: figure, statistic, limit; for the built-in tools
    "ordinary": [("dice", "worst", 0.97), ("centroid", "median", 2.5), ("centroid", "worst", 6.0)],
    "hard": [("dice", "worst", 0.94), ("centroid", "median", 2.5)],
    "huge": [("dice", "worst", 0.97), ("centroid", "worst", 6.0)],
}
FOR_ALL = [
    ("flair", "worst", 1.0),
    ("side", "worst", 1),
    ("dwi %", "worst", 10.0),
    ("flair %", "worst", 10.0),
    ("seconds", "median", 5.0),
]
LOW_IS_BAD = ("dice", "side")
FIGURES = ("dice", "centroid", "flair", "corner", "side", "dwi %", "flair %", "seconds", "files s")


def main() -> int:
    args = parse()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        every = {name: (made, 60 + k) for k, (name, made) in enumerate(ALONE.items())} if args.alone else SETS
        sets = {name: every[name] for name in args.sets or every}
        make_phantoms(folder, sets, args)
        print(
            f"grid {' x '.join(map(str, args.grid))}, numpy {np.__version__}, load {os.getloadavg()[0]:.1f} on "
            f"{os.cpu_count()} cores. Median, and worst:",
            flush=True,
        )
        missed = []
        for tools in args.tools or ["builtin", *(["fsl"] if fsl.available() else [])]:
            print(find_tools(tools).describe())
            reference = None  # the first patient's histogram is everybody's, as in a study
            for name in sets:
                found = []
                for patient in patients_of(folder / name, args):
                    found.append(measure(patient, folder, tools, tuple(args.grid), reference))
                    reference = reference or found[-1].get("reference")
                missed += [f"{tools}, {miss}" for miss in report(name, found)]
    print("\n".join(["missed:", *missed] if missed else ["every target reached"]))
    return 1 if any(miss.startswith("builtin") for miss in missed) else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tools",
        nargs="+",
        choices=NAMES,
        help="without it the built-in ones, and FSL where it is installed",
    )
    parser.add_argument("--folder", type=Path, help="where phantoms are made, and found again; without it a temporary")
    parser.add_argument("--count", type=int, default=12, help="patients of each set")
    parser.add_argument("--sets", nargs="+", help="some of the sets only")
    parser.add_argument("--alone", action="store_true", help="each difficulty alone, beyond HARD, 2 patients each")
    parser.add_argument("--grid", type=int, nargs=3, default=GRID, metavar=("X", "Y", "Z"))
    return parser.parse_args()


def count_of(name: str, args: argparse.Namespace) -> int:
    return 2 if args.alone else 1 if name == "huge" else args.count


def make_phantoms(folder: Path, sets: dict, args: argparse.Namespace) -> None:
    """Make what is not there yet: each set, and beside it the same patients without bias field."""
    if not (folder / "atlas.nii.gz").exists():
        cohort_phantom.write_atlas(folder / "atlas.nii.gz")
    for name, (difficulty, seed) in sets.items():
        flat = replace(difficulty, bias=(0.0, 0.0))
        for place, made in ((folder / name, difficulty), (folder / name / "flat", flat)):
            if not (place / "cohort.csv").exists():
                print(f"making {count_of(name, args)} phantoms in {place}", flush=True)
                cohort_phantom.DWI_BIAS = 0.0 if place.name == "flat" else DWI_BIAS
                cohort_phantom.make_cohort(place, count_of(name, args), seed, made, jobs=1, progress=False)


def patients_of(folder: Path, args: argparse.Namespace) -> list[Patient]:
    return read_cohort(folder / "cohort.csv")[: count_of(folder.name, args)]


def measure(patient: Patient, folder: Path, tools: str, grid: tuple[int, int, int], reference: dict | None) -> dict:
    """Preprocess one patient and compare with its truth; flags and failure are carried along."""
    atlas_file = str(folder / "atlas.nii.gz")
    atlas = load_atlas(atlas_file, grid)
    place = patient.path("dwi").parents[1]
    started = cpu_seconds()
    prepared, reason = patient_record.try_to_prepare(patient, atlas, tools, reference)
    seconds = cpu_seconds() - started
    if prepared is None:
        return {"patient": patient.id, "reason": reason, "flags": []}
    with tempfile.TemporaryDirectory() as out:
        started = cpu_seconds()
        patient_record._write_files(patient.id, prepared, atlas, {}, Path(out))
        writing = cpu_seconds() - started

    truth = json.loads((place / "truth" / f"{patient.id}.json").read_text())
    brain = nifti.load(place / "truth" / f"{patient.id}_brain.nii.gz")
    lesion = nifti.load(patient.path("lesion"))
    scans = load_scans(patient)
    found = find_tools(tools).find_brain(scans.dwi, scans.b0)

    true_atlas, true_flair = np.array(truth["b0_to_atlas"]), np.array(truth["flair_to_b0"])
    points = apply_affine(brain.affine, np.argwhere(brain.data > 0).T)
    box = np.array(list(np.ndindex(2, 2, 2))) * np.ptp(np.argwhere(brain.data > 0), 0)
    corners = apply_affine(brain.affine, (box + np.argwhere(brain.data > 0).min(0)).T)
    centroid = apply_affine(lesion.affine, np.argwhere(lesion.data > 0).T).mean(1, keepdims=True)
    to_flair = np.linalg.inv(true_flair)
    contrasts = contrast_changes(patient, place / "flat", prepared, atlas)
    return {
        "patient": patient.id,
        "reason": "",
        "flags": prepared.flags,
        "reference": {"landmarks": prepared.landmarks},
        "ml": truth["lesion_ml"],
        "dice": quality_control.dice(found, brain.data > 0),
        "centroid": apart(prepared.b0_to_atlas, true_atlas, centroid)[0],
        "flair": apart(prepared.flair_to_b0, true_flair, apply_affine(to_flair, points)).mean(),
        "corner": apart(prepared.flair_to_b0, true_flair, apply_affine(to_flair, corners)).max(),
        "side": side_is_right(prepared, patient.row["stroke_side"]),
        "dwi %": contrasts["dwi"],
        "flair %": contrasts["flair"],
        "seconds": seconds,
        "files s": seconds + writing,
    }


def cpu_seconds() -> float:
    """Processor time of this process and of the programs that it has started and seen end."""
    return sum(os.times()[:4])


def contrast_changes(patient: Patient, flat: Path, prepared: Prepared, atlas) -> dict[str, float]:
    """By how many percent the ratio of the infarct's mean to its mirror's differs from the scan's own."""
    mirror = prepared.lesion[::-1] & prepared.mask & ~prepared.lesion
    inside = prepared.lesion & prepared.mask
    to_atlas = {"dwi": prepared.b0_to_atlas, "flair": prepared.b0_to_atlas @ prepared.flair_to_b0}
    changes = {}
    for name, world in to_atlas.items():
        raw = nifti.resample(nifti.load(flat / patient.row[name]), atlas.shape, atlas.affine, world)
        before = raw[inside].mean() / raw[mirror].mean()
        after = prepared.volumes[name][inside].mean() / prepared.volumes[name][mirror].mean()
        changes[name] = float(abs(100 * (after / before - 1)))
    return changes


def side_is_right(prepared: Prepared, side: str) -> int:
    """1 where the infarct's voxels lie in the hemisphere that the table names; both: in either."""
    left, right = (half.sum() for half in hemispheres.split(prepared.lesion[None].astype(np.float32)))
    return int({"left": left > right, "right": right > left, "both": min(left, right) > 0}[side])


def apart(one: np.ndarray, other: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(apply_affine(one, points) - apply_affine(other, points), axis=0)


def report(name: str, found: list[dict]) -> list[str]:
    """Print a set's figures; return the targets that it misses."""
    failed = [f"{row['patient']}: {row['reason']}" for row in found if row["reason"]]
    rows = [row for row in found if not row["reason"]]
    flagged = [f"{row['patient']}: {'; '.join(row['flags'])}" for row in rows if row["flags"]]
    missed = [f"{name}: failed {failure}" for failure in failed]
    print(f"\n  {name}, {len(found)} patients" + (f", {rows[0]['ml']:.0f} ml" if len(rows) == 1 else ""))
    if not rows:
        return missed
    values = {figure: np.array([row[figure] for row in rows]) for figure in FIGURES}
    worst = {figure: values[figure].min() if figure in LOW_IS_BAD else values[figure].max() for figure in FIGURES}
    median = {figure: np.median(values[figure]) for figure in FIGURES}
    print("           " + "".join(f"{figure:>10}" for figure in FIGURES))
    for label, line in (("median", median), ("worst", worst)):
        print(f"    {label:7}" + "".join(f"{line[figure]:10.3f}" for figure in FIGURES))
    guilty = {
        figure: rows[int(values[figure].argmin() if figure in LOW_IS_BAD else values[figure].argmax())]
        for figure in FIGURES
    }
    print("    worst is" + "".join(f"{guilty[figure]['patient']:>10}" for figure in FIGURES)[1:])
    print(f"    flagged {len(flagged)}" + "".join(f"\n      {line}" for line in flagged), flush=True)
    for figure, statistic, limit in (TARGETS.get(name) or []) + FOR_ALL:
        value = {"median": median, "worst": worst}[statistic][figure]
        if value < limit if figure in LOW_IS_BAD else value > limit:
            missed.append(f"{name}: {statistic} {figure} is {value:.3f}, target {limit}")
    return missed


if __name__ == "__main__":
    sys.exit(main())
