"""One patient's files in DATA, and the record that says whether they are finished.

In:  a row of the cohort, the settings of the run.
Out: hemispheres/<patient>.npy, registered/<patient>_*.nii.gz, qc/<patient>.png, and transforms/<patient>.json, the
     record: status, reason, flags, measures, affines. It is written last: where it is, the other files are whole.
Paper: none (our choice: a run can be killed, continued, or shared out over shards at any moment).
See: tests/preprocessing/test_cohort_run.py
"""

import os
import time
from functools import lru_cache
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import numpy as np

from tss.data import nifti
from tss.data.cohort import SCANS, Patient
from tss.data.files import read_json, sweep, write_json, write_whole
from tss.data.hemispheres import CHANNELS
from tss.data.prepared import Reference, Settings, hemispheres_file, qc_picture, record_file, registered_file
from tss.errors import InputError
from tss.preprocessing import quality_control
from tss.preprocessing.atlas import Atlas, load_atlas
from tss.preprocessing.pipeline import Prepared, prepare
from tss.preprocessing.scans import load_scans
from tss.preprocessing.tools import find_tools

KINDS = (*CHANNELS, "mask", "lesion")  # what may lie in registered/

_cached_atlas = lru_cache(maxsize=1)(load_atlas)


class Record(TypedDict):
    """What transforms/<patient>.json holds. Affines are (4, 4), world mm -> world mm, of patients that did not fail."""

    patient: str
    status: str  # "ok" or "failed"
    reason: str
    flags: list[str]
    tools: str
    versions: dict[str, str]
    settings: list  # `identity` of the settings it was made with
    scans: dict[str, list]  # `identity_of_scans` that were read
    measures: dict[str, float]  # of quality
    voxels: NotRequired[dict[str, str]]  # channel -> SHA-256 of the scan as it came
    b0_to_atlas: NotRequired[list[list[float]]]
    flair_to_b0: NotRequired[list[list[float]]]
    dwi_to_b0: NotRequired[list[list[float]]]


def make_record(patient: Patient, out: Path, tools: str, settings: Settings) -> tuple[Record, float]:
    """Preprocess one patient and write its files, the record last. Returns the record and the seconds taken.

    Errors of the patient's go into the record.

    Raises InputError: DATA cannot be written.
    """
    started = time.monotonic()
    file = record_file(out, patient.id)
    sweep(file.parent, file.name)
    record: Record = {
        "patient": patient.id,
        "status": "ok",
        "reason": "",
        "flags": [],
        "tools": settings["tools"],
        "versions": settings["versions"],
        "settings": identity(settings),
        "scans": identity_of_scans(patient),
        "measures": {},
    }
    x, y, z = settings["grid"]
    atlas = _cached_atlas(settings["atlas"], (x, y, z))
    prepared, reason = try_to_prepare(patient, atlas, tools, settings["reference"])
    if prepared is None:
        record |= {"status": "failed", "reason": reason}
        for made in _files(patient.id, out):  # by an earlier run: nothing may lie there that the table denies
            made.unlink(missing_ok=True)
    else:
        record |= {
            "flags": prepared.flags,
            "measures": {name: round(value, 4) for name, value in prepared.measures.items()},
            "voxels": prepared.voxels,
            "b0_to_atlas": prepared.b0_to_atlas.tolist(),
            "flair_to_b0": prepared.flair_to_b0.tolist(),
            "dwi_to_b0": prepared.dwi_to_b0.tolist(),
        }
        _write_files(patient.id, prepared, atlas, settings["reference"], out)
    write_json(file, record)
    return record, time.monotonic() - started


def try_to_prepare(
    patient: Patient, atlas: Atlas, tools: str, reference: Reference | None
) -> tuple[Prepared | None, str]:
    """Return the prepared patient, or None and why it cannot be prepared."""
    try:
        landmarks = reference["landmarks"] if reference else None
        return prepare(load_scans(patient), atlas, find_tools(tools), landmarks), ""
    except InputError as error:
        return None, str(error)
    except Exception as error:  # one odd file must not end a night's run; the record says what happened
        return None, f"unexpected {type(error).__name__}: {error}. Please report it."


