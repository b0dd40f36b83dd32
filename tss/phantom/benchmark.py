"""TSS-Phantom: the public benchmark, 422 made-up patients whose best answer is known, at three levels of difficulty.

In:    a level, an empty folder (or one in which it was begun), how many of the 422
Out:   FOLDER as tss.phantom.cohort_phantom leaves a cohort, with split and atlas; FOLDER/tss-phantom.json: version, hashes, ceilings,
       readers
Paper: 2.1 (422 patients, 272/68/82), Table 1, Table 2 (readers)
See:   tests/phantom/test_benchmark.py

The levels differ in one number, the biological spread of the FLAIR clock (tss.phantom.onset_law), so they are the same people with
the same heads, infarcts, poses and noise: what differs is how bright each infarct is on FLAIR. The middle spread is
tuned so that the reader of tss.phantom.visible, who looks at the raw scans, is near a sensitivity of 0.55 and a specificity of
0.84 (FIELD 2b; 0.53 and 0.82 on these 422), and the simulated readers of the table have the paper's figures there. The
same readers read all levels.

Version 2: infarcts differ in their ADC as patients do. In version 1 all had nearly the same, so that DWI, which
brightens with the same T2 as FLAIR, told the time as well as FLAIR, and the 2D phases did without FLAIR.

table_sha256, of cohort.csv, is the same on every machine. voxels_sha256 is the same whatever --jobs and the threads,
but another processor or another numpy, scipy or torch may round a voxel otherwise.
Scores on these patients are not clinical results.
"""

import hashlib
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import nibabel
import numpy as np
import scipy
import torch

from tss.data.cohort import SPLITS, Patient, as_csv, write_cohort
from tss.data.files import read_json, sha256, sweep, write_json
from tss.data.splits import assign_splits, in_balance, stratum
from tss.data.tasks import TASKS
from tss.display.tables import aligned, table1
from tss.errors import InputError
from tss.phantom import visible
from tss.phantom.cohort_phantom import ORDINARY, Difficulty, draw_person, make_patient, on_cores, write_atlas
from tss.phantom.ideal_observer import auc, ceilings, realised
from tss.phantom.simulated_readers import PUBLISHED

VERSION = 2  # a change of any law, of a table or of a picture, is another benchmark: count on
SEED = 2021  # the year of the paper
SPLIT = {"train": 272, "val": 68, "test": 82}  # paper 2.1
PATIENTS = sum(SPLIT.values())
# The middle is tuned, see above. The others are our choice: less spread, and more as long as what
# noise leaves of an infarct hardly brighter than its mirror region is still near the ceiling.
SPREADS = {"easy": 0.10, "middle": 0.17, "hard": 0.25}
TABLE_SHA256 = {
    "easy": "8e5388ce3ed99fd32f2d72f3eda91d5e8edf27b1c4c96aef64ed8c43c86caf28",
    "middle": "06472515e0bb8e24979a1f4c69cb00151d4ea192f3c47bfbc1b4197c26f06115",
    "hard": "c958b218a7e16eaf974408313d13652b009f94b06d70e51d4f859f0042b69c44",
}
ABOUT = "tss-phantom.json"
NOTE = "Made-up patients: scores on them are not clinical results."
MISMATCH_MIN = TASKS["tss<4.5h"]  # what a mismatch stands for (paper 4)


def make(folder: Path, level: str, n: int | None = None, jobs: int = 1, say: Callable[[str], None] = print) -> dict:
    """Make the first n patients (None: all), or what is left of them, and describe them.

    Returns: what FOLDER/tss-phantom.json holds.
    Raises:
        InputError: n is too large; the folder holds something else; this machine draws another table.
    """
    folder, n = Path(folder), PATIENTS if n is None else n
    if not 1 <= n <= PATIENTS:
        raise InputError(f"--patients {n}: TSS-Phantom has 1 to {PATIENTS}")
    about = {
        "name": "TSS-Phantom",
        "version": VERSION,
        "level": level,
        "seed": SEED,
        "spread": SPREADS[level],
        "patients": n,
        "note": NOTE,
    }
    check_folder(folder, about)
    patients = table(folder, level)[:n]
    check_table(level)
    write_json(folder / ABOUT, about | {"complete": False})
    if not (folder / "atlas_t2w.nii.gz").is_file():
        write_atlas(folder / "atlas_t2w.nii.gz")

    left = [number for number, patient in enumerate(patients) if not is_made(folder, patient.id, level)]
    say(f"TSS-Phantom {VERSION}, {level}: {n} patients in {folder}; {n - len(left)} are there already")
    start = time.monotonic()
    for done, name in enumerate(on_cores(partial(_make_one, folder, level, left), len(left), min(jobs, len(left))), 1):
        seconds = (time.monotonic() - start) / done * (len(left) - done)
        say(f"phantom {name}  {done:3d}/{len(left)}  {seconds:4.0f} s left")
    for part in filter(Path.is_dir, folder.iterdir()):
        sweep(part)

    write_cohort(folder / "cohort.csv", patients)
    about |= describe(folder, level, patients)
    write_json(folder / ABOUT, about | {"complete": True})
    say(summary(about, patients))
    return about


