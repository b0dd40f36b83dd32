"""The lines of predictions.csv, and the patients without one."""

import csv
from pathlib import Path

from tss.data.cohort import Patient
from tss.evaluation.inference import Model, Prediction
from tss.evaluation.predictions_table import line_of, write_predictions

MODEL = Model(Path("best.pt"), "phase4", None, {"task": "tss<4.5h", "threshold": 0.4})
LINES = [
    Prediction("a", "left", 1, 0.4, side_from="table"),
    Prediction("b", "right", -1, 0.39, side_from="phase 1"),
    Prediction("c", "", 0, None, "b0.nii.gz is cut off"),
]


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_patient_has_a_line_and_those_without_an_answer_a_table_of_their_own(tmp_path):
    rows = [{"patient": name, "split": "test", "status": "ok", "flags": "turned" * (name == "b")} for name in "abc"]
    rows[2]["status"] = "failed"
    write_predictions(tmp_path, MODEL, LINES, [Patient(row, tmp_path) for row in rows])
    a, b, c = table(tmp_path / "predictions.csv")
    assert list(a) == [
        "patient", "side", "side_from", "label", "probability", "threshold", "verdict", "reason", "flags",
    ]  # fmt: skip
    assert [line["verdict"] for line in (a, b, c)] == ["positive", "negative", ""]
    assert (a["label"], b["label"], b["side_from"], b["flags"]) == ("1", "", "phase 1", "turned")
    assert (c["probability"], c["reason"], c["threshold"]) == ("", "b0.nii.gz is cut off", "0.4")
    assert table(tmp_path / "without_prediction.csv") == [
        {"patient": "c", "split": "test", "status": "failed", "reason": "b0.nii.gz is cut off"}
    ]


def test_where_everybody_has_an_answer_there_is_no_second_table(tmp_path):
    for probability in (0.4, 0.0):  # zero is an answer too
        lines = [LINES[0]._replace(probability=probability)]
        write_predictions(tmp_path, MODEL, lines, [Patient({"patient": "a"}, tmp_path)])
        assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


def test_a_line_keeps_what_is_not_known_as_none():
    line = line_of(LINES[2], MODEL, "")
    assert line["probability"] is None and line["verdict"] is None and line["label"] == 0
