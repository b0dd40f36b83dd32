"""One patient's files in DATA, and the record that says whether they are finished.

In:  a row of the cohort, the settings of the run.
Out: hemispheres/<patient>.npy, registered/<patient>_*.nii.gz, qc/<patient>.png, and transforms/<patient>.json, the
     record: status, reason, flags, measures, affines. It is written last: where it is, the other files are whole.
Paper: none (our choice: a run can be killed, continued, or shared out over shards at any moment).
See: tests/preprocessing/test_cohort_run.py
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import numpy as np

from tss.data import nifti
from tss.data.cohort import SCANS, SIDES, Patient
from tss.data.files import sha256, sweep, write_json, write_whole
from tss.data.hemispheres import CHANNELS
from tss.data.prepared import (
    RECORD,
    Reference,
    Settings,
    converted_folder,
    hemispheres_file,
    qc_picture,
    read_hemispheres,
    read_stored_record,
    record_file,
    registered_file,
)
from tss.errors import InputError, advice
from tss.preprocessing import dicom, quality_control
from tss.preprocessing.atlas import Atlas, load_atlas
from tss.preprocessing.pattern import Pattern
from tss.preprocessing.pipeline import Prepared, prepare
from tss.preprocessing.scans import load_scans
from tss.preprocessing.tools import find_tools

KINDS = (*CHANNELS, "mask", "lesion")  # what may lie in registered/

WHOLE = {name.removesuffix("?"): RECORD[name] for name in (
    "patient?", "status?", "reason?", "flags?", "settings?", "scans?", "measures?")}  # fmt: skip

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
    acquired: NotRequired[dict[str, float]]  # of quality_control.describe
    voxels: NotRequired[dict[str, str]]  # channel -> SHA-256 of the scan as it came
    b0_to_atlas: NotRequired[list[list[float]]]
    flair_to_b0: NotRequired[list[list[float]]]
    dwi_to_b0: NotRequired[list[list[float]]]


def make_record(
    patient: Patient, out: Path, tools: str, settings: Settings, pattern: Pattern | None = None
) -> tuple[Record, float]:
    """Preprocess one patient and write its files, the record last. Returns the record and the seconds taken.

    Errors of the patient's go into the record. pattern: whose patients this one may not be one of.

    Raises InputError: DATA cannot be written.
    """
    started = time.monotonic()
    file = record_file(out, patient.id)
    patient = dicom.convert(patient, converted_folder(out))
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
            sweep(made.parent, made.name)
    else:
        record |= {
            "flags": [*prepared.flags, *(pattern.flags(patient.id, prepared.voxels) if pattern else ())],
            "measures": {name: round(value, 4) for name, value in prepared.measures.items()},
            "acquired": {name: round(value, 4) for name, value in prepared.acquired.items()},
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
    except MemoryError:
        return None, "too little memory for this patient's scans. Run the same command again, with fewer --jobs."
    except OSError as error:
        if error.errno is None:  # a library's own
            return None, _unexpected(error)
        return None, f"{error}. {advice(error)}"
    except Exception as error:  # one odd file must not end a night's run; the record says what happened
        return None, _unexpected(error)


def _unexpected(error: Exception) -> str:
    return f"unexpected {type(error).__name__}: {error}. Please report it."


def _files(patient: str, out: Path) -> list[Path]:
    """Return what a patient may have in DATA beside its record."""
    return [
        hemispheres_file(out, patient),
        qc_picture(out, patient),
        *(registered_file(out, patient, kind) for kind in KINDS),
    ]


def _write_files(patient: str, prepared: Prepared, atlas: Atlas, reference: Reference, out: Path) -> None:
    from tss.display import slice_plots  # matplotlib only where something is drawn

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
    landmarks = json.dumps(settings["reference"]["landmarks"])
    return [
        settings["format"],
        settings["tools"],
        settings["grid"],
        settings["atlas_sha256"],
        settings["atlas_skull"],
        settings["reference"]["patient"],
        hashlib.sha256(landmarks.encode()).hexdigest(),
    ]


def identity_of_scans(patient: Patient) -> dict[str, list]:
    """Return column -> [path, content, stamp] of each file that is read, and what the table says of the DWI's b.

    content: SHA-256 of the bytes; stamp: what the system changes with a file's content. None where there is no file.
    """
    return {name: [*place, _content(*place)] for name, place in _places(patient).items()} | _said(patient)


def same_scans(then: dict[str, list], patient: Patient) -> bool:
    """Were the same files read, by their content? One that has been archived since is the same; so is a link to it.

    A file is read again where its path or its stamp is another; so a rerun need not read the whole cohort.
    """
    now = _places(patient)
    if then.keys() != (now | _said(patient)).keys() or any(then[name] != said for name, said in _said(patient).items()):
        return False
    for name, (path, stamp) in now.items():
        there, stamp_then, content = then[name]
        if [path, stamp] != [there, stamp_then] and not (stamp is None and path == there):
            if content is None or _content(path, stamp) != content:
                return False
    return True


def _places(patient: Patient) -> dict[str, tuple[str, list[int] | None]]:
    """Return column -> path and stamp of each file; a .bval that lies beside the DWI is one of them."""
    paths = {name: path for name in SCANS if (path := patient.path(name))}
    if "dwi" in paths and patient.bval.is_file():
        paths["dwi_bval"] = patient.bval
    return {name: (os.path.abspath(path), _stamp(path)) for name, path in paths.items()}


def _said(patient: Patient) -> dict[str, list]:
    return {"dwi_b": [patient.b]} if patient.b else {}


def _stamp(path: Path) -> list[int] | None:
    """The time of the last change of a file's entry cannot be set by hand, so a change in place is always seen."""
    if not path.is_file():
        return None
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _content(path: str, stamp: list[int] | None) -> str | None:
    return _cached_sha256(path, tuple(stamp)) if stamp else None


