"""TODO"""

from typing import NamedTuple

from tss.data.cohort import SIDES, Patient

TASKS = {"stroke": None, "tss<3h": 180.0, "tss<4.5h": 270.0}  # positive below so many minutes (paper 2.3)
RESTORE = "restore"  # phase 0's task: no labels, so it is none of TASKS (paper 2.2)
TUMOURS = {"2d": "tumour type", "3d": "tumour outline"}  # what medical weights learn, on other patients (paper 3)


class Sample(NamedTuple):
    """A hemisphere to classify: label 1 = positive, 0 = negative, -1 = unknown."""

    patient: str
    side: str
    label: int


def samples(patients: list[Patient], task: str, split: str) -> list[Sample]:
    """Return the hemispheres that take part in a task, with labels (paper 2.3).

    "stroke": both hemispheres of patients whose side is known; 1 = stroke in this hemisphere.
    "tss<3h", "tss<4.5h": hemispheres with stroke of patients whose onset is known; 1 = onset less long ago.
    "restore": both hemispheres of everybody, without labels (-1); side and onset may be unknown.
    Who failed, or was rejected at quality control, is in none of them.
    """
    usable = [p for p in patients if p.status == "ok" and p.split == split]
    if task == RESTORE:
        return [Sample(p.id, side, -1) for p in usable for side in SIDES]
    taking_part = [p for p in usable if p.side]
    limit = TASKS[task]
    if limit is None:
        return [Sample(p.id, side, int(p.side in (side, "both"))) for p in taking_part for side in SIDES]
    return [
        Sample(p.id, side, int(p.minutes < limit))
        for p in taking_part
        if p.minutes is not None
        for side in SIDES
        if p.side in (side, "both")
    ]


POSITIVE = {"stroke": "stroke in the hemisphere", "tss<3h": "TSS < 3 h", "tss<4.5h": "TSS < 4.5 h"}


def lines_of(patient: Patient, task: str) -> list[tuple[str, int]]:
    """Return (side, label) of each line that a patient has in predictions.csv."""
    limit = TASKS[task]
    if limit is None:
        return [(side, int(patient.side in (side, "both")) if patient.side else -1) for side in SIDES]
    return [(patient.side, -1 if patient.minutes is None else int(patient.minutes < limit))]
