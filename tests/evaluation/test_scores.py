"""Figures against hand counts; what has no answer says so; the table for the screen."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tss.evaluation import scores
from tss.evaluation.inference import Prediction
from tss.evaluation.results import NETWORK, Estimate, Row, as_json
from tss.metrics.roc import auc_ci, newcombe_ci, wilson


def lines(*pairs):
    return [Prediction(f"p{n}", "left", label, p) for n, (label, p) in enumerate(pairs)]


SIX = lines((1, 0.9), (1, 0.6), (1, 0.3), (0, 0.5), (0, 0.2), (0, 0.1))


def test_counts_and_proportions_at_the_threshold_that_was_given():
    metrics = scores.score(SIX, threshold=0.55)
    assert (metrics.n, metrics.n_positive, *metrics.counts) == (6, 3, 2, 0, 3, 1)
    assert metrics.auc.value == pytest.approx(8 / 9)  # only 0.3 against 0.5 is the wrong way round
    assert metrics.shares.sensitivity == (2 / 3, wilson(2, 3))
    assert metrics.shares.specificity.value == 1.0
    assert metrics.shares.accuracy == (5 / 6, wilson(5, 6))


def test_the_threshold_is_not_fitted_here_and_youden_is_called_optimistic():
    metrics = scores.score(SIX, threshold=0.25)
    assert metrics.threshold == 0.25 and metrics.shares.specificity.value == 2 / 3
    best = metrics.youden_on_this_split_optimistic
    assert best.threshold == 0.6 and best.shares.specificity.value == 1.0


def test_a_case_is_its_patient_and_of_hemispheres_the_side_too():
    """Which side phase 1 has chosen makes no other test set; which hemisphere is positive does."""
    left, right = ([Prediction("p1", side, 1, 0.9), Prediction("p2", "left", 0, 0.2)] for side in ("left", "right"))
    assert scores.cases_hash(left) == scores.cases_hash(right) != scores.cases_hash(left[:1])
    both = [[Prediction("p1", "left", label, 0.9), Prediction("p1", "right", 1 - label, 0.2)] for label in (0, 1)]
    assert scores.cases_hash(both[0]) != scores.cases_hash(both[1])


def test_a_patients_two_hemispheres_are_not_two_patients():
    """What both hemispheres share is in neither's favour: the AUC varies less than if they were of two patients."""
    rng = np.random.default_rng(0)
    y, shared = np.tile([1, 0], 60), np.repeat(rng.normal(0, 2, 60), 2)
    p = 1 / (1 + np.exp(-shared - 1.5 * y - rng.normal(size=120)))
    both = [Prediction(f"p{n // 2}", ("left", "right")[n % 2], int(y[n]), float(p[n])) for n in range(120)]
    (low, high), independent = scores.score(both, 0.5).auc.ci, auc_ci(y, p)
    assert low < scores.score(both, 0.5).auc.value < high
    assert high - low < 0.75 * (independent[1] - independent[0])
    alone = [line._replace(patient=f"p{n}") for n, line in enumerate(both)]
    assert scores.score(alone, 0.5).auc.ci == independent
    assert scores.score([both[0], both[1]], 0.5).auc.ci == (0.0, 1.0)  # one patient rules nothing out


