"""One patient's files in DATA, and the record that says whether they are finished.

In:  a row of the cohort, the settings of the run.
Out: hemispheres/<patient>.npy, registered/<patient>_*.nii.gz, qc/<patient>.png, and transforms/<patient>.json, the
     record: status, reason, flags, figures, affines. It is written last: where it is, the other files are whole.
Paper: none (our choice: a run can be killed, continued, or shared out over shards at any moment).
See: tests/preprocessing/test_cohort_run.py
"""

import os
import time
from functools import lru_cache
from pathlib import Path

import numpy as np

from tss.data import nifti
from tss.data.cohort import SCANS, Patient
from tss.data.files import read_json, sweep, write_json, write_whole
from tss.data.hemispheres import CHANNELS
from tss.data.prepared import record_file
from tss.errors import InputError
from tss.preprocessing import pipeline, quality_control


def make(patient: Patient, out: Path, tools: str, settings: dict) -> tuple[dict, float]:
    """Preprocess one patient and write its files, the record last. Returns the record and the seconds taken.

    What is wrong with the patient goes into the record.

    Raises:
        InputError: DATA cannot be written.
    """
    started = time.monotonic()
    _sweep([record_file(out, patient.id)])
    record = {
        "patient": patient.id,
        "status": "ok",
        "reason": "",
        "flags": [],
        "tools": settings["tools"],
        "versions": settings["versions"],
        "settings": identity(settings),
        "scans": scans_of(patient),
        "figures": {},
    }
    atlas = _atlas(settings["atlas"], tuple(settings["grid"]))
    prepared, reason = attempt(patient, atlas, tools, settings["reference"]["landmarks"])
    if prepared is None:
        record |= {"status": "failed", "reason": reason}
        _remove(patient.id, out)
    else:
        record |= {
            "flags": prepared.flags,
            "figures": {name: round(value, 4) for name, value in prepared.figures.items()},
            "b0_to_atlas": prepared.b0_to_atlas.tolist(),
            "flair_to_b0": prepared.flair_to_b0.tolist(),
            "dwi_to_b0": prepared.dwi_to_b0.tolist(),
        }
        _write(patient.id, prepared, atlas, settings["reference"], out)
    write_json(record_file(out, patient.id), record)
    return record, time.monotonic() - started


def attempt(
    patient: Patient, atlas: pipeline.Atlas, tools: str, reference: dict | None
) -> tuple[pipeline.Prepared | None, str]:
    """Return the prepared patient, or None and why it cannot be prepared."""
    try:
        scans = pipeline.load_scans(patient)
        return pipeline.prepare(
            scans["dwi"], scans["b0"], scans["flair"], atlas, pipeline.find_tools(tools), reference, scans.get("lesion")
        ), ""
    except InputError as error:
        return None, str(error)
    except Exception as error:  # one odd file must not end a night's run; the record says what happened
        return None, f"unexpected {type(error).__name__}: {error}. Please report it."


@lru_cache(maxsize=1)
def _atlas(path: str, grid: tuple[int, int, int]) -> pipeline.Atlas:
    return pipeline.load_atlas(path, grid)


def _write(name: str, prepared: pipeline.Prepared, atlas: pipeline.Atlas, reference: dict, out: Path) -> None:
    from tss.display import slice_plots  # matplotlib only where something is drawn

    volumes = prepared.volumes | {"mask": prepared.mask}
    if prepared.lesion is not None:
        volumes["lesion"] = prepared.lesion
    files = [out / "hemispheres" / f"{name}.npy", out / "qc" / f"{name}.png"]
    registered = {kind: out / "registered" / f"{name}_{kind}.nii.gz" for kind in volumes}
    _sweep([*files, *registered.values()])

    halves = prepared.hemispheres.astype(np.float16)
    write_whole(files[0], lambda beside: _save_array(beside, halves))
    for kind, file in registered.items():
        nifti.save(file, volumes[kind], prepared.affine)
    histograms = {
        kind: {"edges": quality_control.BINS, "raw": raw, "matched": matched}
        for kind, (raw, matched) in prepared.histograms.items()
    }
    for kind, shares in reference.get("histograms", {}).items():
        histograms[kind]["reference"] = np.array(shares.split(), float)
    slice_plots.draw_qc(
        files[1],
        prepared.volumes,
        prepared.mask,
        atlas.on_grid > 0,
        nifti.voxel_sizes(prepared.affine),
        f"{name}   {'; '.join(prepared.flags)}",
        prepared.lesion,
        histograms,
    )


def _remove(name: str, out: Path) -> None:
    """Take away what an earlier run has made of a patient that fails now: no files that the table denies."""
    for file in (
        out / "hemispheres" / f"{name}.npy",
        out / "qc" / f"{name}.png",
        *(out / "registered" / f"{name}_{kind}.nii.gz" for kind in (*CHANNELS, "mask", "lesion")),
    ):
        file.unlink(missing_ok=True)


def _save_array(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as file:  # np.save would add .npy to a name of its own liking
        np.save(file, array)


def _sweep(files: list[Path]) -> None:
    for file in files:
        sweep(file.parent, file.name)


def identity(settings: dict) -> list:
    """Return what of the settings a patient's files depend on."""
    names = ("format", "tools", "grid", "atlas_sha256", "atlas_skull")
    return [settings[name] for name in names] + [settings["reference"]["patient"]]


def scans_of(patient: Patient) -> dict[str, list]:
    """Return column -> path and bytes of each scan; None bytes where it is not there."""
    paths = {name: patient.path(name) for name in SCANS if patient.path(name)}
    return {
        name: [os.path.abspath(path), path.stat().st_size if path.is_file() else None] for name, path in paths.items()
    }


def same_scans(then: dict[str, list], now: dict[str, list]) -> bool:
    """Were the same files read, by path and size? One in the archive by now is the same; so is one that was changed in
    place and kept its size, which compressed files hardly do."""
    return then.keys() == now.keys() and all(
        path == then[name][0] and size in (None, then[name][1]) for name, (path, size) in now.items()
    )


def read(patient: Patient, out: Path, settings: dict) -> dict | None:
    """Return the patient's record, or None where there is none of these scans and settings."""
    file = record_file(out, patient.id)
    if not file.is_file() or "reference" not in settings:
        return None
    record = read_json(file)
    current = record["settings"] == identity(settings) and same_scans(record["scans"], scans_of(patient))
    return record if current else None


def is_finished(patient: Patient, out: Path, settings: dict) -> bool:
    """Is the patient's record of these scans and settings, "ok", and are its files there?"""
    record = read(patient, out, settings)
    if record is None or record["status"] != "ok":
        return False
    kinds = [*CHANNELS, "mask", *(["lesion"] if patient.path("lesion") else [])]
    files = [out / "qc" / f"{patient.id}.png", *(out / "registered" / f"{patient.id}_{kind}.nii.gz" for kind in kinds)]
    try:
        np.load(out / "hemispheres" / f"{patient.id}.npy", mmap_mode="r")  # as long as its header says?
    except (OSError, ValueError, EOFError):
        return False
    return all(file.is_file() for file in files)
