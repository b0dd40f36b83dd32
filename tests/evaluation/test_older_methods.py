"""Older methods on a small made-up cohort, from registered volumes to two rows of a table."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from heads import save
from stroke import SHAPE, VOXEL_MM, brain, made_up_stroke

from tss.baselines import classifiers, lee2020
from tss.baselines.tissue_clock import soft_clock
from tss.data import nifti
from tss.data.cohort import Patient
from tss.data.files import write_json
from tss.data.hemispheres import CHANNELS, split, to_unit
from tss.data.prepared import hemispheres_file, settings_file
from tss.errors import InputError
from tss.evaluation import older_methods
from tss.evaluation.older_methods import METHODS, measure_cohort, predict_with, rows_of_baseline
from tss.evaluation.results import FLAIR_CLOCK, LEE2020, SOFT_CLOCK
from tss.evaluation.scores import labels_and_probabilities, over_all
from tss.metrics.failures import NEUTRAL, WRONG
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
    unit = np.stack([to_unit(volume, channel) for volume, channel in zip(volumes, CHANNELS, strict=False)])
    hemispheres_file(data, name).parent.mkdir(exist_ok=True)
    np.save(hemispheres_file(data, name), split(unit).astype(np.float16))


def write_table(data, rows):
    with open(data / "cohort.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    write_json(settings_file(data), {"grid": SHAPE})


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
    assert [one.patient.id for one in measured if one.soft is None] == ["p31"]
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


def test_scores_are_of_those_it_can_process_and_twice_of_all(measured):
    can, wrong, neutral, *_ = rows_of_baseline(predict_with(FLAIR_CLOCK, measured, "tss<4.5h", "test"))
    mine, all_of_it, middle = can.scores, wrong.scores, neutral.scores
    assert [(row.name, row.failures, row.about_everybody) for row in (can, wrong, neutral)] == [
        (f"{FLAIR_CLOCK}, where it can be used", None, False),
        (f"{FLAIR_CLOCK}, all patients, failures as wrong", WRONG, True),
        (f"{FLAIR_CLOCK}, all patients, failures at one neutral score", NEUTRAL, True),
    ]
    assert [(found.n, found.n_positive) for found in (mine, all_of_it, middle)] == [(8, 4), (10, 4), (10, 4)]
    assert can.coverage.patients == 10 and can.coverage.scored == 8
    assert can.coverage.no_probability == {
        "p30": "no region of 0.2 ml has a low ADC and a bright DWI",
        "p31": "the FLAIR is cut off",
    }
    for every in (wrong, neutral):
        assert not every.coverage.no_probability and every.coverage.scored == 10
        assert every.coverage.failures_counted == can.coverage.no_probability
        assert every.scores.threshold == mine.threshold and every.notes == (older_methods.COUNTED,)
    assert all_of_it.cases_sha256 == middle.cases_sha256 != mine.cases_sha256
    # p30 and p31 are negatives. As wrong: two false positives more, and they beat all four positives.
    assert all_of_it.counts == mine.counts._replace(fp=mine.counts.fp + 2)
    assert all_of_it.auc.value == pytest.approx(mine.auc.value * 4 / 6)
    # In the middle of eight answers each beats as many positives as lie below.
    y, p = labels_and_probabilities(predict_with(FLAIR_CLOCK, measured, "tss<4.5h", "test").predictions)
    assert middle.auc.value == pytest.approx((mine.auc.value * 16 + 2 * (p[y == 1] > np.median(p)).sum()) / 24)


def test_all_are_the_same_patients_for_a_network_and_an_older_method(measured):
    """Everybody in the split whose time is known, those that failed preprocessing too (decision 8)."""
    baseline = predict_with(FLAIR_CLOCK, measured, "tss<4.5h", "test")
    _, wrong, neutral, *_ = rows_of_baseline(baseline)
    network = over_all(baseline.predictions, baseline.threshold)  # as if a network had said so
    assert (network.n, network.n_positive, network.failures) == (10, 4, 2)
    for row, found in ((wrong, network.as_wrong), (neutral, network.at_neutral)):
        assert (row.scores.n, row.scores.counts, row.scores.auc) == (network.n, found.counts, found.auc)


def test_patients_of_unknown_time_are_no_failures_and_move_no_median():
    """Ratios 1.05, 1.2 are short, 1.25, 1.4 long, and one short one has none: put between 1.2 and 1.25 it beats both
    long ones. Four of unknown time with 1.5 would put it beneath them."""

    def one(name, split, minutes, ratio):
        row = {"patient": name, "split": split, "onset_to_mri_min": minutes, "stroke_side": "left", "status": "ok"}
        found = {"flair": ratio} if ratio else {}
        return older_methods.Measured(Patient(row, Path()), found, {}, "" if ratio else "no region")

    known = [("a", "60", 1.05), ("b", "100", 1.2), ("c", "500", 1.25), ("d", "900", 1.4)]
    made = [one(f"{split}-{name}", split, *rest) for split in ("train", "val", "test") for name, *rest in known]
    made += [one("e", "test", "90", None), one("f", "test", "", None)]
    made += [one(f"u{number}", "test", "", 1.5) for number in range(4)]
    baseline = predict_with(FLAIR_CLOCK, made, "tss<4.5h", "test")
    assert baseline.failed == {"e": "no region"}
    can, wrong, neutral, *_ = rows_of_baseline(baseline)
    assert [row.scores.auc.value for row in (can, wrong, neutral)] == [1, 4 / 6, 1]
    assert neutral.coverage.no_probability == {"f": "no region"} and neutral.scores.n == 5
    again = predict_with(FLAIR_CLOCK, [*made, one("g", "train", "", 1.0), one("h", "val", "", 1.0)], "tss<4.5h", "test")
    assert (again.predictions, again.threshold) == (baseline.predictions, baseline.threshold)  # nothing to learn from


def test_lees_classifier_is_the_one_that_validation_prefers(monkeypatch):
    aucs = {"logistic regression": 0.6, "linear SVM": 0.9, "random forest": 0.7}

    def fit(train, val, name, seed):
        return lee2020.Model(np.arange(5), np.zeros(5), np.ones(5), lambda x: x, 1.0, aucs[name])

    monkeypatch.setattr(lee2020, "fit_lee", fit)
    assert older_methods._fit(LEE2020, (), (), 0)[1].startswith("linear SVM, C 1, 5 features, validation AUC 0.900")


def test_the_soft_clock_leaves_out_who_failed_preprocessing_alone_and_reads_the_hemisphere_with_stroke(
    cohort, measured
):
    data, rows = cohort
    baseline = predict_with(SOFT_CLOCK, measured, "tss<4.5h", "test")
    (row,) = rows_of_baseline(predict_with(SOFT_CLOCK, measured[:31], "tss<4.5h", "test"))
    assert row.name == "soft tissue clock, all patients" and row.scores.n == 9
    can, every, _ = rows_of_baseline(baseline)
    assert can.scores == row.scores and baseline.failed == {"p31": "the FLAIR is cut off"}
    assert (
        every.scores.cases_sha256
        == rows_of_baseline(predict_with(LEE2020, measured, "tss<4.5h", "test"))[1].scores.cases_sha256
    )
    assert roc_auc(*labels_and_probabilities(baseline.predictions[:8])) >= 0.75  # p30 shows nothing
    one = measured[0]
    volumes = [nifti.load(data / "registered" / f"p00_{name}.nii.gz").data for name in CHANNELS]
    assert one.soft == pytest.approx(soft_clock(*(split(volume)[0] for volume in volumes)), rel=5e-3)
    both = older_methods.soft_clock_of(type(one.patient)(one.patient.row | {"stroke_side": ""}, data), data, SHAPE)
    assert both == pytest.approx(soft_clock(*volumes), rel=5e-3)
    right = older_methods.soft_clock_of(
        type(one.patient)(one.patient.row | {"stroke_side": "right"}, data), data, SHAPE
    )
    assert right < both - 0.05  # nothing is bright there


@pytest.mark.parametrize(("side", "clock"), [("left", 1.2), ("right", 1.6), ("", 1.52), ("both", 1.52)])
def test_the_soft_clock_of_an_unknown_side_reads_both_hemispheres(tmp_path, side, clock):
    """DWI's excess is 0.5 on the left, where FLAIR is 1.2, and 1 on the right, where it is 1.6: weights 1 and 4."""
    hemispheres = np.zeros((2, len(CHANNELS), 2, 2, 2))
    for number, values in enumerate(((1.65, 1, 1.2), (2.15, 1, 1.6))):
        for channel, (name, value) in enumerate(zip(CHANNELS, values, strict=True)):
            hemispheres[number, channel, 1] = to_unit(np.array(value), name)
    hemispheres_file(tmp_path, "a").parent.mkdir()
    np.save(hemispheres_file(tmp_path, "a"), hemispheres.astype(np.float16))
    patient = Patient({"patient": "a", "stroke_side": side}, tmp_path)
    assert older_methods.soft_clock_of(patient, tmp_path, (4, 2, 2)) == pytest.approx(clock, abs=2e-3)


