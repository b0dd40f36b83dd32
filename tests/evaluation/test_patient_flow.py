"""Patient flow: everybody is counted once, with the reason."""

from pathlib import Path

import pytest

from tss.data.cohort import EXTERNAL, SPLITS, Patient
from tss.evaluation.patient_flow import IN_TABLE, TAKING_PART, patient_flow


def patient(name, split, minutes="100", side="left", status="ok", reason="", **more):
    return Patient(
        {
            "patient": name,
            "split": split,
            "onset_to_mri_min": minutes,
            "stroke_side": side,
            "status": status,
            "reason": reason,
            **more,
        },
        Path("."),
    )


COHORT = [
    patient("a", "train"),
    patient("b", "train", side=""),
    patient("c", "train", minutes="", side=""),
    patient("d", "val"),
    patient("e", "val", status="failed", reason="cut off"),
    patient("f", "val", status=""),
    patient("g", "test"),
    patient("h", "test", side=""),
    patient("i", "test", minutes=""),
    patient("j", "test", status="failed", reason="cut off", minutes=""),
    patient("k", "test", verdict="reject"),
    patient("l", "test", side="both"),
    patient("m", "test", side=""),
]
NOBODY = dict.fromkeys(SPLITS, 0)


def steps(task, **no_answer):
    return {step.name: step for step in patient_flow(COHORT, task, "test", no_answer)}


def test_each_patient_ends_in_one_step_and_the_reasons_are_counted():
    found = steps("tss<4.5h", h="no checkpoint of phase 1", j="cut off")
    assert found[IN_TABLE].counts == {"train": 3, "val": 3, "test": 7}
    assert {name: step.counts for name, step in found.items() if name != IN_TABLE} == {
        "not preprocessed yet": NOBODY | {"val": 1},
        "failed preprocessing": NOBODY | {"val": 1, "test": 1},
        "rejected at quality control": NOBODY | {"test": 1},
        "onset unknown": NOBODY | {"train": 1, "test": 1},
        "stroke side unknown": NOBODY | {"train": 1},
        "no prediction by a network": NOBODY | {"test": 1},
        TAKING_PART: {"train": 1, "val": 1, "test": 3},
    }  # g, l and m, whose side phase 1 found
    assert found["failed preprocessing"].reasons == {"cut off": 2}
    assert found["no prediction by a network"].reasons == {"no checkpoint of phase 1": 1}


@pytest.mark.parametrize("task", ["stroke", "tss<3h"])
def test_the_first_step_less_those_between_is_the_last(task):
    first, *lost, last = patient_flow(COHORT, task, "test", {"g": "no file"})
    for split in SPLITS:
        assert first.counts[split] - sum(step.counts[split] for step in lost) == last.counts[split]
    assert (first.name, last.name) == (IN_TABLE, TAKING_PART) and all(sum(step.counts.values()) for step in lost)


def test_phase_1_asks_for_the_side_and_not_for_the_time():
    found = steps("stroke")
    assert "onset unknown" not in found and found["stroke side unknown"].counts == NOBODY | {"train": 2, "test": 2}
    assert found[TAKING_PART].counts == {"train": 1, "val": 1, "test": 3}


def test_external_patients_are_counted_where_they_are_evaluated_and_nowhere_else():
    more = [*COHORT, patient("x", EXTERNAL), patient("y", EXTERNAL, minutes="")]
    for split, counts in (
        ("test", {"train": 3, "val": 3, "test": 7}),
        (EXTERNAL, {"train": 3, "val": 3, "test": 7, EXTERNAL: 2}),
    ):
        first, *_, last = patient_flow(more, "tss<4.5h", split, {})
        assert first.counts == counts and last.counts.get(EXTERNAL) == (1 if split == EXTERNAL else None)