def _files(patient: str, out: Path) -> list[Path]:
    """Return what a patient may have in DATA beside its record."""
    return [
        hemispheres_file(out, patient),
        qc_picture(out, patient),
        *(registered_file(out, patient, kind) for kind in KINDS),
    ]


def _write_files(patient: str, prepared: Prepared, atlas: Atlas, reference: Reference, out: Path) -> None:
    from tss.display import slice_plots  # matplotlib only where something is drawn

    for file in _files(patient, out):
        sweep(file.parent, file.name)
    halves = prepared.hemispheres.astype(np.float16)
    write_whole(hemispheres_file(out, patient), lambda beside: _save_array(beside, halves))
    volumes = prepared.volumes | {"mask": prepared.mask}
    if prepared.lesion is not None:
        volumes["lesion"] = prepared.lesion
    for kind, volume in volumes.items():
        nifti.save(registered_file(out, patient, kind), volume, prepared.affine)
    histograms = {
        kind: {"edges": quality_control.BINS, "raw": raw, "matched": matched}
        for kind, (raw, matched) in prepared.histograms.items()
    }
    for kind, shares in reference.get("histograms", {}).items():
        histograms[kind]["reference"] = np.array(shares.split(), float)
    slice_plots.draw_qc(
        qc_picture(out, patient),
        prepared.volumes,
        prepared.mask,
        atlas.on_grid > 0,
        nifti.voxel_sizes(prepared.affine).tolist(),
        f"{patient}   {'; '.join(prepared.flags)}",
        prepared.lesion,
        histograms,
    )


def _save_array(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as file:  # np.save adds .npy to a path
        np.save(file, array)


def identity(settings: Settings) -> list:
    """Return the settings that a patient's files depend on."""
    return [
        settings["format"],
        settings["tools"],
        settings["grid"],
        settings["atlas_sha256"],
        settings["atlas_skull"],
        settings["reference"]["patient"],
    ]


def identity_of_scans(patient: Patient) -> dict[str, list]:
    """Return column -> path and bytes of each scan; None bytes where it does not exist."""
    paths = {name: path for name in SCANS if (path := patient.path(name))}
    return {
        name: [os.path.abspath(path), path.stat().st_size if path.is_file() else None] for name, path in paths.items()
    }


def same_scans(then: dict[str, list], now: dict[str, list]) -> bool:
    """Were the same files read, by path and size? A file that has been archived since is the same; so is one that was
    changed in place and kept its size, which compressed files hardly do."""
    return then.keys() == now.keys() and all(
        path == then[name][0] and size in (None, then[name][1]) for name, (path, size) in now.items()
    )


def read_record(patient: Patient, out: Path, settings: Settings) -> Record | None:
    """Return the patient's record, or None where there is none of these scans and settings."""
    file = record_file(out, patient.id)
    if not file.is_file() or "reference" not in settings:
        return None
    record = cast(Record, read_json(file))
    current = record["settings"] == identity(settings) and same_scans(record["scans"], identity_of_scans(patient))
    return record if current else None


def is_finished(patient: Patient, out: Path, settings: Settings) -> bool:
    """Is the patient's record of these scans and settings, "ok", and do its files exist?"""
    record = read_record(patient, out, settings)
    if record is None or record["status"] != "ok":
        return False
    try:
        np.load(hemispheres_file(out, patient.id), mmap_mode="r")  # as long as its header says?
    except (OSError, ValueError, EOFError):
        return False
    lesion = registered_file(out, patient.id, "lesion")
    return all(file.is_file() for file in _files(patient.id, out) if file != lesion or patient.path("lesion"))
