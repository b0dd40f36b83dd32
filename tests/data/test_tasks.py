"""Labels of each task from one time column; failed and rejected patients are excluded."""

import hashlib

from tss.data import cohort, splits, tasks


def test_labels_of_each_task_come_from_one_time_column():
    def patient(name, minutes, side, status="ok"):
        return cohort.Patient(
            {"patient": name, "onset_to_mri_min": minutes, "stroke_side": side, "split": "train", "status": status},
            None,
        )

    patients = [
        patient("a", "179.9", "left"),
        patient("b", "180", "right"),
        patient("c", "270", "both"),
        patient("unknown time", "", "left"),
        patient("unknown side", "100", ""),
        patient("failed", "100", "left", "failed"),
    ]
    assert tasks.samples(patients, "stroke", "train") == [
        ("a", "left", 1),
        ("a", "right", 0),
        ("b", "left", 0),
        ("b", "right", 1),
        ("c", "left", 1),
        ("c", "right", 1),
        ("unknown time", "left", 1),
        ("unknown time", "right", 0),
    ]
    assert tasks.samples(patients, "tss<3h", "train") == [
        ("a", "left", 1),
        ("b", "right", 0),
        ("c", "left", 0),
        ("c", "right", 0),
    ]
    assert tasks.samples(patients, "tss<4.5h", "train") == [
        ("a", "left", 1),
        ("b", "right", 1),
        ("c", "left", 0),
        ("c", "right", 0),
    ]
    assert tasks.samples(patients, "stroke", "test") == []


def test_whom_quality_control_rejects_takes_no_part_and_the_split_stays_the_same():
    row = {"onset_to_mri_min": "100", "stroke_side": "left", "status": "ok", "split": "train"}
    patients = [cohort.Patient(row | {"patient": f"p{number}"}, None) for number in range(6)]
    before = splits.split_hash(patients)
    patients[0].row |= {"verdict": "reject", "verdict_remark": "eyes in\n the mask"}
    patients[1].row |= {"verdict": "reject"}
    patients[2].row |= {"verdict": "accept", "verdict_remark": "fine"}
    patients[3].row |= {"verdict": "unsure"}
    patients[4].row |= {"status": "failed", "reason": "no b0", "verdict": "reject"}
    patients[5].row |= {"status": ""}
    assert [p.status for p in patients] == ["rejected", "rejected", "ok", "ok", "failed", ""]
    assert [p.reason for p in patients] == [
        "rejected at quality control: eyes in the mask",
        "rejected at quality control",
        "",
        "",
        "no b0",
        "not preprocessed",
    ]
    for task in (*tasks.TASKS, tasks.RESTORE):
        assert {sample.patient for sample in tasks.samples(patients, task, "train")} == {"p2", "p3"}
    assert splits.split_hash(patients) == before


def one(minutes="100", side="left"):
    return cohort.Patient(
        {"patient": "p", "onset_to_mri_min": minutes, "stroke_side": side, "split": "train", "status": "ok"}, None
    )


def test_both_hemispheres_are_restored_whatever_is_known():
    assert tasks.samples([one("", "")], tasks.RESTORE, "train") == [("p", "left", -1), ("p", "right", -1)]


def test_predictions_have_a_line_a_hemisphere_for_stroke_and_a_line_a_patient_for_time():
    assert tasks.lines_of(one(), "stroke") == [("left", 1), ("right", 0)]
    assert tasks.lines_of(one("200", "right"), "tss<3h") == [("right", 0)]
    assert tasks.lines_of(one("", "both"), "tss<4.5h") == [("both", -1)]
    assert tasks.lines_of(one(side=""), "stroke") == [("left", -1), ("right", -1)]
    assert tasks.label_of(one("0"), "tss<3h") == 1  # no time at all is short, not unknown


def test_the_hash_of_cases_is_of_all_of_them_in_any_order():
    cases = [("a", "left", 1), ("a", "right", 0), ("b", "left", 0)]
    assert tasks.cases_hash(cases) == tasks.cases_hash(cases[::-1])
    assert tasks.cases_hash(cases) == hashlib.sha256(b"a,left,1\na,right,0\nb,left,0\n").hexdigest()
