"""Groups of patients by hand: who is in which cell, and what is withheld."""

import json
from pathlib import Path

import numpy as np
import pytest

from tss.data import nifti
from tss.data.cohort import Patient
from tss.evaluation import subgroups
from tss.evaluation.inference import Prediction
from tss.evaluation.results import as_json
from tss.metrics.roc import wilson


def patient(number, minutes, side="left", **more):
    return Patient({"patient": f"p{number}", "onset_to_mri_min": str(minutes), "stroke_side": side, **more}, Path())


def test_volume_is_measured_in_the_mask_itself(tmp_path):
    mask = np.zeros((10, 10, 6), np.float32)
    mask[2:7, 1:8, 1:3] = 1  # 70 voxels of 10 x 10 x 2 mm are 14 ml
    small, none = patient(0, 60, lesion="small.nii.gz"), patient(2, 60, lesion="")
    large, lost = patient(1, 60, lesion="large.nii.gz"), patient(3, 60, lesion="lost.nii.gz")
    for each in (small, none, large, lost):
        each.folder = tmp_path
    nifti.save(tmp_path / "small.nii.gz", mask, np.diag([-10, 10, 2, 1.0]))
    mask[2:8, 8, 4] = 1  # and 6 more 15.2 ml
    nifti.save(tmp_path / "large.nii.gz", mask, np.diag([-10, 10, 2, 1.0]))
    assert [subgroups.lesion_volume(each) for each in (small, large, none, lost)] == [
        "up to 15 ml",
        "over 15 ml",
        "",
        "mask unreadable",
    ]


@pytest.mark.parametrize(
    ("minutes", "band"), [("179", "0-3 h"), ("180", "3-6 h"), ("359", "3-6 h"), ("360", "6 h on"), ("", "")]
)
def test_time_bands(minutes, band):
    assert subgroups.time_band(patient(0, minutes)) == band


def test_figures_of_each_cell_and_what_is_withheld():
    early = [patient(number, 200, "left", field_strength="3") for number in range(6)]
    late = [patient(number, 300, "left", field_strength="1.5") for number in range(6, 12)]
    other = [patient(12, 400, "right"), patient(13, 100, "")]
    patients = early + late + other
    predictions = [
        Prediction(each.id, "left", int(each.minutes < 270), p)
        for each, p in zip(
            patients, [0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.5, 0.35, 0.2, 0.2, 0.1, 0.1, 0.4, None], strict=True
        )
    ]
    cells = {(cell.group, cell.cell): cell for cell in subgroups.score_subgroups(patients, predictions, 0.45)}
    assert list(cells) == [
        ("onset to MRI", "0-3 h"),
        ("onset to MRI", "3-6 h"),
        ("onset to MRI", "6 h on"),
        ("side", "left"),
        ("side", "right"),
        ("side", "unknown"),
        ("field strength", "1.5"),
        ("field strength", "3"),
        ("field strength", "unknown"),
    ]
    left = cells["side", "left"]
    assert (left.n, left.n_positive, left.shares.sensitivity) == (12, 6, (4 / 6, wilson(4, 6)))
    # The one negative on the right would follow from all negatives and the left ones.
    assert left.withheld == ["auc", "specificity", "accuracy"]
    only = {cell.cell: cell for cell in subgroups.score_subgroups(early + late, predictions[:12], 0.45)}["left"]
    assert only.withheld is None and only.shares.specificity.value == 5 / 6
    # Positives beat 6, 6, 6, 6, 5 and 4 of the six negatives.
    assert only.auc.value == pytest.approx(33 / 36)
    six = {cell.cell: cell for cell in subgroups.score_subgroups(early + late, predictions[:12], 0.45)}["1.5"]
    assert six.shares.specificity.value == 5 / 6 and six.shares.sensitivity is six.auc is None
    assert six.withheld == ["auc", "sensitivity", "accuracy"] and six.reason == "withheld"  # accuracy is specificity
    assert cells["side", "unknown"].n == 0 and cells["side", "right"].shares.accuracy is None
    json.dumps(as_json(list(cells.values())), allow_nan=False)
    text = subgroups.subgroups_table(list(cells.values()))
    lines = text.splitlines()
    assert lines[4].split()[:4] == ["side", "left", "12", "6"] and lines[4].count("withheld") == 3
    assert lines[5].count("withheld") == 4 and lines[-1] == subgroups.WHY_WITHHELD


@pytest.mark.parametrize(("behind", "hidden"), [
    ([10, 12], []),
    ([4, 12, 9], [0, 2]),  # 4 = all - 12 - 9: so the smaller neighbour too
    ([4, 3, 9], [0, 1]),  # seven together: neither follows
    ([1, 2, 9, 7], [0, 1, 3]),  # three together are too few
    ([4, 0, 8], [0, 1, 2]),  # nobody is behind the second: it hides nothing
    ([0, 9, 8], [0]),
    ([2], [0]),
    ([5, 5], []),
])  # fmt: skip
def test_what_is_withheld_cannot_be_worked_out(behind, hidden):
    assert sorted(subgroups.withheld(behind)) == hidden


def test_no_withheld_count_follows_from_those_that_are_shown():
    """Of whatever groups: true positives and negatives of all, less the shown cells', are of none or of enough."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        patients = [
            patient(n, 200, ("left", "right", "both", "")[rng.choice(4, p=[0.5, 0.3, 0.1, 0.1])]) for n in range(30)
        ]
        predictions = [Prediction(each.id, "left", int(rng.random() < 0.4), rng.random()) for each in patients]
        cells = subgroups.score_subgroups(patients, predictions, 0.5)
        for label, score in ((1, "sensitivity"), (0, "specificity")):
            behind = {
                cell.cell: cell.n_positive if label else cell.n - cell.n_positive
                for cell in cells
                if cell.group == "side"
            }
            gone = [
                cell.cell
                for cell in cells
                if cell.group == "side" and score in (cell.withheld or ()) and behind[cell.cell]
            ]
            assert not gone or len(gone) > 1 or len([n for n in behind.values() if n]) == 1
            assert not gone or sum(behind[cell] for cell in gone) >= min(subgroups.FEWEST, sum(behind.values()))
        for cell in cells:  # within a cell: accuracy is shown beside both or none
            missing = set(cell.withheld or ())
            assert not missing & {"sensitivity", "specificity"} or {"accuracy", "auc"} <= missing
