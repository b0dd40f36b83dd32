"""The cohort table: what is known of each patient, the labels, and the split by patient.

In:  cohort.csv, one row a patient, paths relative to the file (columns: README, "Your own data").
Out: Patients in the file's order, a split written once, samples (patient, side, label) for each task, Table 1.
Paper: 2.1 (64/16/20 % by patient, one test set for all tasks), 2.3 (labels), Table 1.
See: tests/data/test_cohort.py
"""

import csv
import hashlib
import io
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tss.data.files import write_text
from tss.display.tables import aligned
from tss.errors import InputError

SCANS = ("dwi", "dwi_bval", "b0", "adc", "flair", "lesion")  # columns that hold paths
SIDES = ("left", "right")
VERDICTS = ("accept", "reject", "unsure")  # of the person who looks at qc/index.html
VERDICT_COLUMNS = ("verdict", "verdict_remark")
SPLITS = {"train": 0.64, "val": 0.16, "test": 0.20}  # paper 2.1
TASKS = {"stroke": None, "tss<3h": 180.0, "tss<4.5h": 270.0}  # positive below so many minutes (paper 2.3)
RESTORE = "restore"  # phase 0's task: no labels, so it is none of TASKS (paper 2.2)
TUMOURS = {"2d": "tumour type", "3d": "tumour outline"}  # what medical weights learn, on other patients (paper 3)
READER = re.compile(r"reader_\d+")  # columns: 1 = DWI-FLAIR mismatch seen, 0 = not seen, empty = not read
BANDS_MIN = (180.0, 270.0)  # bands that the split is stratified by: < 3 h, 3-4.5 h, > 4.5 h (DESIGN 3.7)
MOST_PROBLEMS_SHOWN = 10


@dataclass
class Patient:
    """One row of the table. `row` is the row as it stands, unknown columns included; `folder` is the file's."""

    row: dict[str, str]
    folder: Path

    @property
    def id(self) -> str:
        return self.row["patient"]

    def path(self, column: str) -> Path | None:
        """Return the scan's path, or None where the cell is empty."""
        return self.folder / self.row[column] if self.row.get(column) else None

    @property
    def bval(self) -> Path:
        """Where a 4-D DWI has its b-values: the table's dwi_bval, else beside the DWI, as dcm2niix leaves them."""
        dwi = self.path("dwi")
        return self.path("dwi_bval") or dwi.with_name(dwi.name.removesuffix(".gz").removesuffix(".nii") + ".bval")

    @property
    def minutes(self) -> float | None:
        """Onset to MRI in minutes; None = unknown."""
        return float(self.row["onset_to_mri_min"]) if self.row.get("onset_to_mri_min") else None

    @property
    def side(self) -> str:
        """"left", "right", "both", or "" = unknown."""
        return self.row.get("stroke_side", "")

    @property
    def readings(self) -> dict[str, int]:
        """What each reader who has read the scans says: 1 = DWI-FLAIR mismatch, so TSS < 4.5 h (paper 2.1, 4)."""
        return {name: int(cell) for name, cell in self.row.items() if READER.fullmatch(name) and cell}

    @property
    def split(self) -> str:
        return self.row.get("split", "")

    @property
    def status(self) -> str:
        """"ok", "failed", "rejected" (ok, but a person rejects it), or "" = not preprocessed yet."""
        status = self.row.get("status", "")
        return "rejected" if status == "ok" and self.row.get("verdict") == "reject" else status

    @property
    def reason(self) -> str:
        """Why the patient takes no part in training and evaluation; "" where it does."""
        if self.status == "rejected":
            remark = " ".join(self.row.get("verdict_remark", "").split())
            return "rejected at quality control" + (f": {remark}" if remark else "")
        return self.row.get("reason", "") or ("" if self.status == "ok" else "not preprocessed")


class Sample(NamedTuple):
    """A hemisphere to classify: label 1 = positive, 0 = negative, -1 = unknown."""

    patient: str
    side: str
    label: int


def read_cohort(path: str | os.PathLike) -> list[Patient]:
    """Read and check a cohort table. Whether each scan can be read is found out when it is read.

    Raises:
        InputError: all that is wrong with the table, line by line.
    """
    def problems(patient: Patient) -> list[str]:
        # A prepared table keeps patients whose scans were not found: they failed, and the reason stands there.
        return row_problems(patient.row) + ([] if "status" in patient.row else _scan_problems(patient))

    return read_table(Path(path), _missing_columns, problems)


