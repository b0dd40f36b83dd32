"""The bias correction beside SimpleITK's N4, on phantoms whose field is known: what is left of it, lesions, seconds.

    python tests/benchmarks/bias.py                         ours alone; minutes
    pip install SimpleITK                                   in a scratch environment: then N4 too, 5 to 40 s a volume
    python tests/benchmarks/bias.py --patients 2 --folder /scratch/bias

Scans are made without a field, and a field of the given strength is laid over them. Printed for each strength and
sequence, the mean over patients: SD over the brain of log(estimated field / true field), the change of the lesion's
contrast to the rest of the brain, and seconds. Scores on phantoms are not clinical results.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tss.data import nifti  # noqa: E402
from tss.phantom import cohort_phantom
from tss.phantom.scanner import bias_field  # noqa: E402
from tss.preprocessing.intensity import correct_bias  # noqa: E402

LEVELS = (0.15, 0.3, 0.6)
SEED = 4200
FLAT = replace(cohort_phantom.ORDINARY, bias=(0.0, 0.0))
HUGE = replace(FLAT, volume_ml=(230.0, 0.01), volume_range=(200.0, 260.0), both=0.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=6, help="ordinary ones; one with a huge infarct comes besides")
    parser.add_argument("--folder", type=Path, help="where phantoms are made, and found again; without it a temporary")
    args = parser.parse_args()
    methods = {"ours": correct_bias}
    try:
        import SimpleITK
    except ImportError:
        print("SimpleITK is not installed here (pip install SimpleITK, in a scratch environment): ours alone")
    else:
        methods["N4"] = lambda volume, mask: n4(SimpleITK, volume, mask)
    with tempfile.TemporaryDirectory() as temporary:
        cases = make_cases(args.folder or Path(temporary), args.patients)
        print(" field sequence  patients  method  left over  contrast  seconds")
        for kind in ("ordinary", "huge"):
            for level in LEVELS:
                for sequence in ("dwi", "b0", "flair"):
                    compare(kind, level, sequence, cases[kind], methods)
    return 0


def make_cases(folder: Path, patients: int) -> dict[str, list[dict]]:
    """Return kind -> one dict a patient: sequence -> (scan, brain mask, lesion mask)."""
    cohort_phantom.DWI_BIAS = 0.0  # what the DWI's field has beyond the b0's
    cases = {}
    for kind, difficulty, count in (("ordinary", FLAT, patients), ("huge", HUGE, 1)):
        if not (folder / kind / "cohort.csv").exists():
            cohort_phantom.make_cohort(folder / kind, count, SEED, difficulty, progress=False)
        cases[kind] = [read(folder / kind, f"p{n + 1:03d}") for n in range(count)]
    return cases


def read(folder: Path, name: str) -> dict:
    truth = json.loads((folder / "truth" / f"{name}.json").read_text())
    masks = [nifti.load(folder / "truth" / f"{name}_{mask}.nii.gz") for mask in ("brain", "lesion")]
    found = {}
    for sequence in ("dwi", "b0", "flair"):
        scan = nifti.load(folder / "scans" / f"{name}_{sequence}.nii.gz")
        world = np.linalg.inv(truth["flair_to_b0"]) if sequence == "flair" else np.eye(4)
        found[sequence] = (
            scan.data,
            *(nifti.resample(mask, scan.data.shape, scan.affine, world) > 0.5 for mask in masks),
        )
    return found


def n4(sitk, volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """N4 with its own settings, inside the brain mask."""
    image, inside = (sitk.GetImageFromArray(array.T.copy()) for array in (volume, mask.astype(np.uint8)))
    return sitk.GetArrayFromImage(sitk.N4BiasFieldCorrectionImageFilter().Execute(image, inside)).T


def compare(kind: str, level: float, sequence: str, cases: list[dict], methods: dict) -> None:
    for name, method in methods.items():
        rows = []
        for number, case in enumerate(cases):
            scan, brain, lesion = case[sequence]
            field = bias_field(np.random.default_rng([SEED, number]), scan.shape, level)
            volume = (scan * field).astype(np.float32)
            started = time.perf_counter()
            corrected = method(volume, brain)
            seconds = time.perf_counter() - started
            seen = brain & (volume > 0) & (corrected > 0)
            left = np.log(volume[seen] / corrected[seen]) - np.log(field[seen])
            inside = lesion[seen]
            change = np.exp(left[~inside].mean() - left[inside].mean()) - 1 if inside.any() else 0.0
            rows.append((left.std(), abs(change), seconds))
        left_over, change, seconds = np.mean(rows, axis=0)
        print(
            f"{level:>6.0%} {sequence:<9} {kind:<9} {name:<7} {left_over:>9.4f} {change:>9.1%} {seconds:>8.2f}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
