"""The folder DATA: where run_preprocess.py puts what, and how training and evaluation read it.

In:  DATA, a folder that run_preprocess.py has made.
Out: the paths of its files; its settings and grid; Patients with split and status; hemispheres (2, C, D, H, W).
Paper: 2.1 (the grid of 224 x 224 x 26 voxels), 2.3 (hemispheres).
See: tests/data/test_prepared.py

Preprocessing and training meet here and nowhere else.
"""

import errno
import os
import tokenize
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, cast

import numpy as np

from tss.data.cohort import SCANS, SIDES, Patient, read_cohort
from tss.data.files import read_json, sha256, why_unreadable
from tss.data.hemispheres import CHANNELS
from tss.data.shapes import Row, Within
from tss.errors import InputError

GRID = (224, 224, 26)  # X, Y, Z; paper 2.1
PICTURE_COLUMN = "qc_picture"  # of cohort.csv: hash of the picture that a verdict is of
UNREADABLE = (  # what np.load raises: a header is text that it parses as Python's, and tokenizes where that fails
    OSError, ValueError, EOFError, SyntaxError, TypeError, OverflowError, RecursionError, tokenize.TokenError,
)  # fmt: skip
MOST_VOXELS = 1024  # our choice: of a grid along one axis
BITS_OF_ONE = int(np.float16(1).view(np.uint16))  # floats that are not negative are in the order of their bits
KEY_LENGTH = 16  # our choice: hexadecimal digits of a picture's hash; enough that no two of a study are alike


class Reference(TypedDict, total=False):
    """The training patient whose histogram the others are matched to (paper 2.1)."""

    patient: str
    landmarks: dict[str, list[float]]  # channel -> percentiles of healthy brain, in scanner units
    histograms: dict[str, str]  # channel -> shares of the brain's voxels, numbers between blanks


class Like(TypedDict):
    """The checkpoint like whose patients DATA was prepared."""

    checkpoint: str
    sha256: str


class Settings(TypedDict, total=False):
    """What DATA was made with. Checkpoints carry it along."""

    format: str
    tools: str
    grid: list[int]  # X, Y, Z
    atlas: str
    atlas_sha256: str
    atlas_skull: str  # how the atlas' skull was removed
    seed: int  # of the split
    reference: Reference
    versions: dict[str, str]
    like: Like  # of another cohort than the checkpoint's own


_LANDMARKS = {channel: Row(*[float] * 7) for channel in CHANNELS}  # as intensity.PERCENTILES
_AFFINE = Row(*[Row(*[float] * 4)] * 4)
_FILE = Row(str, ([int], None), (str, None))  # path, stamp, content
PREPROCESSING = {  # the shape of Settings, as checkpoints carry them
    "format?": str, "tools?": str, "grid?": Row(*[Within(1, MOST_VOXELS)] * 3), "atlas?": str, "atlas_sha256?": str,
    "atlas_skull?": str, "seed?": Within(0, 2**62), "versions?": {str: str},
    "reference?": {"patient?": str, "landmarks?": _LANDMARKS, "histograms?": {f"{name}?": str for name in CHANNELS}},
    "like?": {"checkpoint": str, "sha256": str},
}  # fmt: skip
STORED = PREPROCESSING | {"grid": PREPROCESSING["grid?"]}  # of DATA/settings.json
RECORD = {  # the shape of a patient's record, as far as it is there
    "patient?": str, "status?": {"ok", "failed"}, "reason?": str, "flags?": [str], "tools?": str,
    "versions?": {str: str}, "settings?": list, "measures?": {str: float}, "acquired?": {str: float},
    "voxels?": {f"{channel}?": str for channel in CHANNELS}, "b0_to_atlas?": _AFFINE, "flair_to_b0?": _AFFINE,
    "dwi_to_b0?": _AFFINE, "scans?": {f"{name}?": _FILE for name in SCANS} | {"dwi_b?": Row(float)},
}  # fmt: skip


def cohort_file(data: str | os.PathLike) -> Path:
    return Path(data) / "cohort.csv"


def settings_file(data: str | os.PathLike) -> Path:
    return Path(data) / "settings.json"


def hemispheres_file(data: str | os.PathLike, patient: str) -> Path:
    return Path(data) / "hemispheres" / f"{patient}.npy"


def registered_file(data: str | os.PathLike, patient: str, kind: str) -> Path:
    """Return the scan on the atlas grid; kind: one of CHANNELS, "mask" or "lesion"."""
    return Path(data) / "registered" / f"{patient}_{kind}.nii.gz"


def record_file(data: str | os.PathLike, patient: str) -> Path:
    """Return the patient's record: status, reason, flags and affines. It is written last."""
    return Path(data) / "transforms" / f"{patient}.json"


def converted_folder(data: str | os.PathLike) -> Path:
    """Return the folder of scans that were converted from DICOM, a folder a patient."""
    return Path(data) / "converted"


def qc_picture(data: str | os.PathLike, patient: str) -> Path:
    return Path(data) / "qc" / f"{patient}.png"


def hash_of_picture(data: str | os.PathLike, patient: str) -> str:
    """Return the hash by which a picture for quality control is known; "" where there is none."""
    picture = qc_picture(data, patient)
    return sha256(picture)[:KEY_LENGTH] if picture.is_file() else ""


def qc_page(data: str | os.PathLike) -> Path:
    return Path(data) / "qc" / "index.html"


def read_settings(data: str | os.PathLike) -> Settings:
    """Read DATA/settings.json. Raises InputError: it is missing, damaged, or not of the shape STORED."""
    remedy = f"Make {data} again: run_preprocess.py with --overwrite, or into another --out."
    return cast(Settings, read_json(settings_file(data), STORED, remedy))


