"""TSS-Phantom's class-room size: a few patients with coarse scans, small enough to be mailed.

In:    an empty folder
Out:   FOLDER as tss.phantom.cohort_phantom leaves a cohort, with atlas; FOLDER/classroom.json
Paper: - (for teaching; not a benchmark, and its scores compare with nothing)
See:   tests/phantom/test_classroom.py

The patients are the law's, at the easy level, scanned with pixels of 4 mm. Scores are not clinical results.
"""

from dataclasses import replace
from pathlib import Path

from tss.data.files import write_json
from tss.errors import InputError
from tss.phantom.benchmark import LICENCE, SPREADS
from tss.phantom.cohort_phantom import ORDINARY, make_cohort, write_atlas
from tss.phantom.ideal_observer import PHANTOM_NOTE, ceilings

PATIENTS = 28
SEED = 1
COARSE_MM = (3.9, 4.1)
CLASSROOM = replace(
    ORDINARY,
    spread=SPREADS["easy"],
    readers=SPREADS["middle"],
    dwi_mm=COARSE_MM,
    flair_mm=COARSE_MM,
    kinds=(1.0, 0.0, 0.0),  # whole numbers pack best
)
GRID = "48 56 9"


def make_classroom(folder: Path, jobs: int = 1) -> None:
    """Make the patients and say what to type next.

    Raises:
        InputError: the folder holds something.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty. Choose another folder with --out.")
    atlas = folder / "atlas_t2w.nii.gz"
    write_atlas(atlas)
    cohort = make_cohort(folder, PATIENTS, SEED, CLASSROOM, jobs)
    about = {"name": "TSS-Phantom, class-room size", "patients": PATIENTS, "seed": SEED, "note": PHANTOM_NOTE}
    write_json(folder / "classroom.json", about | {"licence": LICENCE, "ceilings": ceilings(CLASSROOM.spread)})
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    print(
        f"{PATIENTS} patients, {size:.1f} MB, in {folder}. {PHANTOM_NOTE}\nLicence: {LICENCE}\n\nNext:\n"
        f"python run_preprocess.py {cohort} --atlas {atlas} --tools builtin --grid {GRID} --out data\n"
        "python run_train.py --data data --model 2d --width 8 --phase all --init random --out runs\n"
        "python run_eval.py runs/phase*/best.pt --data data --out eval",
        flush=True,
    )