def test_unknown_labels_and_missing_probabilities_are_counted_and_not_scored():
    more = [*SIX, Prediction("x", "left", -1, 0.7), Prediction("y", "", 1, None, "b0.nii.gz is cut off")]
    found = scores.score(more, 0.55)
    assert replace(found, over_all=None) == scores.score(SIX, 0.55)
    # The failure is a positive: it beats no negative, or two where it is put at the median, 0.4.
    assert (found.over_all.n, found.over_all.n_positive, found.over_all.failures) == (7, 4, 1)
    assert found.over_all.as_wrong.auc.value == 8 / 12 and found.over_all.as_wrong.counts == (2, 0, 3, 2)
    assert found.over_all.at_neutral.auc.value == (8 + 2) / 12 and found.over_all.at_neutral.counts == (2, 0, 3, 2)
    plain = as_json(found)["over_all"]
    assert (
        plain["as_wrong"]["auc"] == 8 / 12 and len(plain["at_neutral"]["auc_ci"]) == 2 and plain["as_wrong"]["fn"] == 2
    )
    assert "over_all" not in as_json(scores.score(SIX, 0.55)) and scores.over_all(more[-1:], 0.55) is None
    covered = scores.coverage(more)
    assert covered.patients == 8 and covered.scored == 6
    chosen = [more[0]._replace(side_from="phase 1"), more[1]._replace(side_from="table")]
    assert scores.coverage(chosen).side_chosen_by_phase_1 == ["p0"] and covered.side_chosen_by_phase_1 == []
    assert covered.label_unknown == ["x"] and covered.counts == (8, 6, 1, 1)
    assert scores.coverage_line(covered) == (
        "6 of 8 patients scored; 1 predicted without a known label; y has no probability (b0.nii.gz is cut off)"
    )


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (lines((1, 0.9), (1, 0.4)), "no AUC: it needs both classes, and 2 of 2 are positive"),
        (lines((-1, 0.9)), "no AUC: it needs both classes, and 0 of 0 are positive"),
        ([], "no AUC: it needs both classes, and 0 of 0 are positive"),
    ],
)
def test_one_class_only_has_no_auc_and_says_why(predictions, message):
    metrics = scores.score(predictions, threshold=0.5)
    assert metrics.auc is None and metrics.auc_reason == message
    assert metrics.shares.specificity is None
    plain = json.loads(json.dumps(as_json(metrics), allow_nan=False))
    assert plain["auc"] is None and plain["auc_ci"] is None and plain["auc_reason"] == message
    if predictions and predictions[0].label == 1:
        assert metrics.shares.sensitivity.value == 0.5 and metrics.shares.accuracy.value == 0.5
        assert plain["calibration"][0]["observed"] == 1.0


def test_a_perfect_auc_does_not_pass_for_a_certain_one():
    perfect = scores.score(lines((1, 0.9), (1, 0.8), (0, 0.2), (0, 0.1)), 0.5)
    assert "an AUC of 1 leaves DeLong's estimate no variance: its interval is Newcombe's" in perfect.auc_reason
    assert perfect.auc.ci == newcombe_ci(1.0, 2, 2)
    hemispheres = [Prediction(name, side, int(side == "left"), 0.9 if side == "left" else 0.1)
                   for name in "abcdef" for side in ("left", "right")]  # fmt: skip
    assert scores.score(hemispheres, 0.5).auc.ci == newcombe_ci(1.0, 6, 6)


def result(name, task, predictions, threshold, notes=(), **more):
    scored = scores.score(predictions, threshold)
    return Row(kind=NETWORK, name=name, task=task, notes=tuple(notes), scores=scored, **more)


def test_the_table_has_a_line_a_checkpoint_and_says_each_note_once():
    table = scores.summary_table(
        [
            result("phase3", "tss<4.5h", SIX, 0.55, ["A note."]),
            result("phase4", "tss<4.5h", lines((1, 0.9)), 0.5, ["A note."]),
        ]
    )
    assert "phase3  TSS < 4.5 h     6  3         0.889 [" in table
    assert "phase4: no AUC" in table and "nan" not in table
    assert table.count("A note.") == 1 and "optimistic" in table
    assert "phantom" not in table and "best on average" not in table


def test_the_best_on_average_stands_beside_the_auc_with_its_interval():
    table = scores.summary_table([result("phase4", "tss<4.5h", SIX, 0.55, ceiling=Estimate(0.8714, (0.7, 0.95)))])
    header, line = table.splitlines()[:2]
    assert header.index("best on average") == line.index("0.871 [0.70-0.95]")
