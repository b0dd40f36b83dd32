"""Labels of each task from one time column; failed and rejected patients are excluded."""

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
