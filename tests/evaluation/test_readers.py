"""Readers against hand counts; simulated readers with the paper's figures are read back."""

import json
from pathlib import Path

import numpy as np
import pytest

from tss.data.cohort import Patient
from tss.evaluation import readers
from tss.evaluation.inference import Prediction
from tss.evaluation.results import NETWORK, Estimate, Row, as_json
from tss.metrics.roc import wilson
from tss.phantom import onset_law, simulated_readers

READERS = ("reader_1", "reader_2", "reader_3")
# Minutes, the three readings, the model's probability. Early = before 270 minutes.
TEN = [
    ("60", "1", "1", "1", 0.9),
    ("90", "1", "1", "0", 0.8),
    ("200", "1", "0", "", 0.7),
    ("250", "0", "0", "0", 0.3),
    ("269", "1", "", "1", 0.6),
    ("270", "0", "0", "1", 0.2),
    ("400", "1", "0", "0", 0.5),
    ("800", "0", "0", "", 0.4),
    ("900", "0", "", "", 0.1),
    ("", "1", "1", "1", 0.9),
]


def patients_of(rows):
    return [
        Patient(
            {"patient": f"p{number}", "onset_to_mri_min": minutes, **dict(zip(READERS, given, strict=True))}, Path()
        )
        for number, (minutes, *given, _) in enumerate(rows)
    ]


def predictions_of(rows):
    return [Prediction(f"p{number}", "left", -1, row[-1]) for number, row in enumerate(rows)]


def score_all(rows, threshold=0.55):
    patients, predictions = patients_of(rows), predictions_of(rows)
    return readers.score_readers(patients, predictions, threshold, np.random.default_rng(0))


def compare(rows, threshold):
    return readers.compare_with_readers(patients_of(rows), predictions_of(rows), threshold, np.random.default_rng(0))


def row(name, found=None, **more):
    return Row(kind=NETWORK, name=name, task="tss<4.5h", readers=found, **more)


def test_each_reader_by_hand():
    found = score_all(TEN)
    assert found.n_onset_known == 9
    first, second, third = (found.each[name] for name in READERS)
    assert (first.n, first.n_positive, *first.counts, first.without_call) == (9, 5, 4, 1, 3, 1, 0)
    assert [share.value for share in first.shares.values()] == [4 / 5, 3 / 4, 7 / 9]
    assert first.shares.sensitivity.ci == wilson(4, 5)
    assert (second.n, *second.counts, second.without_call) == (7, 2, 0, 3, 2, 2)
    assert (third.n, *third.counts, third.without_call) == (6, 2, 1, 1, 2, 3)


def test_a_majority_is_more_than_half_of_all_readers():
    def say(*given):
        return readers.majority({f"reader_{n}": reading for n, reading in enumerate(given)}, 3)

    assert (say(1, 1, 0), say(1, 0, 0), say(1, 1), say(0, 0)) == (1, 0, 1, 0)
    assert (say(1, 0), say(1), say()) == (None, None, None)  # whoever is missing could turn it
    assert readers.majority({"reader_1": 1, "reader_2": 0}, 2) is None
    found = score_all(TEN).each["majority"]
    # Of the nine: p2 (1, 0, -) and p8 (0, -, -) are undecided.
    assert (found.n, *found.counts, found.without_call) == (7, 3, 0, 3, 1, 2)


def test_agreement_is_counted_on_those_that_were_read():
    found = score_all(TEN)
    assert found.fleiss_kappa.n == 6  # p0, p1, p3, p5, p6 and p9, whose onset is unknown
    assert found.cohen_kappa["reader_1 and reader_2"].n == 8
    # Readers 1 and 2 agree on six of eight; by chance 5/8 * 3/8 + 3/8 * 5/8 = 15/32 would.
    kappa = found.cohen_kappa["reader_1 and reader_2"].kappa
    assert kappa.value == pytest.approx((3 / 4 - 15 / 32) / (17 / 32))


def test_the_model_meets_each_reader_at_its_operating_point():
    y, p = np.array([1, 1, 1, 0, 0, 0]), np.array([0.9, 0.5, 0.3, 0.6, 0.3, 0.1])
    # The reader has one false positive of three: the model may have one too, 0.6, so its threshold is above 0.3.
    assert readers.matched(y, p, np.array([1, 0, 0, 1, 0, 0])) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert readers.matched(y, p, np.array([1, 0, 0, 0, 0, 0])) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert readers.matched(y, p, np.array([1, 1, 1, 1, 1, 1])) == (1.0, 1.0)
    # The reader misses one of three: the model may miss the one at 0.3, and then rejects 0.3 and 0.1.
    assert readers.matched(y, p, np.array([1, 1, 0, 0, 0, 0]), swap=True) == (pytest.approx(2 / 3), 1.0)


