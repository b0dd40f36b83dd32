"""Older methods on a small made-up cohort, from registered volumes to two rows of a table."""

import csv
import shutil

import numpy as np
import pytest
from heads import save
from stroke import SHAPE, VOXEL_MM, made_up_stroke

from tss.baselines import classifiers
from tss.data import nifti
from tss.errors import InputError
from tss.evaluation import older_methods
from tss.evaluation.older_methods import METHODS, measure_cohort, predict_with, rows_of_baseline
from tss.evaluation.results import FLAIR_CLOCK, LEE2020
from tss.evaluation.scores import labels_and_probabilities
from tss.metrics.roc import roc_auc, youden_threshold

AFFINE = np.diag([*VOXEL_MM, 1.0])
COUNT = 32  # p00, p01, ...; the last two of the test split: nothing to be seen, and not preprocessed


def write_volumes(data, name, number, flair_ratio, seen=True):
    rng = np.random.default_rng(number)
    infarct = np.zeros(SHAPE, bool)
    if seen:
        x, y, z = 4 + rng.integers(3), 6 + rng.integers(10), rng.integers(3)
        infarct[x : x + 4, y : y + 6, z : z + 3] = True
    volumes, infarct = made_up_stroke(infarct, flair_ratio, number)
    for kind, volume in zip(("dwi", "t2w", "flair", "mask", "lesion"), (*volumes, infarct), strict=True):
        if seen or kind != "lesion":
            save(data / "registered" / f"{name}_{kind}.nii.gz", volume.astype(np.float32), AFFINE)


