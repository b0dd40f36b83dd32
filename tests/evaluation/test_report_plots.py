"""Which rows are drawn: every curve is a row's own, readers and cut-offs are points, what was not run is a gap."""

from dataclasses import replace

import pytest

from tss.display import calibration_plots, roc_plots
from tss.evaluation import report_plots
from tss.evaluation.auc_comparison import last_networks
from tss.evaluation.inference import Prediction
from tss.evaluation.results import (
    CUTOFF,
    FLAIR_CLOCK,
    LEE2020,
    NETWORK,
    OLDER,
    READER,
    SOFT_CLOCK,
    Estimate,
    Row,
    Shares,
)
from tss.evaluation.scores import coverage, score
from tss.metrics.failures import NEUTRAL, WRONG

TASK = "tss<4.5h"
SIX = [
    Prediction(f"p{n}", "left", label, p)
    for n, (label, p) in enumerate([(1, 0.9), (1, 0.6), (1, 0.3), (0, 0.5), (0, 0.2), (0, 0.1)])
]


def row(name, kind=NETWORK, scores=None, **more):
    more = {"coverage": coverage(SIX)} | more
    return Row(kind=kind, name=name, task=TASK, scores=scores or score(SIX, 0.55), **more)


def network(name, model, phase, weights, **more):
    return row(name, model=model, phase=phase, weights=weights, attention=phase == 4, **more)


def point(sensitivity, specificity, threshold=None):
    ends = (0.0, 1.0)
    shares = Shares(Estimate(sensitivity, ends), Estimate(specificity, ends), None)
    return replace(score(SIX, 0.55), shares=shares, threshold=threshold)


ROWS = [
    network("r2", "2d", 3, "random"),
    network("p2", "2d", 3, "phase 2"),
    network("a2", "2d", 4, "phase 3"),
    network("r3", "3d", 3, "random"),
    network("p3", "3d", 3, "phase 2"),
    Row(kind=NETWORK, name="i2", task=TASK, model="2d", phase=3, weights="ImageNet", reason="no file"),
    row("clock, where it can be used", OLDER, score(SIX[:5], 0.55), method=FLAIR_CLOCK),
    row("soft clock", OLDER, method=SOFT_CLOCK),
    row("clock, as wrong", OLDER, method=FLAIR_CLOCK, failures=WRONG),
    row("clock, neutral", OLDER, method=FLAIR_CLOCK, failures=NEUTRAL),
    row("Lee 2020, where it can be used", OLDER, method=LEE2020),
    row("1.07, Petkova", CUTOFF, point(0.5, 0.75, 1.07)),
    row("reader_1", READER, point(0.25, 1.0)),
]


@pytest.fixture
def drawn(monkeypatch):
    """Name of a file -> what was asked to be drawn."""
    asked = {}
    for module, name in (
        (roc_plots, "rocs"),
        (roc_plots, "bars"),
        (calibration_plots, "calibration"),
        (calibration_plots, "decision"),
    ):
        monkeypatch.setattr(module, f"draw_{name}", lambda path, *args: asked.update({path.name: args}))
    return asked


def test_many_networks_have_a_panel_for_each_model_and_the_clock_is_in_all(tmp_path, drawn):
    paths = report_plots.draw_roc(tmp_path, ROWS, TASK)
    assert (
        [path.name for path in paths]
        == list(drawn)
        == ["roc_tss_4.5h_2d_networks.png", "roc_tss_4.5h_3d_networks.png", "roc_tss_4.5h_older_methods.png"]
    )
    names = {file: [curve.label.split(":")[0] for curve in args[0]] for file, args in drawn.items()}
    assert list(names.values()) == [
        ["r2", "p2", "a2", FLAIR_CLOCK, SOFT_CLOCK],
        ["r3", "p3", FLAIR_CLOCK, SOFT_CLOCK],
        [FLAIR_CLOCK, SOFT_CLOCK, LEE2020],
    ]
    curves, readers, cutoffs, title = drawn["roc_tss_4.5h_2d_networks.png"]
    assert curves[0].x == ROWS[0].scores.roc.false_positive_rate == [0, 0, 0, 1 / 3, 1 / 3, 2 / 3, 1]
    assert curves[0].label.startswith("r2: AUC 0.889 [") and curves[0].label.endswith(", n = 6")
    assert list(readers.values()) == [(0.0, 0.25)] and cutoffs == {} and title.endswith("6 patients, 3 positive")
    assert drawn["roc_tss_4.5h_older_methods.png"][2] == {"1.07": (0.25, 0.5)}
    assert report_plots.draw_roc(tmp_path, ROWS, "stroke") == []


