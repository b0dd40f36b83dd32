import math

import numpy as np
import pytest
from scipy.special import ndtri

from tss.metrics import auc_ci
from tss.study import planner


@pytest.mark.parametrize("auc", [0.7, 0.9])
def test_the_expected_width_is_that_of_the_auc_s_on_average(auc):
    rng = np.random.default_rng(0)
    y = np.array([1] * 40 + [0] * 42)
    widths = []
    for _ in range(400):
        low, high = auc_ci(y, rng.normal(size=82) + math.sqrt(2) * ndtri(auc) * y)
        widths.append(high - low)
    low, high = planner.expected_interval(auc, 40, 42)
    assert high - low == pytest.approx(np.mean(widths), rel=0.04)


def test_so_many_patients_have_the_wanted_width_and_one_fewer_has_not():
    n = planner.patients_for(0.75, 0.5, 0.1)
    half = n // 2
    enough, fewer = (planner.expected_interval(0.75, m, n - 2 * half + m) for m in (half, half - 2))
    assert enough[1] - enough[0] <= 0.1 < fewer[1] - fewer[0]


def test_fewer_positives_take_more_patients():
    """At a share of 20 % of positives: n patients with n / 5 of them are as narrow as wanted, five fewer are not."""
    n = planner.patients_for(0.8, 0.2, 0.1)
    enough, fewer = (planner.expected_interval(0.8, round(0.2 * m), m - round(0.2 * m)) for m in (n, n - 5))
    assert enough[1] - enough[0] <= 0.1 < fewer[1] - fewer[0]
    assert n > 1.2 * planner.patients_for(0.8, 0.5, 0.1)


def test_one_class_may_be_small():
    """Against 200 negatives, the width of five positives is that of simulated intervals, not that of 200 and five."""
    rng, y = np.random.default_rng(1), np.array([1] * 5 + [0] * 200)
    widths = []
    for _ in range(400):
        low, high = auc_ci(y, rng.normal(size=205) + math.sqrt(2) * ndtri(0.8) * y)
        widths.append(high - low)
    low, high = planner.expected_interval(0.8, 5, 200)
    assert high - low == pytest.approx(np.mean(widths), rel=0.15)


def test_wilsons_intervals_of_each_class_and_the_promise(capsys):
    """0.8 of 10 positives is 8: 0.49 to 0.94; of 100 negatives 80: 0.71 to 0.87 (Wilson 1927). 0.8 takes 17."""
    assert planner.main("--positives 10 --negatives 100 --promise 0.8".split()) == 0
    said = capsys.readouterr().out
    (line,) = (line for line in said.splitlines() if line.startswith("0.8  "))
    assert [cell.strip() for cell in line.split("  ") if cell] == ["0.8", "0.49 to 0.94", "0.71 to 0.87"]
    assert "17 patients called positive and 17 called negative" in said


def test_the_line_of_the_issue(capsys):
    assert planner.main("--positives 40 --negatives 42".split()) == 0
    said = capsys.readouterr().out
    assert "82 patients, 40 positive" in said and "36 patients called positive" in said
    assert "sensitivity, n = 40  specificity, n = 42" in said


@pytest.mark.parametrize(("words", "message"), [
    ("--positives 1 --negatives 42", "two patients of each class, got 1 and 42"),
    ("--positives 40 --negatives 42 --width 2", "must lie between 0 and 1"),
    ("--positives 40 --negatives 42 --width 1e-5", "takes more than 1000000 patients"),
    ("--positives 40 --negatives 42 --promise 1", "must lie in 0.5..1"),
])  # fmt: skip
def test_what_cannot_be_planned_is_refused(capsys, words, message):
    assert planner.main(words.split()) == 2
    assert message in capsys.readouterr().err