@cache
def _cached_sha256(path: str, stamp: tuple[int, ...]) -> str:
    return sha256(path)


def read_record(patient: Patient, out: Path, settings: Settings) -> Record | None:
    """Return the patient's record, or None where there is none of these scans and settings."""
    if "reference" not in settings:
        return None
    stored = read_stored_record(out, patient.id, WHOLE | {"patient": {patient.id}})
    if not stored:
        return None
    record, patient = cast(Record, stored), dicom.found(patient, converted_folder(out))
    if record["settings"] != identity(settings) or not same_scans(record["scans"], patient):
        return None
    return {**record, "flags": [*record["flags"], *doubts_of_side(patient.side, record["measures"])]}


def doubts_of_side(side: str, measures: Mapping[str, float]) -> list[str]:
    """Say where the table has a stroke on one side and the lesion mask on the other: one of them is wrong, or a header
    exchanges left and right. Not part of the stored record: a corrected table is no reason to do the patient again.
    """
    if side not in SIDES or "lesion_right" not in measures:
        return []
    there = measures["lesion_right"] if side == "right" else 1 - measures["lesion_right"]
    return [
        f"stroke_side is {side}, but {1 - there:.0%} of the lesion mask lies in the other hemisphere: correct the one "
        "that is wrong, or look whether the header exchanges left and right"
    ] * (there < 0.5)


def refuse_twins(records: list[Record | None]) -> list[Record | None]:
    """Return the records, those of patients that share a scan as failed, each with both files named (decision 19).

    Scans are compared voxel by voxel, however their files are named, stored or zipped. Which of the two patients is
    wrong cannot be seen, and one may be in training and the other in test: neither takes part.
    """
    owners: dict[str, list[tuple[Record, str]]] = {}
    for record in filter(None, records):
        for channel, voxels in record.get("voxels", {}).items():
            owners.setdefault(voxels, []).append((record, channel))
    reasons: dict[str, str] = {}
    for sharing in owners.values():
        for record, channel in sharing:
            other = next(((r, c) for r, c in sharing if r["patient"] != record["patient"]), None)
            if other and record["patient"] not in reasons:
                reasons[record["patient"]] = (
                    f"{_file_of(record, channel)} and {_file_of(*other)} of patient {other[0]['patient']} hold the "
                    "same voxels: two patients are not one scan. Correct the table, or omit one of them."
                )
    return [
        {**record, "status": "failed", "reason": reasons[record["patient"]]}
        if record and record["patient"] in reasons
        else record
        for record in records
    ]


def _file_of(record: Record, channel: str) -> str:
    """Return the file that a channel came from; a b0 may come from the ADC or the 4-D DWI."""
    names = {"dwi": ("dwi",), "t2w": ("b0", "adc", "dwi"), "flair": ("flair",)}[channel]
    return next((record["scans"][name][0] for name in names if name in record["scans"]), channel)


def is_finished(patient: Patient, out: Path, settings: Settings) -> bool:
    """Is the patient's record of these scans and settings, "ok", and do its files hold what they should?"""
    record = read_record(patient, out, settings)
    if record is None or record["status"] != "ok":
        return False
    try:
        read_hemispheres(out, patient.id, settings["grid"])
    except InputError:
        return False
    lesion = registered_file(out, patient.id, "lesion")
    return all(file.is_file() for file in _files(patient.id, out) if file != lesion or patient.path("lesion"))