def read_table(path: Path, missing_columns: Callable[[list[str]], list[str]],
               problems_of: Callable[[Patient], list[str]]) -> list[Patient]:
    """Read a CSV table with a header and a line for each patient.

    Args:
        missing_columns: header -> names of the columns that it should have and has not.
        problems_of: patient -> what is wrong with the line, a sentence each.

    Raises:
        InputError: unreadable, no header or patient, or all that is wrong with it, line by line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # -sig: Excel writes a byte-order mark
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Give the path of your table.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file in UTF-8. Save the table as CSV (UTF-8).") from error

    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cells)]
    except csv.Error as error:
        raise InputError(f"{path} line {reader.line_num}: {error}. Save the table as CSV (UTF-8).") from error
    if len(lines) < 2:
        raise InputError(f"{path} has no patients: a header line and one line a patient are needed.")
    header = lines[0][1]
    _check_header(header, missing_columns(header), path)

    patients, problems, seen = [], [], {}
    for number, cells in lines[1:]:
        if len(cells) != len(header):
            problems.append(f"line {number}: {len(cells)} cells where the header has {len(header)}")
            continue
        patient = Patient(dict(zip(header, cells, strict=True)), path.parent)
        problems += [f"line {number}: {problem}" for problem in name_problems(patient.id) + problems_of(patient)]
        # Folded, since some file systems do not tell A.npy from a.npy.
        if first := seen.get(patient.id.casefold()):
            problems.append(f"line {number}: patient {patient.id!r} is already on line {first}; one line a patient")
        seen.setdefault(patient.id.casefold(), number)
        patients.append(patient)
    refuse(path, problems)
    return patients


def refuse(path: Path, problems: list[str]) -> None:
    """Raise an InputError that lists what is wrong with a table, unless nothing is."""
    if problems:
        more = len(problems) - MOST_PROBLEMS_SHOWN
        shown = problems[:MOST_PROBLEMS_SHOWN] + ([f"and {more} more"] if more > 0 else [])
        raise InputError(f"{path} cannot be used; correct these cells:\n  " + "\n  ".join(shown))


def _check_header(header: list[str], missing: list[str], path: Path) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputError(f"{path}: column {', '.join(twice)} stands twice in the header. Rename or remove one.")
    if missing:
        raise InputError(f"{path}: column {', '.join(missing)} is missing; the header has {', '.join(header)}. "
                         "Add it, separated by commas; cells may be empty where something is unknown.")


def _missing_columns(header: list[str]) -> list[str]:
    needed = ["patient", "dwi", "flair", "onset_to_mri_min", "stroke_side"]
    missing = [name for name in needed if name not in header]
    return missing if "b0" in header or "adc" in header else [*missing, "b0 (or adc)"]


def _scan_problems(patient: Patient) -> list[str]:
    problems = [f"{column} is empty; give the scan's path" for column in ("dwi", "flair") if not patient.row[column]]
    if patient.row["dwi"] and not (patient.row.get("b0") or patient.row.get("adc") or patient.bval.is_file()):
        problems.append("neither b0 nor adc is given; one of the two is needed, or a 4-D DWI with its .bval beside it")
    return problems


def name_problems(name: str) -> list[str]:
    """Return what is wrong with a patient's name, which becomes that of files."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) and ".." not in name:
        return []
    return [f"patient {name!r} cannot name a file; use letters, digits, '-', '_' and '.'"]