def check_folder(folder: Path, about: dict) -> None:
    """Refuse a folder that holds something else than the beginning of the same cohort."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / ABOUT).is_file():
        raise InputError(f"{folder} is not empty and holds no TSS-Phantom. Choose another folder with --out.")
    there = read_json(folder / ABOUT)
    for name in ("version", "level"):
        if there.get(name) != about[name]:
            raise InputError(
                f"{folder} holds TSS-Phantom of {name} {there.get(name)}, not {about[name]}. Choose "
                "another folder with --out."
            )
    if there["patients"] > about["patients"]:
        raise InputError(
            f"{folder} is of {there['patients']} patients and can grow, not shrink to "
            f"{about['patients']}. Choose another folder with --out."
        )


def check_table(level: str) -> None:
    """Refuse a machine on which the random numbers, and so the patients, are others."""
    found = hashlib.sha256(as_csv(table(Path(), level), Path()).encode()).hexdigest()
    if found != TABLE_SHA256[level]:
        raise InputError(
            f"tss/phantom/benchmark.py: the table of level {level} has the hash {found[:12]} here, not "
            f"{TABLE_SHA256[level][:12]}: this would not be TSS-Phantom {VERSION}. Install the versions "
            "in requirements.txt; if you changed a law of the phantom, give VERSION and TABLE_SHA256 new "
            "values."
        )


def difficulty(level: str) -> Difficulty:
    """Return how patients and scans vary: as ordinary ones, but for the clock's spread and who reads them."""
    return replace(ORDINARY, spread=SPREADS[level], readers=SPREADS["middle"])


def table(folder: Path, level: str) -> list[Patient]:
    """Return all patients, without making their scans. Any first N have the split's and the time bands' shares."""
    return [
        Patient(draw_person(name_of(number), rng_of(number), difficulty(level))[1] | {"split": split}, folder)
        for number, (_, split) in enumerate(order())
    ]


def name_of(number: int) -> str:
    return f"p{number + 1:03d}"


def rng_of(number: int) -> np.random.Generator:
    """The random numbers of one patient, in the table's order."""
    return np.random.default_rng([SEED, order()[number][0]])


@lru_cache
def order() -> list[tuple[int, str]]:
    """Return for each line of the table the number with which the patient was drawn, and the split; of all levels."""
    drawn = [
        Patient(draw_person(str(i), np.random.default_rng([SEED, i]), difficulty("middle"))[1], Path())
        for i in range(PATIENTS)
    ]
    rng = np.random.default_rng(SEED)
    assign_splits(drawn, rng, {name: n / PATIENTS for name, n in SPLIT.items()})
    return [(int(p.id), p.split) for p in in_balance(drawn, rng, lambda p: (p.split, *stratum(p)[:2]))]


def _make_one(folder: Path, level: str, numbers: list[int], index: int) -> str:
    """Make one patient, look at what was written, and note it in the truth file: that is what finishes a patient."""
    number = numbers[index]
    name = name_of(number)
    make_patient(folder, name, rng_of(number), difficulty(level))
    write_json(
        truth_of(folder, name),
        read_json(truth_of(folder, name))
        | {
            "tss_phantom": [VERSION, level],
            "voxels_sha256": hash_voxels(folder, name),
            "flair_ratio_seen": visible.flair_ratio(folder, name),
        },
    )
    return name


def truth_of(folder: Path, name: str) -> Path:
    return folder / "truth" / f"{name}.json"


def is_made(folder: Path, name: str, level: str) -> bool:
    path = truth_of(folder, name)
    return path.is_file() and read_json(path).get("tss_phantom") == [VERSION, level]


def hash_voxels(folder: Path, name: str) -> str:
    """SHA-256 of a patient's voxels as they are stored, packing and headers left out."""
    digest = hashlib.sha256()
    for file in ("scans/{}_dwi", "scans/{}_b0", "scans/{}_flair", "truth/{}_brain", "truth/{}_lesion"):
        image = nibabel.load(folder / f"{file.format(name)}.nii.gz")
        digest.update(np.ascontiguousarray(image.dataobj.get_unscaled()).data)
    return digest.hexdigest()