def write_table(data, rows):
    with open(data / "cohort.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """DATA whose FLAIR ratio rises with time, with spread; returns the folder and the rows of its table."""
    data = tmp_path_factory.mktemp("cohort")
    rng, rows = np.random.default_rng(0), []
    for number in range(COUNT):
        minutes = (100, 200, 400, 900)[number % 4]
        name, failed = f"p{number:02d}", number == COUNT - 1
        if not failed:
            ratio = 1.02 + 0.13 * np.log(minutes / 60) + rng.normal(0, 0.05)
            write_volumes(data, name, number, ratio, seen=number != COUNT - 2)
        rows.append({
            "patient": name, "dwi": "d.nii", "b0": "b.nii", "flair": "f.nii", "onset_to_mri_min": minutes,
            "stroke_side": "left", "split": "train" if number < 14 else "val" if number < 22 else "test",
            "status": "failed" if failed else "ok", "reason": "the FLAIR is cut off" if failed else "",
        })  # fmt: skip
    write_table(data, rows)
    return data, rows


@pytest.fixture(autouse=True)
def small_forests(monkeypatch):
    monkeypatch.setattr(classifiers, "TREES", 20)


@pytest.fixture(scope="module")
def measured(cohort):
    return measure_cohort(cohort[0])


def test_every_patient_is_measured_or_has_a_reason(measured):
    assert [one.patient.id for one in measured] == [f"p{number:02d}" for number in range(COUNT)]
    assert {one.patient.id: one.reason for one in measured if one.reason} == {
        "p30": "no region of 0.2 ml has a low ADC and a bright DWI",
        "p31": "the FLAIR is cut off",
    }
    assert all(len(one.features) == 271 and set(one.ratios) == {"flair", "dwi", "adc"} for one in measured[:30])


def test_the_clocks_probability_falls_as_the_ratio_rises_and_its_threshold_is_validations(measured):
    test, val = (predict_with(FLAIR_CLOCK, measured, "tss<4.5h", split) for split in ("test", "val"))
    pairs = sorted(
        (one.ratios["flair"], line.probability) for one, line in zip(measured[22:30], test.predictions, strict=False)
    )
    assert (np.diff([p for _, p in pairs]) < 0).all()
    assert [line.label for line in test.predictions] == [0, 0, 1, 1, 0, 0, 1, 1, 0, 0]  # 400 900 100 200 ...
    assert test.threshold == val.threshold == youden_threshold(*labels_and_probabilities(val.predictions))
    assert test.threshold != youden_threshold(*labels_and_probabilities(test.predictions))


def test_scores_are_of_those_it_can_process_and_of_all(measured):
    can, every, *_ = rows_of_baseline(predict_with(FLAIR_CLOCK, measured, "tss<4.5h", "test"))
    mine, all_of_it = can.scores, every.scores
    assert (mine.n, mine.n_positive, all_of_it.n, all_of_it.n_positive) == (8, 4, 9, 4)
    assert can.coverage.patients == 10 and can.coverage.scored == 8 and every.coverage.scored == 9
    assert can.coverage.no_probability == {
        "p30": "no region of 0.2 ml has a low ADC and a bright DWI",
        "p31": "the FLAIR is cut off",
    }
    assert every.coverage.no_probability == {"p31": "the FLAIR is cut off"}  # failed for every method alike
    assert list(every.coverage.counted_against) == ["p30"] and every.about_everybody and not can.about_everybody
    # p30 is a negative: one false positive more, and it beats all four positives.
    assert all_of_it.counts == mine.counts._replace(fp=mine.counts.fp + 1)
    assert all_of_it.auc.value == pytest.approx(mine.auc.value * 4 / 5)
    assert all_of_it.threshold == mine.threshold and every.notes == (older_methods.AGAINST,)


def test_published_cutoffs_are_points_of_the_same_roc(measured):
    can, _, *points = rows_of_baseline(predict_with(FLAIR_CLOCK, measured, "tss<4.5h", "test"))
    ratios = [(one.ratios["flair"], one.patient.minutes < 270) for one in measured[22:30]]
    assert [point.scores.threshold for point in points] == [1.07, 1.15, 1.18, 1.20]
    for cutoff, found in ((point.scores.threshold, point.scores) for point in points):
        assert found.counts.tp == sum(ratio <= cutoff and short for ratio, short in ratios)
        assert found.counts.tn == sum(ratio > cutoff and not short for ratio, short in ratios)
        assert found.n == 8 and found.shares.sensitivity.value == found.counts.tp / 4
        assert found.cases_sha256 == can.scores.cases_sha256
    assert len(rows_of_baseline(predict_with(LEE2020, measured, "tss<4.5h", "test"))) == 2


@pytest.mark.parametrize("method", ["Lee 2020, logistic regression", "Lee 2020, linear SVM", "Lee 2020"])
def test_lee_learns_the_clock_and_never_sees_test_answers(measured, method):
    baseline = predict_with(method, measured, "tss<4.5h", "test")
    y, p = labels_and_probabilities(baseline.predictions)
    assert len(y) == 8 and roc_auc(y, p) >= 0.75
    swapped = [
        one._replace(patient=type(one.patient)(one.patient.row | {"onset_to_mri_min": "50"}, one.patient.folder))
        if one.patient.split == "test"
        else one
        for one in measured
    ]
    again = predict_with(method, swapped, "tss<4.5h", "test")
    assert [line.probability for line in again.predictions] == [line.probability for line in baseline.predictions]
    assert again.threshold == baseline.threshold and "validation AUC" in baseline.chosen
    assert all(line.label == 1 for line in again.predictions)


def test_lee_is_the_best_of_three_on_validation(measured):
    aucs = {}
    for method in METHODS[3:]:
        y, p = labels_and_probabilities(predict_with(method, measured, "tss<4.5h", "val").predictions)
        aucs[method] = roc_auc(y, p)
    assert aucs.pop(LEE2020) == max(aucs.values())


def test_drawn_lesions_can_take_the_place_of_the_found_ones(cohort, measured, tmp_path):
    data, rows = cohort
    shutil.copytree(data / "registered", tmp_path / "registered")
    write_table(tmp_path, [rows[0], rows[30]])
    half = nifti.load(tmp_path / "registered" / "p00_lesion.nii.gz")
    columns = np.nonzero(half.data)[0]
    half.data[columns.min() + 2 :] = 0
    save(tmp_path / "registered" / "p00_lesion.nii.gz", half.data, AFFINE)
    drawn = measure_cohort(tmp_path, drawn=True)
    assert drawn[0].features["size ml"] < measured[0].features["size ml"]
    assert drawn[0].ratios["flair"] == pytest.approx(measured[0].ratios["flair"], abs=0.05)
    assert drawn[1].reason == "no lesion mask"


@pytest.mark.parametrize(("method", "task", "split", "message"), [
    ("Lee", "tss<4.5h", "test", "'Lee' is none of the methods tissue clock, FLAIR, "),
    (FLAIR_CLOCK, "stroke", "test", "the task 'stroke' is not about time. Give tss<3h or tss<4.5h."),
    (FLAIR_CLOCK, "tss<4.5h", "tests", "there is no patient in the split 'tests'"),
])  # fmt: skip
def test_wrong_requests_are_refused(measured, method, task, split, message):
    with pytest.raises(InputError, match=message):
        predict_with(method, measured, task, split)


def test_too_few_patients_of_a_class_are_said_so(measured):
    few = [one for one in measured if one.patient.split != "train" or one.patient.minutes > 270]
    with pytest.raises(InputError, match="of 6 train patients that it can process 0 are positive; it needs 2 of each"):
        predict_with(LEE2020, few, "tss<4.5h", "test")