def row_problems(row: dict[str, str]) -> list[str]:
    """Return what is wrong with a patient's values, name and scans apart, a sentence each."""
    problems = []
    minutes = row["onset_to_mri_min"]
    if minutes and not (_is_number(minutes) and float(minutes) > 0):
        problems.append(f"onset_to_mri_min is {minutes!r}; write minutes above 0, or leave it empty if unknown")
    if row["stroke_side"] not in ("left", "right", "both", ""):
        problems.append(f"stroke_side is {row['stroke_side']!r}; write left, right or both, or leave it empty")
    if row.get("split", "") not in (*SPLITS, ""):
        problems.append(f"split is {row['split']!r}; write train, val or test, or leave it empty")
    if row.get("verdict", "") not in (*VERDICTS, ""):
        problems.append(f"verdict is {row['verdict']!r}; write accept, reject or unsure, or leave it empty; "
                        "this column is quality control's")
    problems += [f"{name} is {cell!r}; write 1 = DWI-FLAIR mismatch, 0 = none, or leave it empty = not read"
                 for name, cell in row.items() if READER.fullmatch(name) and cell not in ("0", "1", "")]
    if row.get("status", "") not in ("ok", "failed", ""):
        problems.append(f"status is {row['status']!r}; this column is run_preprocess.py's, which writes ok or failed: "
                        "rename yours")
    problems += [f"{name} is {row[name]!r}; this column is run_preprocess.py's: rename yours"
                 for name in ("reason", "flags") if row.get(name) and "status" not in row]
    if row.get("phantom") and not _is_number(row["phantom"]):
        problems.append(f"phantom is {row['phantom']!r}; this column marks made-up patients with the spread of their "
                        "clock: rename yours")
    return problems


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def read_prepared(data: str | os.PathLike) -> list[Patient]:
    """Read DATA/cohort.csv as run_preprocess.py leaves it: with split, status, reason and flags.

    Raises:
        InputError: there is none, or it is a raw cohort table.
    """
    path = Path(data) / "cohort.csv"
    if not path.is_file():
        raise InputError(f"{path} does not exist. Make it first: python run_preprocess.py COHORT_CSV --out {data}")
    patients = read_cohort(path)
    if missing := [name for name in ("split", "status") if name not in patients[0].row]:
        raise InputError(f"{path} has no column {', '.join(missing)}: it is a raw table. "
                         f"Run: python run_preprocess.py {path} --out DATA")
    return patients


def write_cohort(path: str | os.PathLike, patients: list[Patient]) -> None:
    """Write the table with every column that any patient has. Paths become relative to the new file."""
    write_text(path, as_csv(patients, Path(path).parent))


def as_csv(patients: list[Patient], folder: Path) -> str:
    """Return the text of the table's file, paths relative to `folder`."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(as_table(patients, folder))
    return text.getvalue()


def as_table(patients: list[Patient], folder: Path) -> list[list[str]]:
    """Return header and lines with every column that any patient has, paths relative to `folder`."""
    columns = list(dict.fromkeys(column for patient in patients for column in patient.row))
    lines = []
    for patient in patients:
        moved = {name: path_from(folder, patient.path(name)) for name in SCANS if patient.path(name)}
        lines.append([(patient.row | moved).get(column, "") for column in columns])
    return [columns, *lines]


def path_from(folder: Path, path: Path) -> str:
    """Return a file's path relative to a folder, as the system follows it: ".." of a link is not where it was typed.

    A file that is a link itself keeps its name, beside which its .bval lies.
    """
    return os.path.relpath(Path(os.path.realpath(path.parent)) / path.name, os.path.realpath(folder))


def stratum(patient: Patient) -> tuple:
    """Return what the split is even in: is the onset known, its band, the side (DESIGN 3.7)."""
    known = patient.minutes is not None
    return known, sum(patient.minutes >= bound for bound in BANDS_MIN) if known else 0, patient.side


def assign_splits(patients: list[Patient], rng: np.random.Generator, shares: Mapping[str, float] = SPLITS,
                  stratum: Callable[[Patient], tuple] = stratum) -> None:
    """Give each patient without a split one: 64/16/20 % by patient, even in time band and side (DESIGN 3.7).

    Patients are shuffled, lined up by stratum and dealt out, each to the split that is furthest behind its share.
    That keeps the shares within one patient overall and close to it in each stratum.
    """
    dealt = {name: sum(patient.split == name for patient in patients) for name in shares}
    without = [patient for patient in patients if not patient.split]
    without = [without[i] for i in rng.permutation(len(without))]
    for patient in sorted(without, key=stratum):
        total = sum(dealt.values()) + 1
        behind = max(shares, key=lambda name: shares[name] * total - dealt[name])
        patient.row["split"] = behind
        dealt[behind] += 1


def in_balance(patients: list[Patient], rng: np.random.Generator,
               stratum: Callable[[Patient], tuple] = stratum) -> list[Patient]:
    """Shuffle, so that any first N have of each stratum about N's share: each is spread evenly over the whole list."""
    shuffled = [patients[i] for i in rng.permutation(len(patients))]
    size, seen, places = Counter(map(stratum, patients)), Counter(), []
    for patient in shuffled:
        group = stratum(patient)
        places.append((seen[group] + 0.5) / size[group])
        seen[group] += 1
    return [shuffled[i] for i in np.argsort(places, kind="stable")]


