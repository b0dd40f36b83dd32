"""Scans of brain tumours, as slices to classify or volumes to outline.

In:  tumours.csv, one row a patient, paths relative to the file: patient; one to three of t1, flair, t1ce (NIfTI, in one
     space); type (a word; for 2D); tumour (mask; for 3D); optional split (train, val).
Out: Patients with a split; Split(samples, slices (N, C, H, W) or volumes (N, C, D, H, W), types or masks).
Paper: 3 (weights trained on Cheng 2015 and on Buda 2019; how is not said, so what follows is our choice).
See: tests/training/test_tumour_scans.py

The network sees whole slices and whole volumes, not hemispheres: a tumour may cross the midline, pituitary ones always
do, and convolutions take any size. Voxels are as large as the hemispheres' of the same --grid. Nothing is registered.
Slices are as the file has them, resampled in their plane only: those of Cheng 2015 are 7 mm apart, or unrelated.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from tss.data import nifti
from tss.data.cohort import Patient, path_problems, read_table
from tss.data.hemispheres import CEILING
from tss.data.splits import assign_splits
from tss.data.tasks import Sample
from tss.errors import InputError
from tss.training.dataset import Split

IMAGES = ("t1", "flair", "t1ce")  # before contrast, FLAIR, after contrast: the channels, in the order of Buda 2019
INSTEAD = ("flair", "t1ce", "t1")  # the first of these fills the channel of a missing image; FLAIR: as Buda 2019
SHARES = {"train": 0.8, "val": 0.2}  # of the patients; the paper's 64 to 16. No test split: nothing is reported
VIEW_MM = (182.0, 218.0, 182.0)  # MNI152's field of view, which run_preprocess.py divides into the grid's voxels


def read_tumours(path: Path, model: str, seed: int) -> list[Patient]:
    """Read and check the table, and give each patient a split where it has none, by patient and even in type.

    Raises InputError: all that is wrong with it, line by line; or a split that lacks patients or a type.
    """
    needed = {"2d": "type", "3d": "tumour"}[model]

    def missing_columns(header: list[str]) -> list[str]:
        missing = [name for name in ("patient", needed) if name not in header]
        return missing if set(IMAGES) & set(header) else [*missing, "t1, flair or t1ce (at least one of them)"]

    def problems_of(patient: Patient) -> list[str]:
        if problems := path_problems(patient, (*IMAGES, "tumour")):
            return problems
        problems = [
            f"{name} is {patient.row[name]!r}, which does not exist"
            for name in (*IMAGES, "tumour")
            if (file := patient.path(name)) and not file.is_file()
        ]
        if not any(patient.path(name) for name in IMAGES):
            problems.append("t1, flair and t1ce are all empty; give at least one scan")
        if not patient.row[needed]:
            problems.append(f"{needed} is empty; --model {model} needs it")
        if patient.split not in (*SHARES, ""):
            problems.append(f"split is {patient.split!r}; write train or val, or leave it empty")
        return problems

    known = ("patient", *IMAGES, "type", "tumour", "split")
    patients = read_table(path, known, missing_columns, problems_of)
    assign_splits(patients, np.random.default_rng(seed), SHARES, stratum=lambda patient: (type_of(patient),))
    for split in SHARES:
        inside = [patient for patient in patients if patient.split == split]
        absent = sorted({type_of(p) for p in patients} - {type_of(p) for p in inside}) if model == "2d" else []
        if absent or not inside:
            raise InputError(
                f"{path}: no patient {f'with {absent[0]} ' if absent else ''}in split '{split}'. Add "
                "patients, at least five of each type, or give each one a split in a column 'split'."
            )
    if model == "2d" and len(types_of(patients)) < 2:
        raise InputError(
            f"{path}: every patient has the type {type_of(patients[0])}; there is nothing to classify. "
            "Add patients of another type; Cheng 2015 has three."
        )
    return patients


def type_of(patient: Patient) -> str:
    return patient.row.get("type", "")


def types_of(patients: Sequence[Patient]) -> list[str]:
    """The types in alphabetical order: the network's outputs are in this order."""
    return sorted({type_of(patient) for patient in patients})


def channels_of(patient: Patient) -> list[str]:
    """Which image fills each of the three channels."""
    instead = next(name for name in INSTEAD if patient.path(name))
    return [name if patient.path(name) else instead for name in IMAGES]


def channels_in_words(patients: Sequence[Patient]) -> str:
    """Say how many patients have which images in the three channels."""
    counts = Counter(", ".join(channels_of(patient)) for patient in patients)
    return "; ".join(f"{channels} in {count} patients" for channels, count in counts.most_common())


