"""A cohort of phantoms as a BIDS folder, as dcm2niix and a careful lab would write it.

In:  the cohort.csv that tss.phantom.cohort_phantom writes.
Out: FOLDER/sub-*/dwi (4-D: b0 and three directions of b1000, .bval, .bvec, .json), FOLDER/sub-*/anat (FLAIR, .json),
     FOLDER/derivatives/truth (lesion masks), participants.tsv and .json, dataset_description.json, README.
Paper: none (our choice: BIDS 1.10, so that reading it can be tried without a patient).
See: tests/data/test_bids.py

Usage, from the folder tests: write_bids(make_cohort("phantom", 12, seed=0), "bids")
"""

import os
import re
from pathlib import Path

import nibabel
import numpy as np

from tss.data.cohort import SCANS, Patient, read_cohort
from tss.data.files import write_json, write_text, write_whole
from tss.errors import InputError

ANISOTROPY = (1.2, 1.0, 1 / 1.2)  # each direction over the trace image; their product is 1, as the trace asks for
BVALS, BVECS = (0, 1000, 1000, 1000), np.eye(3, 4, k=1)  # the b0 first, then three orthogonal directions
VERSION = "1.10.0"
COLUMNS = {  # for participants.json
    "onset_to_mri_min": {"Description": "time from onset to MRI", "Units": "min"},
    "stroke_side": {
        "Description": "hemisphere with the acute infarct",
        "Levels": {"left": "the patient's left", "right": "the patient's right", "both": "both hemispheres"},
    },
    "age": {"Description": "age", "Units": "year"},
    "sex": {"Description": "sex", "Levels": {"F": "female", "M": "male"}},
    "nihss": {"Description": "National Institutes of Health Stroke Scale, 0 to 42"},
    "phantom": {"Description": "spread of the clock that made this patient up"},
}


def write_bids(cohort: str | os.PathLike, folder: str | os.PathLike) -> Path:
    """Write a cohort of phantoms as a BIDS dataset and return its folder.

    The phantom's DWI is a trace image, so its three directions are the trace times ANISOTROPY: their geometric mean
    is the trace again. That would be a forgery of a real patient's scan, hence phantoms only.

    Raises:
        InputError: a patient without a value in column phantom, or a folder that is not empty.
    """
    folder, patients = Path(folder), read_cohort(cohort)
    if real := [patient.id for patient in patients if not patient.row.get("phantom")]:
        raise InputError(
            f"{cohort}: {real[0]} is not a phantom (column phantom is empty). Directions of DWI are made "
            "up for made-up patients only."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already. Name a new folder.")
    labels = {patient.id: "sub-" + re.sub("[^A-Za-z0-9]", "", patient.id) for patient in patients}
    for patient in patients:
        _write_subject(patient, labels[patient.id], folder)

    columns = [name for name in patients[0].row if name not in (*SCANS, "patient")]
    lines = [["participant_id", *columns]]
    lines += [[labels[patient.id], *(patient.row[name] or "n/a" for name in columns)] for patient in patients]
    write_text(folder / "participants.tsv", "".join("\t".join(line) + "\n" for line in lines))
    write_json(folder / "participants.json", {name: COLUMNS[name] for name in columns if name in COLUMNS})
    write_text(folder / "README", "Made-up stroke patients (phantoms), written by tss. No patient was ever scanned.\n")
    name = {"Name": "tss phantoms", "BIDSVersion": VERSION}
    write_json(folder / "dataset_description.json", name | {"DatasetType": "raw"})
    write_json(
        folder / "derivatives" / "truth" / "dataset_description.json",
        name | {"DatasetType": "derivative", "GeneratedBy": [{"Name": "truth"}]},
    )
    return folder


def _write_subject(patient: Patient, label: str, folder: Path) -> None:
    """Write one subject. The scans keep their files' axes and kind of number."""
    b0, dwi, flair = (nibabel.load(patient.path(name)) for name in ("b0", "dwi", "flair"))
    trace = dwi.get_fdata(dtype=np.float32)
    series = np.stack([b0.get_fdata(dtype=np.float32), *(trace * factor for factor in ANISOTROPY)], axis=-1)
    stem = folder / label / "dwi" / f"{label}_dwi"
    _save(f"{stem}.nii.gz", series, dwi)
    write_text(f"{stem}.bval", " ".join(map(str, BVALS)) + "\n")
    write_text(f"{stem}.bvec", "".join(" ".join(f"{value:g}" for value in row) + "\n" for row in BVECS))
    made_up = {"Modality": "MR", "Manufacturer": "tss phantom"}
    write_json(f"{stem}.json", made_up | {"ImageType": ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]})
    stem = folder / label / "anat" / f"{label}_FLAIR"
    _save(f"{stem}.nii.gz", flair.get_fdata(dtype=np.float32), flair)
    write_json(f"{stem}.json", made_up | {"ImageType": ["ORIGINAL", "PRIMARY"]})
    if patient.path("lesion"):
        mask = nibabel.load(patient.path("lesion"))
        _save(
            folder / "derivatives" / "truth" / label / "dwi" / f"{label}_space-orig_label-lesion_mask.nii.gz",
            mask.get_fdata(dtype=np.float32),
            mask,
        )


def _save(path: str | os.PathLike, data: np.ndarray, like: nibabel.Nifti1Image) -> None:
    """Write data with another image's place in the world and kind of number; nibabel finds the scale of integers."""
    image = nibabel.Nifti1Image(data, like.affine, like.header)
    if like.get_data_dtype() == np.uint8:
        image = nibabel.Nifti1Image(data.astype(np.uint8), like.affine, like.header)
    write_whole(path, lambda beside: nibabel.save(image, beside))