def fewer_to_train(patients: list[Patient], n: int, seed: int) -> list[Patient]:
    """Leave out all but n of the training patients that are prepared, for learning curves; who else is there stays.

    Of one seed fewer are always among more (nested), and every n is even in time band and side.

    Raises:
        InputError: there are not so many.
    """
    there = [patient for patient in patients if patient.split == "train" and patient.status == "ok"]
    if n > len(there):
        raise InputError(f"--train-patients {n}: of the patients in split 'train' {len(there)} are prepared. Give at "
                         "most so many.")
    left_out = {patient.id for patient in in_balance(there, np.random.default_rng(seed))[n:]}
    return [patient for patient in patients if patient.id not in left_out]


def split_hash(patients: list[Patient]) -> str:
    """Return the SHA-256 of who is in which split: equal hashes mean that no test patient was trained on."""
    lines = sorted(f"{patient.id},{patient.split}\n" for patient in patients)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def samples(patients: list[Patient], task: str, split: str) -> list[Sample]:
    """Return the hemispheres that take part in a task, with labels (paper 2.3).

    "stroke": both hemispheres of patients whose side is known; 1 = stroke in this hemisphere.
    "tss<3h", "tss<4.5h": hemispheres with stroke of patients whose onset is known; 1 = onset less long ago.
    "restore": both hemispheres of everybody, without labels (-1); side and onset may be unknown.
    Who failed, or was rejected at quality control, is in none of them.
    """
    usable = [p for p in patients if p.status == "ok" and p.split == split]
    if task == RESTORE:
        return [Sample(p.id, side, -1) for p in usable for side in SIDES]
    taking_part = [p for p in usable if p.side]
    limit = TASKS[task]
    if limit is None:
        return [Sample(p.id, side, int(p.side in (side, "both"))) for p in taking_part for side in SIDES]
    return [Sample(p.id, side, int(p.minutes < limit)) for p in taking_part if p.minutes is not None
            for side in SIDES if p.side in (side, "both")]


def table1(patients: list[Patient]) -> str:
    """Return the paper's Table 1 of this cohort as text."""
    return aligned(table1_rows(patients))


def table1_rows(patients: list[Patient]) -> list[list[str]]:
    """Return the rows of the paper's Table 1, the header first: n (%) or median (interquartile range), by split."""
    groups = {"All": patients} | {name: [p for p in patients if p.split == name] for name in SPLITS}
    groups = {name: group for name, group in groups.items() if group}

    def numbers(group: list[Patient], column: str) -> str:
        values = [float(p.row[column]) for p in group if _is_number(p.row.get(column, ""))]
        if not values:
            return "-"
        quarter, half, three = np.percentile(values, [25, 50, 75])
        unknown = f", {len(group) - len(values)} unknown" if len(values) < len(group) else ""
        return f"{half:.0f} ({quarter:.0f}-{three:.0f}){unknown}"

    def share(group: list[Patient], true: list[bool]) -> str:
        return f"{sum(true)} ({100 * sum(true) / len(group):.0f}%)"

    rows = {
        "Patients": lambda g: str(len(g)),
        "Age (years)": lambda g: numbers(g, "age"),
        "Female": lambda g: share(g, [p.row.get("sex", "").lower() in ("f", "female") for p in g])
        if any(p.row.get("sex") for p in g) else "-",
        "NIHSS": lambda g: numbers(g, "nihss"),
        "Onset to MRI (min)": lambda g: numbers(g, "onset_to_mri_min"),
        "TSS < 3 h": lambda g: share(g, [p.minutes is not None and p.minutes < TASKS["tss<3h"] for p in g]),
        "TSS < 4.5 h": lambda g: share(g, [p.minutes is not None and p.minutes < TASKS["tss<4.5h"] for p in g]),
        "Side left/right/both/unknown": lambda g: "/".join(str(sum(p.side == s for p in g))
                                                           for s in ("left", "right", "both", "")),
    }
    return [["Table 1", *groups]] + [[name, *(cell(g) for g in groups.values())] for name, cell in rows.items()]
