"""A folder of DICOM files as a patient's scans: converted by dcm2niix, and the series found by their headers.

In:  a row of the cohort with a folder in `dicom`, or in the place of a scan; a folder that holds one for each patient.
Out: FOLDER/<patient>/ with the NIfTI files that are read and found.json; the row with their paths, TE, TI, field.
Paper: none (its scans were DICOM too, and it says nothing of how they were converted).
See: tests/preprocessing/test_dicom.py

dcm2niix is an external program and not needed where all scans are NIfTI. Names and dates are left out of what it writes
(-ba y). A patient is converted again only where the folder's files are others than before.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import nibabel

from tss.data.acquisition import acquisition_of
from tss.data.bids_layout import read_object
from tss.data.cohort import DICOM, SCANS, Patient
from tss.data.diffusion import read_bvals
from tss.data.files import folder_beside, read_json, sweep, write_json
from tss.errors import InputError
from tss.preprocessing.dicom_series import Series, find_scans
from tss.preprocessing.external_program import run_program

PROGRAM = "dcm2niix"
OPTIONS = ("-b", "y", "-ba", "y", "-z", "y", "-f", "%s_%d")
TIMEOUT_S = 1800.0
TAIL_LINES = 6  # of what the program said, shown where it fails
MARK_AT, MARK = 128, b"DICM"  # of a DICOM file
MOST_LOOKED_AT = 200  # files of a folder, to see whether they are DICOM
ROLES = ("dwi", "flair")  # what is looked for; b0 or ADC follow from the DWI
HOW = (
    "Install it (pip install dcm2niix, or your system's package dcm2niix) and rerun, or convert the scans where it is "
    "installed, dcm2niix -b y -z y -o NIFTI_FOLDER DICOM_FOLDER, and name the NIfTI files instead of the folder."
)
RECORD = "found.json"
SHAPE = {"source": list, "row": {str: str}}


def read_folder(folder: Path) -> list[Patient]:
    """Return a patient for each subfolder with DICOM files in it; nothing is known of them but their scans.

    Raises InputError: there is none.
    """
    subfolders = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    found = [path for path in subfolders if is_dicom(path)]
    if not found:
        raise InputError(f"{folder} holds no subfolder with DICOM files. Give a folder with one subfolder a patient.")
    print(f"{folder}: {len(found)} patients by their folders of DICOM files; onset and side are unknown", flush=True)
    return [
        Patient({"patient": path.name, "dwi": "", "flair": "", DICOM: path.name, "not_found": ""}, folder)
        for path in found
    ]


@cache
def is_dicom(folder: Path) -> bool:
    """Does a folder, or one below it, hold DICOM files? The first ones are looked at."""
    looked = 0
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file() and (looked := looked + 1) <= MOST_LOOKED_AT:
            try:
                with open(path, "rb") as file:
                    file.seek(MARK_AT)
                    if file.read(len(MARK)) == MARK:
                        return True
            except OSError:
                continue
    return False


def folders_of(patient: Patient) -> dict[str, Path]:
    """Return role -> folder of those scans of a patient that are to be found in one; {} for one with NIfTI files."""
    every = patient.path(DICOM)
    folders = {}
    for role in ROLES:
        cell = patient.path(role)
        if cell is None and every is not None:
            folders[role] = every
        elif cell is not None and cell.is_dir():
            folders[role] = cell
    return folders


def is_converted(folder: Path) -> bool:
    """Does a folder hold nothing but patients that convert() has made, whole or, where it was killed, by half?"""
    inside = folder.iterdir() if folder.is_dir() else ()
    return all(path.name.startswith(".") or (path / RECORD).is_file() for path in inside)


def found(patient: Patient, out: Path) -> Patient:
    """Return the patient with the paths of its converted scans; as it is where nothing is, or need be, converted."""
    folders, file = folders_of(patient), out / patient.id / RECORD
    if not folders or not file.is_file():
        return patient
    stored = read_json(file, SHAPE, f"Delete {file.parent} and run the same command again.")
    if stored["source"] != _source_of(folders):
        return patient
    said = {name: str(file.parent / cell) if cell and name in SCANS else cell for name, cell in stored["row"].items()}
    kept = {name: cell for name, cell in patient.row.items() if cell and name not in folders}
    return Patient({**dict.fromkeys(patient.row, ""), **said, **kept}, patient.folder)


def convert(patient: Patient, out: Path) -> Patient:
    """As found(), but convert first where that has not been done. What goes wrong is in the row's not_found.

    Raises InputError: dcm2niix is not installed, or `out` cannot be written.
    """
    folders = folders_of(patient)
    if not folders:
        return patient
    sweep(out, patient.id)
    if (done := found(patient, out)) is not patient and not done.row["not_found"]:
        return done
    if any(folder.is_dir() for folder in folders.values()):
        program()
    with folder_beside(out / patient.id) as beside:
        whole = beside / "whole"
        whole.mkdir()
        row = _convert(patient, folders, beside, whole)
        write_json(whole / RECORD, {"source": _source_of(folders), "row": row})
        if (done := found(patient, out)) is not patient and not done.row["not_found"]:  # by another job meanwhile
            return done
        shutil.rmtree(out / patient.id, ignore_errors=True)
        os.replace(whole, out / patient.id)
    return found(patient, out)


def _convert(patient: Patient, folders: Mapping[str, Path], beside: Path, whole: Path) -> dict[str, str]:
    """Convert the folders and keep what is read in `whole`; returns the columns that it fills."""
    row = dict.fromkeys(("dwi", "flair"), "")
    problems: list[str] = []
    headers: dict[str, Mapping[str, Any]] = {}
    taken, bvals = [], None
    for number, folder in enumerate(dict.fromkeys(folders.values())):
        roles = [role for role in folders if folders[role] == folder]
        try:
            series = run_dcm2niix(folder, beside / str(number))
        except InputError as error:
            problems.append(str(error))
            continue
        there = find_scans(series, roles)
        problems += [f"{folder}: {words}" for words in there.missing]
        for role, one in there.scans.items():
            row[role] = f"{role}.nii.gz"
            taken.append(f"{role}: {one.name}")
            stem = one.path.name.removesuffix(".gz").removesuffix(".nii")
            for ending in (".nii.gz", ".json", ".bval"):
                if (made := one.path.with_name(stem + ending)).is_file():
                    shutil.move(made, whole / (role + ending))
            headers[role] = one.header
            if role == "dwi" and one.bvals is not None:
                bvals = one.bvals.tolist()
    row |= acquisition_of({role: header for role, header in headers.items() if role in ROLES}, bvals)
    return row | {"dicom_series": "; ".join(taken), "not_found": "; ".join(problems)}


def run_dcm2niix(folder: Path, out: Path) -> list[Series]:
    """Convert a folder and return its series.

    Raises InputError: the program is missing, fails on everything, takes too long, or there is no DICOM file.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder. Name the folder with this patient's DICOM files.")
    out.mkdir(parents=True)
    command = [program(), *OPTIONS, "-o", str(out), str(folder)]
    said = shlex.join([PROGRAM, *command[1:]])
    try:
        done = run_program(command, TIMEOUT_S)
    except OSError as error:
        raise InputError(f"{command[0]} cannot be started: {error.strerror}. {HOW}") from error
    except subprocess.TimeoutExpired as error:
        raise InputError(f"dcm2niix was stopped after {TIMEOUT_S:g} s ({said}). Convert {folder} yourself.") from error
    series = [_series(path) for path in sorted(out.glob("*.nii.gz"))]
    if not series:
        last = " / ".join((done.stdout.strip() or done.stderr.strip() or "nothing").splitlines()[-TAIL_LINES:])
        raise InputError(f"{folder}: dcm2niix made no image of it. Export its series again as DICOM. It said: {last}")
    return series


