"""Patient flow: how many are in the table, who was lost where and why, how many are behind the scores.

In:  the patients of cohort.csv, a task, the split that is evaluated and its patients without a prediction.
Out: Steps, each with the number of patients in every split and the reasons; the first less those lost is the last.
Paper: none: it gives 422 patients and no exclusion (STARD 2015 asks for it).
See: tests/evaluation/test_patient_flow.py
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tss.data.cohort import EXTERNAL, SPLITS, Patient
from tss.data.tasks import TASKS

IN_TABLE, TAKING_PART = "in cohort.csv", "taking part"
LOST = {"": "not preprocessed yet", "failed": "failed preprocessing", "rejected": "rejected at quality control"}
NO_LABEL = {True: "stroke side unknown", False: "onset unknown"}  # is the task about the side?
NO_ANSWER = "no prediction by a network"
NOT_TRAINED = "stroke side unknown"  # of a TSS task: which hemisphere to learn from is not known


class Step(NamedTuple):
    """What became of some patients: how many in each split; why, and how often."""

    name: str
    counts: dict[str, int]
    reasons: dict[str, int]


def patient_flow(patients: Sequence[Patient], task: str, split: str, no_answer: Mapping[str, str]) -> list[Step]:
    """Return the steps from the table to the scores: the first holds everybody, the last who takes part.

    Every patient is in exactly one of the steps between, or in the last. In the split that is evaluated the last are
    those that every network of the task scored; in the others, those that take part in training and validation.

    External patients are counted where they are the ones that are evaluated.

    no_answer: patient -> why some network has no probability for it.
    """
    patients = [patient for patient in patients if patient.split != EXTERNAL or split == EXTERNAL]
    splits = [name for name in (*SPLITS, EXTERNAL) if any(patient.split == name for patient in patients)]
    splits = list(SPLITS) if EXTERNAL not in splits else splits
    ends = {patient.id: _end(patient, task, split, no_answer) for patient in patients}
    lost = [*LOST.values(), NO_LABEL[TASKS[task] is None], NOT_TRAINED, NO_ANSWER]
    steps = [_step(IN_TABLE, patients, {}, splits)]
    for name in dict.fromkeys(lost):
        there = [patient for patient in patients if ends[patient.id][0] == name]
        if there:
            reasons = Counter(filter(None, (ends[patient.id][1] for patient in there)))
            steps.append(_step(name, there, reasons, splits))
    taking_part = [patient for patient in patients if ends[patient.id][0] == TAKING_PART]
    return [*steps, _step(TAKING_PART, taking_part, {}, splits)]


def _step(name: str, patients: Sequence[Patient], reasons: Mapping[str, int], splits: Sequence[str]) -> Step:
    return Step(name, {split: sum(patient.split == split for patient in patients) for split in splits}, dict(reasons))


def _end(patient: Patient, task: str, split: str, no_answer: Mapping[str, str]) -> tuple[str, str]:
    """Return in which step a patient ends, and why where the step's name does not say it."""
    about_side = TASKS[task] is None
    if patient.status != "ok":
        return LOST[patient.status], patient.reason if patient.status else ""
    if not patient.side if about_side else patient.minutes is None:
        return NO_LABEL[about_side], ""
    if patient.split == split:
        return (NO_ANSWER, no_answer[patient.id]) if patient.id in no_answer else (TAKING_PART, "")
    return (TAKING_PART, "") if patient.side else (NOT_TRAINED, "")