def test_the_model_beside_readers_by_hand():
    beside = compare(TEN, 0.55)
    # At 0.55 the model is wrong on p3 only, reader 1 on p3 and p6: only the model is right on p6.
    first = beside["reader_1"]
    assert first.n == 9
    assert (first.mcnemar.only_model_right, first.mcnemar.only_reader_right, first.mcnemar.pvalue) == (1, 0, 1.0)
    point = first.sensitivity_at_readers_specificity
    assert (point.model, point.reader) == (4 / 5, 4 / 5)  # one false positive allowed: 0.5
    low, high = point.difference_ci
    assert low <= 0 < high and "own ROC curve" in as_json(point)["from"]
    assert beside["reader_2"].n == 7 and beside["majority"].n == 7
    again = compare(TEN, 0.55)
    assert json.dumps(as_json(again), allow_nan=False) == json.dumps(as_json(beside))


def test_a_model_calls_at_its_threshold_too_and_a_tenth_reader_comes_last():
    beside = compare([("60", "0", "", "", 0.5)] * 2 + [("900", "0", "", "", 0.1)] * 2, 0.5)
    assert beside["reader_1"].mcnemar.only_model_right == 2 and beside["reader_1"].mcnemar.only_reader_right == 0
    row = {"patient": "p", "onset_to_mri_min": "60"} | {f"reader_{number}": "1" for number in (10, 2, 1)}
    assert readers.names_of([Patient(row, Path())]) == ["reader_1", "reader_2", "reader_10"]


def test_holm_counts_all_readers_of_the_table():
    rows = [("60", "0", "1", "0", 0.9)] * 9 + [("900", "0", "0", "0", 0.1)] * 3
    beside = compare(rows, 0.5)
    assert beside["reader_1"].mcnemar.pvalue == 2 / 2**9
    assert beside["reader_1"].mcnemar.pvalue_holm == pytest.approx(4 * 2 / 2**9)  # reader_3, majority: the same
    assert beside["reader_2"].mcnemar.pvalue_holm == 1.0


def test_what_has_no_answer_says_why():
    early = [("60", "1", "1", "", 0.9), ("90", "1", "", "1", 0.2)]
    found = score_all(early, 0.5)
    json.dumps(as_json(found), allow_nan=False)
    assert found.each["reader_1"].shares.specificity is None
    assert found.fleiss_kappa.reason == "no patient was read by all"
    assert "every rating is 1" in found.cohen_kappa["reader_1 and reader_2"].reason
    assert found.model["reader_1"].reason == "no ROC curve: 2 of 2 patients are positive"
    text = readers.readers_table([row("phase4", found)])
    assert "reader_2: 1 of 2 patients not read." in text and "None" not in text and "nan" not in text
    nobody = readers.compare_with_readers(patients_of(early), [], 0.5, np.random.default_rng(0))
    assert as_json(nobody["majority"]) == {
        "n": 0,
        "reason": "no patient has a known onset, a probability and a reading",
    }


def test_the_table_shows_readers_once_and_every_model():
    found = score_all(TEN)
    results = [row("phase1"), row("phase3", found), row("phase4", found)]
    text = readers.readers_table(results)
    lines = [line.split() for line in text.splitlines()]
    assert [line[:7] for line in lines if line[0] == "reader_1"] == [["reader_1", "9", "5", "4", "1", "3", "1"]]
    assert "0.80 (reader 0.80)" in text and text.count("beside reader_1  ") == 2 and "phase4 beside majority" in text
    assert "majority: 2 of 9 patients undecided." in text and "reader_3: 3 of 9 patients not read." in text
    assert "Fleiss' kappa of all readers: 0." in text and "(6 patients)" in text
    assert "phase1" not in text and "simulated" not in text
    simulated = readers.readers_table([row("phase4", found, ceiling=Estimate(0.9, (0.7, 0.95)))])
    assert "(simulated: phantoms have no radiologists)" in simulated
    assert readers.readers_table([row("phase1")]) == ""


@pytest.mark.slow
def test_simulated_readers_with_the_papers_figures_are_read_back():
    """200 test sets of the paper's size: the 95 % intervals hold the paper's figures as often as they should."""
    rng, sets, size = np.random.default_rng(0), 200, 82
    hits = dict.fromkeys(["kappa", *(f"{name} {figure}" for name in READERS for figure in ("sens", "spec"))], 0)
    for _ in range(sets):
        patients = []
        for number in range(size):
            minutes = onset_law.draw_onset(rng)
            given = simulated_readers.draw_readings(rng, onset_law.draw_latent(rng, minutes))
            patients.append(
                Patient(
                    {"patient": f"p{number}", "onset_to_mri_min": str(minutes)}
                    | {name: str(reading) for name, reading in given.items()},
                    Path(),
                )
            )
        found = readers.score_readers(patients, [], 0.5, rng)
        low, high = found.fleiss_kappa.kappa.ci
        hits["kappa"] += low <= simulated_readers.KAPPA <= high
        for name, published in simulated_readers.PUBLISHED.items():
            for figure, word, share in zip(("sens", "spec"), ("sensitivity", "specificity"), published, strict=True):
                low, high = getattr(found.each[name].shares, word).ci
                hits[f"{name} {figure}"] += low <= share <= high
    assert all(0.90 <= count / sets <= 0.99 for count in hits.values()), hits
