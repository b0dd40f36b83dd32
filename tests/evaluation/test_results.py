"""Results as JSON: what is unknown is null or absent as declared, and estimates are two values."""

import pytest

from tss.evaluation.results import (
    CUTOFF,
    NETWORK,
    BesideReader,
    Comparison,
    Coverage,
    Covered,
    Estimate,
    OperatingPoint,
    Row,
    Scores,
    Shares,
    as_json,
    p_text,
    with_interval,
)
from tss.metrics import Confusion

HALF = Estimate(0.5, (0.25, 0.75))
SCORES = Scores(
    n=3, n_positive=1, cases_sha256="ab", auc=None, auc_reason="one class", shares=Shares(HALF, None, HALF),
    threshold=0.4, threshold_from="validation", counts=Confusion(1, 2, 0, 0),
)  # fmt: skip


def test_scores_stand_among_the_fields_of_their_row_in_order():
    row = Row(kind=NETWORK, name="a", task="stroke", split="test", phase=1, notes=("n",), scores=SCORES)
    assert list(as_json(row).items()) == [
        ("name", "a"), ("task", "stroke"), ("split", "test"), ("phase", 1), ("unit", "patient"),
        ("positive_class", ""), ("notes", ["n"]), ("n", 3), ("n_positive", 1), ("cases_sha256", "ab"),
        ("auc", None), ("auc_ci", None), ("auc_reason", "one class"), ("sensitivity", 0.5),
        ("sensitivity_ci", [0.25, 0.75]), ("specificity", None), ("specificity_ci", None), ("accuracy", 0.5),
        ("accuracy_ci", [0.25, 0.75]), ("threshold", 0.4), ("threshold_from", "validation"), ("tp", 1), ("fp", 2),
        ("tn", 0), ("fn", 0),
    ]  # fmt: skip


def test_what_has_no_answer_is_null_and_what_does_not_apply_is_absent():
    assert as_json(Comparison("a", "b", 2, 2, 0, difference=None, pvalue=None, reason="one class")) == {
        "first": "a", "second": "b", "n": 2, "n_positive": 2, "left_out": 0, "difference": None, "pvalue": None,
        "reason": "one class",
    }  # fmt: skip
    point = OperatingPoint(0.5, 0.25, 0.25, "the curve", None, "too few")
    found = as_json({"reader_1": BesideReader(n=4, sensitivity_at_readers_specificity=point)})
    assert found["reader_1"] == {"n": 4, "sensitivity_at_readers_specificity": {
        "model": 0.5, "reader": 0.25, "difference": 0.25, "from": "the curve", "difference_ci": None,
        "reason": "too few",
    }}  # fmt: skip


def test_a_row_knows_how_many_it_covers_and_whether_it_was_run():
    covered = Coverage(5, 3, {"p": "cut off"}, ["q"], [])
    assert Row(kind=NETWORK, name="a", task="stroke", coverage=covered).covering == Covered(5, 3, 1, 1)
    assert Row(kind=CUTOFF, name="a", task="stroke").covering is None
    with pytest.raises(ValueError, match="a was not run"):
        _ = Row(kind=NETWORK, name="a", task="stroke", reason="no file").scored


def test_estimates_and_p_values_as_text():
    assert with_interval(HALF, 3) == "0.500 [0.25-0.75]" and with_interval(None, 3) == "-"
    assert p_text(0.0009) == "<0.001" and p_text(0.0126) == "0.013"
