"""Cross-validation: who is validated on in which fold, drawn once and written down, by patient and in balance.

In:  DATA with a split; the K-th of N folds.
Out: DATA/folds_of_<N>.csv (patient, fold from 1 to N) of all but the test patients; the cohort with the K-th fold as
     its validation patients and the others as training patients. The test patients stay what they are.
Paper: none; the paper validates on one part of 16 % (2.1): 68 patients choose epoch and threshold (decision 8).
See: tests/data/test_folds.py
"""

import csv
import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tss.data.cohort import Patient
from tss.data.files import as_csv, write_text
from tss.data.prepared import read_settings
from tss.data.shards import Shard
from tss.data.splits import stratum
from tss.errors import InputError

DEALT = ("train", "val")  # splits that are dealt out anew


def folds_file(data: str | os.PathLike, parts: int) -> Path:
    return Path(data) / f"folds_of_{parts}.csv"


def in_fold(data: str | os.PathLike, patients: Sequence[Patient], fold: Shard) -> list[Patient]:
    """Return the cohort as the K-th fold has it: its own patients in "val", those of the other folds in "train".

    The folds are drawn and written where DATA has none yet. The patients given are not changed.

    Raises InputError: fewer than two folds, more folds than patients, or the file is of other patients.
    """
    of = read_folds(data, patients, fold.parts)
    split = {name: "val" if number == fold.part else "train" for name, number in of.items()}
    return [
        replace(patient, row=patient.row | {"split": split[patient.id]}) if patient.id in split else patient
        for patient in patients
    ]


def read_folds(data: str | os.PathLike, patients: Sequence[Patient], parts: int) -> dict[str, int]:
    """Return patient -> fold from 1 to N, as DATA/folds_of_<N>.csv has it; it is drawn first where there is none.

    The seed is that of DATA's split, so that the jobs of an array draw the same folds, and trainings of other seeds
    are of the same folds.
    """
    dealt = [patient for patient in patients if patient.split in DEALT]
    if not 2 <= parts <= len(dealt):
        raise InputError(f"{parts} folds of {len(dealt)} training and validation patients: give 2 to {len(dealt)}.")
    path = folds_file(data, parts)
    if not path.is_file():
        drawn = draw_folds(dealt, parts, read_settings(data).get("seed", 0))
        write_text(path, as_csv([{"patient": patient.id, "fold": drawn[patient.id]} for patient in dealt]))
    try:
        lines = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
        folds = {line["patient"]: int(line["fold"]) for line in lines}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}). Delete it: it is drawn again, the same.") from error
    if len(lines) != len(dealt) or folds.keys() != {patient.id for patient in dealt}:
        raise InputError(
            f"{path} is of other patients than those in split 'train' or 'val' now. Put back the table that it was "
            "drawn for, or delete it and train all folds again."
        )
    if set(folds.values()) != set(range(1, parts + 1)):
        raise InputError(f"{path} must have the folds 1 to {parts}, each with a patient. Delete it: it is drawn again.")
    return folds


def folds_hash(folds: Mapping[str, int]) -> str:
    """Return the SHA-256 of who is in which fold: equal hashes, one drawing."""
    lines = sorted(f"{patient},{fold}\n" for patient, fold in folds.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def draw_folds(patients: Sequence[Patient], parts: int, seed: int) -> dict[str, int]:
    """Return patient -> fold: shuffled, lined up by status, time band and side, and dealt out in turn."""
    order = np.random.default_rng([seed, parts]).permutation(len(patients))
    lined_up = sorted((patients[i] for i in order), key=lambda patient: (patient.status != "ok", *stratum(patient)))
    return {patient.id: place % parts + 1 for place, patient in enumerate(lined_up)}
