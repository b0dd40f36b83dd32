"""The tasks of the paper's schedule, and the one rule that labels patients and hemispheres.

In:  Patients, a task, a split.
Out: Sample(patient, side, label) of each hemisphere that takes part; the lines of predictions.csv.
Paper: 2.3 (stroke side, TSS < 3 h, TSS < 4.5 h; only hemispheres with stroke for TSS).
See: tests/data/test_tasks.py
"""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from tss.data.cohort import SIDES, Patient

TASKS = {"stroke": None, "tss<3h": 180.0, "tss<4.5h": 270.0}  # positive below so many minutes (paper 2.3)
POSITIVE = {"stroke": "stroke in the hemisphere", "tss<3h": "TSS < 3 h", "tss<4.5h": "TSS < 4.5 h"}
RESTORE = "restore"  # phase 0's task: no labels, so it is not in TASKS (paper 2.2)
TUMOURS = {"2d": "tumour type", "3d": "tumour outline"}  # what medical weights learn, on other patients (paper 3)
UNKNOWN = -1  # the label where side or onset is not known


class Sample(NamedTuple):
    """A hemisphere to classify: label 1 = positive, 0 = negative, -1 = unknown."""

    patient: str
    side: str
    label: int


def label_of(patient: Patient, task: str, side: str = "") -> int:
    """Return 1 = positive, 0 = negative, UNKNOWN.

    "stroke": is there stroke in the hemisphere of this side?
    "tss<3h", "tss<4.5h": did the stroke begin less than the limit ago? The same for both sides.
    """
    limit = TASKS[task]
    if limit is None:
        return int(patient.side in (side, "both")) if patient.side else UNKNOWN
    return UNKNOWN if patient.minutes is None else int(patient.minutes < limit)


def samples(patients: list[Patient], task: str, split: str) -> list[Sample]:
    """Return the hemispheres that take part in a task, with labels (paper 2.3).

    "stroke": both hemispheres of patients whose side is known.
    "tss<3h", "tss<4.5h": hemispheres with stroke of patients whose onset is known.
    "restore": both hemispheres of every patient, without labels (-1); side and onset may be unknown.
    Failed and rejected patients are excluded.
    """
    usable = [patient for patient in patients if patient.status == "ok" and patient.split == split]
    if task == RESTORE:
        return [Sample(patient.id, side, UNKNOWN) for patient in usable for side in SIDES]
    found = [
        Sample(patient.id, side, label_of(patient, task, side))
        for patient in usable
        for side in SIDES
        if TASKS[task] is None or patient.side in (side, "both")
    ]
    return [sample for sample in found if sample.label != UNKNOWN]


def lines_of(patient: Patient, task: str) -> list[tuple[str, int]]:
    """Return (side, label) of each line that a patient has in predictions.csv: one a hemisphere for "stroke", else
    one a patient."""
    sides = SIDES if TASKS[task] is None else (patient.side,)
    return [(side, label_of(patient, task, side)) for side in sides]


def cases_hash(cases: Iterable[tuple[str, str, int]]) -> str:
    """Return the SHA-256 of cases (patient, side, label) in any order: equal hashes, same test set.

    The side is "" where a patient has one line.
    """
    lines = sorted(f"{patient},{side},{label}\n" for patient, side, label in cases)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