def _series(path: Path) -> Series:
    stem = path.name.removesuffix(".nii.gz")
    bval = path.with_name(f"{stem}.bval")
    try:
        bvals = read_bvals(bval) if bval.is_file() else None
        shape = nibabel.nifti1.load(path).shape
    except (InputError, OSError, ValueError, nibabel.filebasedimages.ImageFileError):
        return Series(path, {}, None, 0)
    return Series(path, read_object(path.with_name(f"{stem}.json")), bvals, min(shape[:3]) if len(shape) > 2 else 0)


def program() -> str:
    """Return the path of dcm2niix. Raises InputError: it is not installed; what to type is said."""
    if path := shutil.which(PROGRAM):
        return path
    raise InputError(f"a folder of DICOM files is converted by dcm2niix, which is not installed. {HOW}")


def _source_of(folders: Mapping[str, Path]) -> list:
    """What a conversion depends on: the folders, and how many files of how many bytes, how new, are in them."""
    return [[role, *_stamp(os.path.abspath(folder))] for role, folder in folders.items()]


@cache
def _stamp(folder: str) -> tuple[str, int, int, int]:
    files = [path.stat() for path in Path(folder).rglob("*") if path.is_file()]
    return folder, len(files), sum(file.st_size for file in files), max((file.st_mtime_ns for file in files), default=0)