def load_tumours(patients: Sequence[Patient], model: str, grid: Sequence[int], split: str) -> Split:
    """Read a split into memory. grid: voxels [X, Y, Z] of VIEW_MM.

    Returns:
        2d: slices (N, C, Y, X) float16, labels (N,) int64 = places in types_of(). Those that show tumour, where the
        patient has a mask, else all that show anything. 3d: volumes (N, C, Z, Y, X), labels (N, Z, Y, X) uint8 masks.

    Raises InputError: a scan cannot be read, a mask is empty, or scans do not lie in one space.
    """
    types, samples = types_of(patients), []
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for patient in (patient for patient in patients if patient.split == split):
        volume, mask = load_patient(patient, grid, in_plane=model == "2d")  # (C, Z, Y, X), (Z, Y, X) or None
        if model == "3d":
            assert mask is not None  # read_tumours() has refused patients without one
            samples.append(Sample(patient.id, "whole", int(mask.sum())))
            images.append(volume[None])
            labels.append(mask[None])
            continue
        shown = np.flatnonzero((volume > 0).any((0, 2, 3)) if mask is None else mask.any((1, 2)))
        kind = types.index(type_of(patient))
        samples += [Sample(patient.id, f"slice {z}", kind) for z in shown.tolist()]
        images.append(volume[:, shown].swapaxes(0, 1))
        labels.append(np.full(len(shown), kind))
    tensors = (torch.from_numpy(np.ascontiguousarray(np.concatenate(parts))) for parts in (images, labels))
    return Split(samples, *tensors)


def load_patient(patient: Patient, grid: Sequence[int], in_plane: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Return three channels (C, Z, Y, X) float16 in [0, 1] and the mask (Z, Y, X) uint8, or None where there is none.

    in_plane: Z is the file's own; else the grid's.
    """
    files = {name: file for name in channels_of(patient) if (file := patient.path(name))}
    fewest = 1 if in_plane else nifti.FEWEST_VOXELS  # single slices are samples of their own
    scans = {name: nifti.load(file, fewest=fewest) for name, file in files.items()}
    first = next(iter(scans.values()))
    shape, affine = grid_around_head(first, grid, in_plane)
    channels = {name: scale_to_median(nifti.resample(scan, shape, affine)) for name, scan in scans.items()}
    if empty := [name for name, channel in channels.items() if not channel.any()]:
        raise InputError(
            f"{files[empty[0]]} shows nothing where {first.path} has the head. All scans of a "
            "patient must lie in one space: register them to one of them first."
        )
    volume = np.stack([channels[name] for name in channels_of(patient)]).astype(np.float16)
    mask = None
    if file := patient.path("tumour"):
        drawn = nifti.load(file, mask=True, fewest=fewest)
        drawn = drawn._replace(data=(drawn.data > 0).astype(np.float32))  # whatever labels its parts have
        mask = (nifti.resample(drawn, shape, affine) >= 0.5).astype(np.uint8)
        if not mask.any():
            raise InputError(
                f"{file} has no tumour where {first.path} has the head, or less than "
                "one voxel of the --grid. Correct the mask, or omit this patient."
            )
        mask = mask.T
    return volume.transpose(0, 3, 2, 1), mask


def grid_around_head(
    scan: nifti.Volume, grid: Sequence[int], in_plane: bool
) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and affine of a grid along the scan's own axes, around the middle of the head that it shows."""
    bright = np.argwhere(scan.data > scan.data.mean())  # the head: air is darker than the mean
    middle = bright.mean(axis=0)
    step = np.array(VIEW_MM) / grid / nifti.voxel_sizes(scan.affine)  # in the scan's voxels
    shape = np.array(grid)
    if in_plane:
        shape[2], step[2], middle[2] = scan.data.shape[2], 1, (scan.data.shape[2] - 1) / 2
    to_scan = np.diag([*step, 1.0])
    to_scan[:3, 3] = middle - step * (shape - 1) / 2
    return tuple(shape.tolist()), scan.affine @ to_scan


def scale_to_median(scan: np.ndarray) -> np.ndarray:
    """Map to [0, 1]: the head's median lies where FLAIR's healthy brain lies in the hemispheres, air at 0."""
    head = scan[scan > scan.mean()]
    return np.clip(scan / (CEILING["flair"] * np.median(head)), 0, 1) if head.size else np.zeros_like(scan)