def test_published_cutoffs_are_points_of_the_same_roc(measured):
    can, _, _, *points = rows_of_baseline(predict_with(FLAIR_CLOCK, measured, "tss<4.5h", "test"))
    ratios = [(one.ratios["flair"], one.patient.minutes < 270) for one in measured[22:30]]
    assert [point.scores.threshold for point in points] == [1.07, 1.15, 1.18, 1.20]
    for cutoff, found in ((point.scores.threshold, point.scores) for point in points):
        assert found.counts.tp == sum(ratio <= cutoff and short for ratio, short in ratios)
        assert found.counts.tn == sum(ratio > cutoff and not short for ratio, short in ratios)
        assert found.n == 8 and found.shares.sensitivity.value == found.counts.tp / 4
        assert found.cases_sha256 == can.scores.cases_sha256
    assert len(rows_of_baseline(predict_with(LEE2020, measured, "tss<4.5h", "test"))) == 3


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
    for method in METHODS[4:]:
        y, p = labels_and_probabilities(predict_with(method, measured, "tss<4.5h", "val").predictions)
        aucs[method] = roc_auc(y, p)
    assert aucs.pop(LEE2020) == max(aucs.values())


def test_drawn_lesions_can_take_the_place_of_the_found_ones(cohort, measured, tmp_path):
    data, rows = cohort
    for name in ("registered", "hemispheres"):
        shutil.copytree(data / name, tmp_path / name)
    write_table(tmp_path, [rows[0], rows[30]])
    half = nifti.load(tmp_path / "registered" / "p00_lesion.nii.gz")
    columns = np.nonzero(half.data)[0]
    half.data[columns.min() + 2 :] = 0
    save(tmp_path / "registered" / "p00_lesion.nii.gz", half.data, AFFINE)
    drawn = measure_cohort(tmp_path, drawn=True)
    assert drawn[0].features["size ml"] < measured[0].features["size ml"]
    assert drawn[0].ratios["flair"] == pytest.approx(measured[0].ratios["flair"], abs=0.05)
    assert drawn[1].reason == "no lesion mask"


def test_a_drawn_lesion_is_cut_to_the_brain(cohort, tmp_path):
    data, rows = cohort
    shutil.copytree(data / "registered", tmp_path / "registered")
    lesion = np.zeros(SHAPE, bool)
    lesion[5:9, 10:16, 1:4] = True
    assert (lesion <= brain()).all()
    found = []
    for drawn in (lesion, lesion | ~brain(), ~brain()):
        save(tmp_path / "registered" / "p00_lesion.nii.gz", drawn.astype(np.float32), AFFINE)
        found.append(older_methods.measure_infarct(Patient(rows[0], tmp_path), tmp_path, drawn=True))
    assert found[1] == found[0] and not found[0].reason
    assert found[0].features["size ml"] == pytest.approx((4 * 6 + 2 * (4 + 6)) * 3 * 0.128)  # one voxel wider
    assert (found[2].features, found[2].reason) == ({}, "the lesion mask lies outside the brain")


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
