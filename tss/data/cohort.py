"""The cohort table: what is known of each patient.

In:  cohort.csv, one row a patient, paths relative to the file (columns: README, "Your own data").
Out: Patients in the file's order; the same table, written.
Paper: 2.1 (patients, what is known of them).
See: tests/data/test_cohort.py
"""

import csv
import difflib
import io
import itertools
import math
import os
import re
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tss.data.diffusion import B_RANGE
from tss.data.files import write_text
from tss.data.text_tables import read_text_table, same_name
from tss.errors import InputError

SCANS = ("dwi", "dwi_bval", "b0", "adc", "flair", "lesion")  # columns that hold paths
DICOM = "dicom"  # column: a folder of DICOM files, in the place of scans (tss.preprocessing.dicom)
SIDES = ("left", "right")
VERDICTS = ("accept", "reject", "unsure")  # of the person who looks at qc/index.html
VERDICT_COLUMNS = ("verdict", "verdict_remark")
SPLITS = {"train": 0.64, "val": 0.16, "test": 0.20}  # paper 2.1
EXTERNAL = "external"  # the split of patients that are in none: of another hospital, or new (decision 20)
READER = re.compile(r"reader_\d+")  # columns: 1 = DWI-FLAIR mismatch seen, 0 = not seen, empty = not read
LABELS = ("onset_to_mri_min", "stroke_side")  # columns that may be absent: nothing is known then
NUMBERS = ("onset_to_mri_min", "age", "nihss", "dwi_b", "field_strength")  # columns in which 3,5 may mean 3.5
WORDS = {"stroke_side": (*SIDES, "both"), "split": (*SPLITS, EXTERNAL)}  # what a cell may say, in whatever capitals
KNOWN = ("patient", *SCANS, DICOM, *NUMBERS, *WORDS, "sex", "session")  # columns whose header may be spelt with blanks
SEXES = ("", "f", "female", "m", "male", "other", "unknown")  # codes are asked about: 1 is male here and female there
SOONEST_MIN = 10.0  # our choice: nobody is scanned so soon after onset; such a number is in hours
CODES_OF_UNKNOWN = {"999": 2, "9999": 1, "99999": 1}  # our choice: asked about from so many patients on
EARLY_MIN = 30.0  # our choice: no hospital scans half of its patients so soon; phantoms begin at 20
MOST_PROBLEMS_SHOWN = 10
LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes, of Linux
LONGEST_PATIENT = 150  # our choice: letters of a patient's name, which gets endings


@dataclass
class Patient:
    """One row of the table: `row` as in the file, unknown columns included; `folder` is the file's."""

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
        dwi = self.folder / self.row["dwi"]
        return self.path("dwi_bval") or dwi.with_name(dwi.name.removesuffix(".gz").removesuffix(".nii") + ".bval")

    @property
    def b(self) -> float | None:
        """b-value of a 3-D DWI in s/mm^2 as the table has it; None = it says nothing."""
        return float(self.row["dwi_b"]) if self.row.get("dwi_b") else None

    @property
    def minutes(self) -> float | None:
        """Onset to MRI in minutes; None = unknown."""
        return float(self.row["onset_to_mri_min"]) if self.row.get("onset_to_mri_min") else None

    @property
    def side(self) -> str:
        """ "left", "right", "both", or "" = unknown."""
        return self.row.get("stroke_side", "")

    @property
    def readings(self) -> dict[str, int]:
        """Calls of the readers who have read the scans: 1 = DWI-FLAIR mismatch, so TSS < 4.5 h (paper 2.1, 4)."""
        return {name: int(cell) for name, cell in self.row.items() if READER.fullmatch(name) and cell}

    @property
    def split(self) -> str:
        return self.row.get("split", "")

    @property
    def status(self) -> str:
        """ "ok", "failed", "rejected" (ok, but a person rejects it), or "" = not preprocessed yet."""
        status = self.row.get("status", "")
        return "rejected" if status == "ok" and self.row.get("verdict") == "reject" else status

    @property
    def reason(self) -> str:
        """Why the patient is excluded from training and evaluation; "" where it is not."""
        if self.status == "rejected":
            remark = " ".join(self.row.get("verdict_remark", "").split())
            return "rejected at quality control" + (f": {remark}" if remark else "")
        return self.row.get("reason", "") or ("" if self.status == "ok" else "not preprocessed")


def read_cohort(path: str | os.PathLike) -> list[Patient]:
    """Read and check a cohort table. Scans are not opened yet.

    Raises InputError: all that is wrong with the table, line by line.
    """

    def problems(patient: Patient) -> list[str]:
        # A prepared table keeps patients whose scans were not found: they failed, and it gives the reason.
        return (
            row_problems(patient.row)
            + path_problems(patient, (*SCANS, DICOM))
            + ([] if "status" in patient.row else _scan_problems(patient))
        )

    patients = read_table(Path(path), KNOWN, _missing_columns, problems)
    refuse(Path(path), onset_problems(patients))
    return patients