def test_few_networks_share_a_panel_with_colours_by_first_weights(tmp_path, drawn):
    report_plots.draw_roc(tmp_path, ROWS[:4], TASK)
    ((curves, *_),) = drawn.values()
    assert [curve.kind for curve in curves] == [
        report_plots.RANDOM,
        report_plots.PREVIOUS,
        report_plots.ATTENTION,
        report_plots.RANDOM,
    ]


def test_bars_have_a_place_for_every_first_weight_and_gaps_with_the_word(tmp_path, drawn):
    rows = [replace(one, ceiling=Estimate(0.9, (0.8, 0.97))) if one.kind == NETWORK else one for one in ROWS]
    report_plots.draw_bars(tmp_path, rows, TASK)
    groups, lines, title = drawn["auc_tss_4.5h.png"]
    assert {
        name: [(bar.label, bar.word if bar.auc is None else bar.auc) for bar in bars] for name, bars in groups.items()
    } == {
        "2D": [
            ("random", 8 / 9),
            ("ImageNet", "not run"),
            ("medical", "not run"),
            ("phase before", 8 / 9),
            ("attention", 8 / 9),
        ],
        "3D": [("random", 8 / 9), ("medical", "not run"), ("phase before", 8 / 9), ("attention", "not run")],
        "older": [("FLAIR ratio", 5 / 6), ("soft tissue clock", 8 / 9), ("Lee 2020", 8 / 9)],
    }
    assert list(lines.values()) == [(0.9, (0.8, 0.97))] and "6 phantom patients" in title
    assert groups["2D"][0].interval == ROWS[0].scores.auc.ci


def test_two_networks_of_the_same_kind_are_called_by_name(tmp_path, drawn):
    report_plots.draw_bars(tmp_path, [network(name, "2d", 3, "random") for name in ("seed0", "seed1")], TASK)
    assert [bar.label for bar in drawn["auc_tss_4.5h.png"][0]["2D"][:2]] == ["seed0", "seed1"]


def test_the_last_networks_are_those_of_the_papers_schedule():
    assert [one.name for one in last_networks(ROWS, TASK)] == ["a2", "p3"]
    assert [one.name for one in last_networks([ROWS[3], network("x", "3d", 4, "random")], TASK)] == ["x"]


def test_calibration_and_decision_curves_are_the_last_networks_own(tmp_path, drawn):
    report_plots.draw_calibration(tmp_path, ROWS, TASK)
    (curves, title), (decisions, _) = drawn["calibration_tss_4.5h.png"], drawn["decision_tss_4.5h.png"]
    assert [name.split(":")[0] for name in curves] == ["a2", "p3"] and "6 patients" in title
    assert next(iter(curves.values())) == ROWS[2].scores.calibration
    assert list(decisions) == [
        "a2",
        "p3",
        "soft clock",
        "clock, neutral",
        "Lee 2020, where it can be used",
    ]  # of the same patients as the networks
    assert report_plots.draw_calibration(tmp_path, ROWS, "tss<3h") == []


def test_rows_of_different_cases_have_no_count_in_common():
    assert (
        report_plots.cases([ROWS[0], replace(ROWS[1], scores=replace(ROWS[1].scores, n=5))])
        == "the rows have different cases: see Table 2"
    )