def describe(folder: Path, level: str, patients: list[Patient]) -> dict:
    """Return hashes, ceilings and readers of a finished cohort."""
    truths = [read_json(truth_of(folder, patient.id)) for patient in patients]
    voxels = "".join(
        f"{patient.id} {truth['voxels_sha256']}\n" for patient, truth in zip(patients, truths, strict=True)
    )
    seen = [truth["flair_ratio_seen"] for truth in truths]
    groups = {"all": range(len(patients))} | {
        name: [i for i, patient in enumerate(patients) if patient.split == name] for name in SPLITS
    }
    minutes = np.array([patient.minutes for patient in patients])
    readable = np.array([ratio is not None for ratio in seen])
    brightness = np.array([np.nan if ratio is None else ratio for ratio in seen])
    calls = readings(patients) | {"raw FLAIR": [None if ratio is None else ratio < visible.CUT for ratio in seen]}
    return {
        "split": {name: len(groups[name]) for name in SPLITS},
        "table_sha256": sha256(folder / "cohort.csv"),
        "voxels_sha256": hashlib.sha256(voxels.encode()).hexdigest(),
        "ceilings": ceilings(SPREADS[level]),
        "ideal_observer": {
            name: _known(realised(folder / "cohort.csv", "" if name == "all" else name)) for name in groups
        },
        "readers": {
            reader: {name: figures(minutes, said, chosen) for name, chosen in groups.items()}
            for reader, said in calls.items()
        },
        "raw_flair_ratio": {
            "cut": visible.CUT,
            "auc": _known(
                {
                    task: auc(minutes[readable] < limit, -brightness[readable])
                    for task, limit in TASKS.items()
                    if limit is not None
                }
            ),
        },
        "versions": {
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
    }


def _known(figures: dict[str, float]) -> dict[str, float | None]:
    """NaN, where a class is empty, as None: JSON has no NaN."""
    return {name: None if np.isnan(figure) else figure for name, figure in figures.items()}


def readings(patients: list[Patient]) -> dict[str, list[bool]]:
    """What each simulated reader says of each patient, and what two of three say; True = mismatch."""
    each = {reader: [patient.readings[reader] == 1 for patient in patients] for reader in PUBLISHED}
    return each | {"majority": [sum(said) >= 2 for said in zip(*each.values(), strict=True)]}


def figures(minutes: np.ndarray, calls: list[bool | None], chosen: Iterable[int]) -> dict:
    """Return how many patients were read, sensitivity and specificity for less than 4.5 h; None without patients."""
    read = [i for i in chosen if calls[i] is not None]
    early = [calls[i] for i in read if minutes[i] < MISMATCH_MIN]
    late = [not calls[i] for i in read if minutes[i] >= MISMATCH_MIN]
    return {
        "n": len(read),
        "sensitivity": float(np.mean(early)) if early else None,
        "specificity": float(np.mean(late)) if late else None,
    }


def summary(about: dict, patients: list[Patient]) -> str:
    """Return what the command prints at its end: Table 1, the levels with their ceilings, readers and hashes."""

    def shown(figure: float | None) -> str:
        return "-" if figure is None else f"{figure:.3f}"

    tasks = list(TASKS)
    levels = [["best AUC by the law", "spread", *tasks]] + [
        [
            level + (" (this one)" if level == about["level"] else ""),
            f"{spread:.2f}",
            *(f"{ceilings(spread)[task]:.3f}" for task in tasks),
        ]
        for level, spread in SPREADS.items()
    ]
    ideal = [["best AUC on these patients", "n", *tasks]] + [
        [name, str(about["split"].get(name, about["patients"])), *(shown(best[task]) for task in tasks)]
        for name, best in about["ideal_observer"].items()
    ]
    readers = [
        ["mismatch = TSS < 4.5 h", "n", "sensitivity", "specificity", "test: n", "sensitivity", "specificity"]
    ] + [
        [
            reader,
            *(
                text
                for name in ("all", "test")
                for text in (str(row[name]["n"]), shown(row[name]["sensitivity"]), shown(row[name]["specificity"]))
            ),
        ]
        for reader, row in about["readers"].items()
    ]
    folder = patients[0].folder
    return "\n\n".join(
        [
            table1(patients),
            aligned(levels),
            aligned(ideal),
            aligned(readers),
            f"table_sha256   {about['table_sha256']}\nvoxels_sha256  {about['voxels_sha256']}\n{NOTE}",
            f"Next: python run_preprocess.py {folder / 'cohort.csv'} --atlas {folder / 'atlas_t2w.nii.gz'} --tools builtin "
            f"--out data",
        ]
    )