def read_table(
    path: Path,
    known: Sequence[str],
    missing_columns: Callable[[list[str]], list[str]],
    problems_of: Callable[[Patient], list[str]],
) -> list[Patient]:
    """Read a CSV table with a header and a line for each patient.

    known: names of columns that the header may spell with capitals, blanks or brackets.
    missing_columns: header -> names of the columns that are missing.
    problems_of: patient -> problems of the line, a sentence each.

    Raises InputError: unreadable, no header, no patient, or all that is wrong with it, line by line.
    """
    table = read_text_table(path)
    if not table.lines and not table.problems:
        raise InputError(f"{path} has no patients: a header line and one line a patient are needed.")
    header = [ours if (ours := same_name(name)) in known or READER.fullmatch(ours) else name for name in table.header]
    _check_header(header, missing_columns(header), path)

    patients, problems = [], table.problems
    seen: dict[str, int] = {}
    for number, cells in table.lines:
        row = dict(zip(header, cells, strict=True))
        if table.decimal_comma:
            row |= {name: re.sub(r"(?<=\d),(?=\d+$)", ".", row[name]) for name in NUMBERS if name in row}
        patient = Patient(in_small_letters(row), path.parent)
        problems += [f"line {number}: {problem}" for problem in name_problems(patient.id) + problems_of(patient)]
        # Folded, since some file systems do not distinguish A.npy from a.npy.
        if first := seen.get(patient.id.casefold()):
            problems.append(f"line {number}: patient {patient.id!r} is already on line {first}; one line a patient")
        seen.setdefault(patient.id.casefold(), number)
        patients.append(patient)
    refuse(path, problems)
    return patients


def refuse(path: Path, problems: list[str]) -> None:
    """Raise an InputError that lists the problems of a table, if there are any."""
    if problems:
        more = len(problems) - MOST_PROBLEMS_SHOWN
        shown = problems[:MOST_PROBLEMS_SHOWN] + ([f"and {more} more"] if more > 0 else [])
        raise InputError(f"{path} cannot be used; correct these cells:\n  " + "\n  ".join(shown))


def _check_header(header: list[str], missing: list[str], path: Path) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputError(f"{path}: column {', '.join(twice)} appears twice in the header. Rename or remove one.")
    if missing:
        raise InputError(
            f"{path}: column {', '.join(missing)} is missing; the header has {', '.join(header)}. "
            "Add it, separated by commas; cells may be empty where something is unknown."
        )


def _missing_columns(header: list[str]) -> list[str]:
    """Return needed columns that the header lacks. A label may be absent, but not if its name is only misspelt."""
    missing = [name for name in ("patient", *["dwi", "flair"] * (DICOM not in header)) if name not in header]
    missing += [] if {"b0", "adc", "dwi_bval", DICOM} & {*header} else ["b0 (or adc)"]
    for label, word, unit in zip(LABELS, ("onset", "side"), ("; it is in minutes", ""), strict=True):
        alike = [
            name for name in header if word in (said := same_name(name)) or difflib.get_close_matches(said, [label])
        ]
        if label not in header and alike:
            missing.append(f"{label} (is it {alike[0]!r}? then rename that one{unit})")
    return missing


def _scan_problems(patient: Patient) -> list[str]:
    """An empty cell is no problem of the table: the patient fails, and the row says why."""
    return [
        f"{one} and {other} are the same file, {patient.row[one]}; name the {other.upper()}'s own"
        for one, other in itertools.combinations([name for name in SCANS if patient.row.get(name)], 2)
        if (path := os.path.realpath(patient.folder / patient.row[one]))
        == os.path.realpath(patient.folder / patient.row[other])
        and not os.path.isdir(path)  # a folder of DICOM files holds several scans
    ]


def path_problems(patient: Patient, columns: Sequence[str]) -> list[str]:
    """Return what is wrong with paths that no file can have."""
    return [
        f"{name} is {cell[:30]!r}..., longer than a file's name or path can be"
        for name in columns
        if (cell := patient.row.get(name, ""))
        and (
            max(len(os.fsencode(part)) for part in Path(cell).parts) > LONGEST_NAME
            or len(os.fsencode(patient.folder / cell)) > LONGEST_PATH
        )
    ]


def in_small_letters(row: dict[str, str]) -> dict[str, str]:
    """Return the row with WORDS in small letters: Left is left."""
    return row | {name: row[name].lower() for name in WORDS if row.get(name, "").lower() in WORDS[name]}


