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
    assert (left.n, left.n_positive, left.shares.specificity.value) == (12, 6, 5 / 6)
    assert left.shares.sensitivity == (4 / 6, wilson(4, 6)) and left.withheld is None
    # Positives beat 6, 6, 6, 6, 5 and 4 of the six negatives.
    assert left.auc.value == pytest.approx(33 / 36)
    weak = cells["field strength", "1.5"]
    assert weak.shares.specificity.value == weak.shares.accuracy.value == 5 / 6
    assert weak.shares.sensitivity is None and weak.auc is None
    assert weak.withheld == ["auc", "sensitivity"] and weak.reason == "n < 5: withheld"
    assert cells["side", "unknown"].n == 0 and cells["side", "right"].shares.accuracy is None
    json.dumps(as_json(list(cells.values())), allow_nan=False)
    lines = subgroups.subgroups_table(list(cells.values())).splitlines()
    assert lines[4].split()[:4] == ["side", "left", "12", "6"] and "0.917 [" in lines[4]
    assert lines[5].count("n < 5: withheld") == 4