def read_stored_record(data: str | os.PathLike, patient: str, more: Mapping[str, object] | None = None) -> dict:
    """Read what preprocessing left of a patient; {} where there is no record. more: shapes of keys that must be there.

    Raises InputError: damaged, or not of the shape RECORD.
    """
    file = record_file(data, patient)
    if why_unreadable(file) == os.strerror(errno.ENOENT):
        return {}
    remedy = "Delete it and run run_preprocess.py again, which processes this patient again."
    return read_json(file, RECORD | dict(more or {}), remedy)


def read_prepared(data: str | os.PathLike) -> list[Patient]:
    """Read DATA/cohort.csv as run_preprocess.py leaves it: with split, status, reason and flags.

    Raises InputError: there is none, or it is a raw cohort table.
    """
    path = cohort_file(data)
    if not path.is_file():
        raise InputError(f"{path} does not exist. Make it first: python run_preprocess.py COHORT_CSV --out {data}")
    patients = read_cohort(path)
    if missing := [name for name in ("split", "status") if name not in patients[0].row]:
        raise InputError(
            f"{path} has no column {', '.join(missing)}: it is a raw table. "
            f"Run: python run_preprocess.py {path} --out DATA"
        )
    others = [
        patient.id
        for patient in patients
        if patient.row.get("verdict")
        and (judged := patient.row.get(PICTURE_COLUMN))
        and hash_of_picture(data, patient.id) not in ("", judged)
    ]
    if others:
        raise InputError(
            f"{path}: the verdict of {', '.join(others)} is of another picture than is in "
            f"{qc_picture(data, '*').parent} now. Run run_preprocess.py again, which drops such verdicts, and judge "
            "again."
        )
    return patients


def read_hemispheres(data: str | os.PathLike, patient: str, grid: Sequence[int]) -> np.ndarray:
    """Return a patient's hemispheres (2, C, D, H, W) float16: left, right mirrored.

    grid: voxels X, Y, Z of the whole brain that are expected; (D, H, W) = (Z, Y, X / 2).

    Raises InputError: missing, damaged, of another grid, or with an empty hemisphere.
    """
    hemispheres = np.array(map_hemispheres(data, patient, grid), order="C")
    for side, hemisphere in zip(SIDES, hemispheres, strict=True):
        check_hemisphere(hemisphere, data, patient, side)
    return hemispheres


def map_hemispheres(data: str | os.PathLike, patient: str, grid: Sequence[int]) -> np.ndarray:
    """Return a patient's hemispheres as read_hemispheres() does, left on disk: the header alone has been read.

    Raises InputError: missing, damaged, or of another grid. What the voxels are is not known yet.
    """
    path, (x, y, z) = hemispheres_file(data, patient), grid
    shape = (len(SIDES), len(CHANNELS), z, y, x // 2)
    again = _made_again(data, patient)
    if why := why_unreadable(path):
        raise InputError(f"{path} is missing or damaged ({why}). {again}")
    try:  # mapped: a header that claims more than the file holds costs no memory
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except UNREADABLE as error:
        raise InputError(f"{path} is missing or damaged ({error}). {again}") from error
    if not isinstance(mapped, np.ndarray) or mapped.dtype != np.float16:
        held = f"{mapped.dtype} numbers" if isinstance(mapped, np.ndarray) else "several arrays"
        raise InputError(f"{path} holds {held}, not hemispheres in float16. {again}")
    if mapped.shape != shape:
        raise InputError(
            f"{path} has the shape {mapped.shape}, the grid in settings.json needs {shape}. "
            "Run run_preprocess.py --overwrite, with one --grid for all patients."
        )
    return mapped


def check_hemisphere(hemisphere: np.ndarray, data: str | os.PathLike, patient: str, side: str) -> None:
    """Refuse a hemisphere (C, D, H, W) float16 that is empty, not finite, or not in [0, 1]."""
    if 0 < hemisphere.view(np.uint16).max() <= BITS_OF_ONE:  # a twentieth of the time that comparing floats takes
        return
    path, again = hemispheres_file(data, patient), _made_again(data, patient)
    if not np.isfinite(hemisphere).all() or not hemisphere.any():
        raise InputError(f"{path}: the {side} hemisphere is empty or not finite. {again}")
    if hemisphere.min() < 0 or hemisphere.max() > 1:
        raise InputError(f"{path}: the {side} hemisphere has values outside 0 to 1. {again}")


def _made_again(data: str | os.PathLike, patient: str) -> str:
    return f"Delete {record_file(data, patient)} and run run_preprocess.py again: it processes this patient again."


def differing_settings(one: Settings, other: Settings) -> str:
    """Say in which settings that hemispheres depend on two DATA differ; "" where in none that both know."""

    def parts(settings: Settings) -> dict[str, str]:
        reference = settings.get("reference", {})
        return {
            "tools": settings.get("tools", ""),
            "grid": " x ".join(map(str, settings.get("grid", ()))),
            "atlas": settings.get("atlas_sha256", "")[:12],
            "skull of the atlas removed": settings.get("atlas_skull", "")[:20],
            "histogram reference": reference.get("patient", ""),
            # Patients of two cohorts may have the same name.
            "its medians": ", ".join(
                f"{name} {values[len(values) // 2]:.5g}" for name, values in reference.get("landmarks", {}).items()
            ),
        }

    there = parts(other)
    return "; ".join(
        f"{name} {value}, there {there[name]}"
        for name, value in parts(one).items()
        if value and there[name] and value != there[name]
    )
