"""Which rows are drawn: every curve is a row's own, readers and cut-offs are points, what was not run is a gap."""

import pytest

from tss.display import calibration_plots, roc_plots
from tss.evaluation import report_plots
from tss.evaluation.inference import Prediction
from tss.evaluation.scores import coverage, score

TASK = "tss<4.5h"
SIX = [
    Prediction(f"p{n}", "left", label, p)
    for n, (label, p) in enumerate([(1, 0.9), (1, 0.6), (1, 0.3), (0, 0.5), (0, 0.2), (0, 0.1)])
]


def row(name, kind="network", **more):
    return {
        "name": name,
        "kind": kind,
        "task": TASK,
        "stage": "",
        "unit": "patient",
        **score(SIX, 0.55),
        **coverage(SIX),
        **more,
    }


def network(name, model, phase, weights, **more):
    return row(name, model=model, phase=phase, weights=weights, attention=phase == 4, **more)


ROWS = [
    network("r2", "2d", 3, "random"),
    network("p2", "2d", 3, "phase 2"),
    network("a2", "2d", 4, "phase 3"),
    network("r3", "3d", 3, "random"),
    network("p3", "3d", 3, "phase 2"),
    {
        "name": "i2",
        "kind": "network",
        "task": TASK,
        "stage": "not run",
        "model": "2d",
        "phase": 3,
        "weights": "ImageNet",
        "reason": "no file",
    },
    row("clock, where it can be used", "older method", method=report_plots.CLOCK),
    row(
        "clock, all patients",
        "older method",
        method=report_plots.CLOCK,
        coverage=coverage(SIX)["coverage"] | {"counted_against": {}},
    ),
    row("Lee 2020, where it can be used", "older method", method=report_plots.LEE),
    row("1.07, Petkova", "published cut-off", threshold=1.07, sensitivity=0.5, specificity=0.75),
    row("reader_1", "reader", sensitivity=0.25, specificity=1.0),
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
        ["r2", "p2", "a2", report_plots.CLOCK],
        ["r3", "p3", report_plots.CLOCK],
        [report_plots.CLOCK, report_plots.LEE],
    ]
    curves, readers, cutoffs, title = drawn["roc_tss_4.5h_2d_networks.png"]
    assert curves[0].x == ROWS[0]["roc"]["false_positive_rate"] == [0, 0, 0, 1 / 3, 1 / 3, 2 / 3, 1]
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
    rows = [one | {"ceiling": 0.9} if one["kind"] == "network" else one for one in ROWS]
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
        "older": [("FLAIR ratio", 8 / 9), ("Lee 2020", 8 / 9)],
    }
    assert list(lines.values()) == [0.9] and "6 phantom patients" in title
    assert groups["2D"][0].interval == ROWS[0]["auc_ci"]


def test_two_networks_of_the_same_kind_are_called_by_name(tmp_path, drawn):
    report_plots.draw_bars(tmp_path, [network(name, "2d", 3, "random") for name in ("seed0", "seed1")], TASK)
    assert [bar.label for bar in drawn["auc_tss_4.5h.png"][0]["2D"][:2]] == ["seed0", "seed1"]


def test_the_last_networks_are_those_of_the_papers_schedule():
    assert [one["name"] for one in report_plots.last_networks(ROWS, TASK)] == ["a2", "p3"]
    assert [one["name"] for one in report_plots.last_networks([ROWS[3], network("x", "3d", 4, "random")], TASK)] == [
        "x"
    ]


def test_calibration_and_decision_curves_are_the_last_networks_own(tmp_path, drawn):
    report_plots.draw_calibration(tmp_path, ROWS, TASK)
    (curves, title), (decisions, _) = drawn["calibration_tss_4.5h.png"], drawn["decision_tss_4.5h.png"]
    assert [name.split(":")[0] for name in curves] == ["a2", "p3"] and "6 patients" in title
    assert next(iter(curves.values())) == ROWS[2]["calibration"]
    assert list(decisions) == ["a2", "p3", "clock, all patients"]  # of the same patients as the networks
    assert report_plots.draw_calibration(tmp_path, ROWS, "tss<3h") == []


def test_rows_of_different_cases_have_no_count_in_common():
    assert report_plots.cases([ROWS[0], ROWS[1] | {"n": 5}]) == "the rows have different cases: see Table 2"