def onset_problems(patients: list[Patient]) -> list[str]:
    """Ask about onsets that can only be in hours, and about codes for "unknown". Of phantoms, the law is known."""
    real = [patient for patient in patients if not patient.row.get("phantom")]
    cells = Counter(patient.row.get("onset_to_mri_min", "") for patient in real)
    if codes := [cell for cell, least in CODES_OF_UNKNOWN.items() if cells[cell] >= least]:
        return [
            f"onset_to_mri_min is {codes[0]} of {cells[codes[0]]} patient{'s' * (cells[codes[0]] > 1)}: a code for "
            f"unknown? Leave the cell empty; where it is the time, write {codes[0]}.0"
        ]
    minutes = [minutes for patient in real if (minutes := patient.minutes)]
    if not minutes or statistics.median(minutes) >= EARLY_MIN:
        return []
    return [
        f"onset_to_mri_min: half of the patients would have been scanned within {statistics.median(minutes):g} minutes "
        f"of onset, all within {max(minutes):g}. Are these hours? Write minutes"
    ]


def name_problems(name: str) -> list[str]:
    """Return what is wrong with a patient's name, which becomes part of file names."""
    if len(name) > LONGEST_PATIENT:
        return [f"patient {name[:30]!r}... is longer than {LONGEST_PATIENT} letters: it becomes part of file names"]
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) and ".." not in name:
        return []
    return [f"patient {name!r} cannot name a file; use letters, digits, '-', '_' and '.'"]


def row_problems(row: dict[str, str]) -> list[str]:
    """Return what is wrong with a patient's values, except name and scans, a sentence each."""
    problems = []
    minutes = row.get("onset_to_mri_min", "")
    if minutes and not (is_number(minutes) and float(minutes) > 0):
        problems.append(f"onset_to_mri_min is {minutes!r}; write minutes above 0, or leave it empty if unknown")
    elif minutes and float(minutes) < SOONEST_MIN:
        problems.append(
            f"onset_to_mri_min is {minutes!r}; nobody is scanned so soon after onset. Are these hours? Write minutes"
        )
    if row.get("sex", "").lower() not in SEXES:
        problems.append(f"sex is {row['sex']!r}; codes are not guessed: write female, male or other, or leave it empty")
    if row.get("stroke_side", "") not in (*WORDS["stroke_side"], ""):
        problems.append(f"stroke_side is {row['stroke_side']!r}; write left, right or both, or leave it empty")
    b = row.get("dwi_b", "")
    if b and not (is_number(b) and B_RANGE[0] <= float(b) <= B_RANGE[1]):
        problems.append(
            f"dwi_b is {b!r}; write the DWI's b in s/mm^2, between {B_RANGE[0]:.0f} and {B_RANGE[1]:.0f}, "
            "or leave it empty"
        )
    if row.get("split", "") not in (*SPLITS, EXTERNAL, ""):
        problems.append(f"split is {row['split']!r}; write train, val, test or external, or leave it empty")
    if row.get("verdict", "") not in (*VERDICTS, ""):
        problems.append(
            f"verdict is {row['verdict']!r}; write accept, reject or unsure, or leave it empty; "
            "this column is quality control's"
        )
    problems += [
        f"{name} is {cell!r}; write 1 = DWI-FLAIR mismatch, 0 = none, or leave it empty = not read"
        for name, cell in row.items()
        if READER.fullmatch(name) and cell not in ("0", "1", "")
    ]
    if row.get("status", "") not in ("ok", "failed", ""):
        problems.append(
            f"status is {row['status']!r}; this column is run_preprocess.py's, which writes ok or failed: rename yours"
        )
    problems += [
        f"{name} is {row[name]!r}; this column is run_preprocess.py's: rename yours"
        for name in ("reason", "flags")
        if row.get(name) and "status" not in row
    ]
    if row.get("phantom") and not is_number(row["phantom"]):
        problems.append(
            f"phantom is {row['phantom']!r}; this column marks made-up patients with the spread of their "
            "clock: rename yours"
        )
    return problems


def is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


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
        moved = {name: path_from(folder, path) for name in (*SCANS, DICOM) if (path := patient.path(name))}
        lines.append([(patient.row | moved).get(column, "") for column in columns])
    return [columns, *lines]


def path_from(folder: Path, path: Path) -> str:
    """Return a file's path relative to a folder, as the system resolves it: ".." of a link leads elsewhere.

    A file that is a link itself keeps its name, since its .bval lies beside it.
    """
    return os.path.relpath(Path(os.path.realpath(path.parent)) / path.name, os.path.realpath(folder))
