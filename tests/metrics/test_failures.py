"""Failures by hand: the worst that can be, and in the middle."""

import numpy as np

from tss.metrics import failures_as_wrong, failures_at_neutral, roc_auc

NAN = float("nan")
Y = np.array([1, 1, 1, 0, 0, 0])
P = np.array([0.9, 0.8, NAN, 0.2, 0.1, NAN])


def test_as_wrong_each_failure_loses_to_the_whole_other_class():
    assert failures_as_wrong(Y, P).tolist() == [0.9, 0.8, 0.0, 0.2, 0.1, 1.0]
    assert roc_auc(Y, failures_as_wrong(Y, P)) == 4 / 9


def test_a_neutral_failure_beats_half_and_needs_no_class():
    assert failures_at_neutral(P).tolist() == [0.9, 0.8, 0.5, 0.2, 0.1, 0.5]
    assert roc_auc(Y, failures_at_neutral(P)) == (4 + 2 + 2 + 0.5) / 9
    assert failures_at_neutral(np.array([NAN, NAN])).tolist() == [0.5, 0.5]
    whole = np.array([0.3, 0.4])
    assert failures_at_neutral(whole).tolist() == failures_as_wrong(np.array([0, 1]), whole).tolist() == [0.3, 0.4]
