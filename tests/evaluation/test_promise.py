"""The promise of run_eval.py: who is unsure, and what is said where validation is too small."""

import csv
import json

import numpy as np
import pytest
from scipy.special import expit, logit
from untrained import save_checkpoint

import run_eval
from tss.evaluation import run_facts
from tss.evaluation.inference import Cuts, Model, Prediction, open_models
from tss.evaluation.promise import kept_on, of_patients, with_promise
from tss.evaluation.run_facts import Source
from tss.metrics.platt import Line
from tss.metrics.roc import wilson


def a_validation(n, apart, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    logits = rng.normal(size=n) + apart * (labels - 0.5)
    return {
        "logits": logits.tolist(),
        "labels": labels.tolist(),
        "patients": [f"v{number}" for number in range(n)],
        "sides": ["left"] * n,
    }


def run(scanned, tmp_path, validation, *more):
    path = save_checkpoint(tmp_path / "best.pt", 4, scanned / "data", validation=validation)
    common = ["--data", str(scanned / "data"), "--out", str(tmp_path / "eval"), "--device", "cpu", "--gradcam", "0"]
    code = run_eval.main([path, *common, *more])
    if code:
        return code, [], {}
    with open(tmp_path / "eval" / "predictions.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    return code, lines, json.loads((tmp_path / "eval" / "metrics.json").read_text())


def test_verdicts_follow_the_cuts_and_metrics_say_what_was_kept(scanned, tmp_path, capsys):
    code, lines, metrics = run(scanned, tmp_path, a_validation(2000, 2.0), "--promise", "0.9")
    promise = metrics["promise"]
    assert code == 0 and promise["promised"] == 0.9 and 0 < promise["lower"] < promise["upper"] < 1
    for line in (line for line in lines if line["probability"]):
        p = float(line["probability"])
        expected = "positive" if p > promise["upper"] else "negative" if p < promise["lower"] else "unsure"
        assert line["verdict"] == expected and float(line["positive_above"]) == promise["upper"]
    counted = [line for line in lines if line["label"] and line["probability"]]
    assert promise["unsure"] == sum(line["verdict"] == "unsure" for line in counted) and promise["n"] == len(counted)
    assert (
        "promised PPV and NPV 0.9, both kept in 90% of studies like that of the 2000 patients"
        in capsys.readouterr().out
    )


def test_where_validation_is_too_small_it_says_how_many_patients_it_takes(scanned, tmp_path, capsys):
    code, lines, metrics = run(scanned, tmp_path, a_validation(20, 2.0), "--promise", "0.9")
    assert code == 0 and {line["verdict"] for line in lines if line["probability"]} == {"unsure"}
    assert len(metrics["promise"]["too_few"]) == 2
    said = capsys.readouterr().out
    assert "nobody is called positive: 20 patients are too few to promise PPV 0.9 (it takes 36 called rightly" in said
    assert "it takes about" in said


def test_without_a_promise_nobody_is_unsure(scanned, tmp_path):
    _, lines, metrics = run(scanned, tmp_path, a_validation(20, 2.0))
    assert {line["verdict"] for line in lines if line["probability"]} <= {"positive", "negative"}
    assert "promise" not in metrics and "positive_above" not in lines[0]


@pytest.mark.parametrize(("validation", "promise", "message"), [
    (a_validation(20, 1.0), "1", "a promise must lie in 0.5..1"),
    ({"logits": []}, "0.9", "holds no predictions of its validation patients"),
])  # fmt: skip
def test_what_cannot_be_promised_is_refused(scanned, tmp_path, capsys, validation, promise, message):
    assert run(scanned, tmp_path, validation, "--promise", promise)[0] == 2
    assert message in capsys.readouterr().err


def test_a_patient_with_two_sides_counts_once_and_hemispheres_are_promised_nothing(scanned, tmp_path):
    both = {
        "logits": [1.0, 2.0, 0.0],
        "labels": [1, 1, 0],
        "patients": ["a", "a", "b"],
        "sides": ["left", "right", "left"],
    }
    (model,) = open_models([save_checkpoint(tmp_path / "best.pt", 4, scanned / "data", validation=both)])
    labels, logits = of_patients(model)
    assert labels.tolist() == [1, 0] and logits.tolist() == [2.0, 0.0]
    (stroke,) = open_models([save_checkpoint(tmp_path / "first" / "best.pt", 1, scanned / "data")])
    assert with_promise(stroke, 0.9) is stroke


@pytest.mark.parametrize("apart", [2.0, 12.0])
def test_cuts_are_of_the_answers_that_a_model_gives_after_its_line(apart):
    """An ensemble answers 1 + 2 * logit: its cuts and its threshold are so too, where both classes lie far apart."""
    validation = a_validation(2000, apart)
    plain = Model("best.pt", "one", None, {"task": "tss<3h", "threshold": 0.6, "validation": validation})
    threshold = expit(1 + 2 * logit(0.6))
    lined = plain._replace(checkpoint=plain.checkpoint | {"threshold": threshold}, line=Line(1.0, 2.0))
    cuts, others = (with_promise(model, 0.9).cuts for model in (plain, lined))
    assert 0 < cuts.lower <= cuts.upper < 1
    for cut, other in ((cuts.lower, others.lower), (cuts.upper, others.upper)):
        assert logit(other) == pytest.approx(1 + 2 * logit(cut))
    if apart == 12:
        assert cuts.upper == pytest.approx(0.6)


def test_what_came_of_a_promise_by_hand():
    """Called positive: 0.9, 0.8, 0.85, two of them rightly; negative: 0.1, 0.2, 0.05, 0.15, three; two are unsure."""
    cuts = Cuts(0.9, 0.25, 0.75, 100, 100, 200, 90)
    model = Model("best.pt", "one", None, {"task": "tss<3h", "threshold": 0.5}, cuts=cuts)
    pairs = [(0.9, 1), (0.8, 0), (0.85, 1), (0.5, 1), (0.4, 0), (0.1, 0), (0.2, 0), (0.05, 1), (0.15, 0)]
    lines = [Prediction(f"p{n}", "left", label, p) for n, (p, label) in enumerate(pairs)]
    unknown = [Prediction("x", "left", -1, 0.9), Prediction("y", "left", 1, None, "failed")]
    found = kept_on(model, [*lines, *unknown])
    assert (found.n, found.unsure, found.chosen_on) == (9, 2, 200)
    assert found.ppv == (2 / 3, wilson(2, 3)) and found.npv == (3 / 4, wilson(3, 4))
    assert kept_on(model._replace(cuts=None), lines) is None


def test_a_model_card_counts_the_verdicts_that_were_given():
    told = [
        ("a", "1", "negative"),
        ("b", "0", "positive"),
        ("c", "1", "unsure"),
        ("d", "0", "unsure"),
        ("e", "1", "positive"),
    ]
    lines = [
        {"patient": patient, "label": label, "probability": "0.6", "threshold": "0.5", "verdict": verdict}
        for patient, label, verdict in told
    ]
    nothing = Source("metrics.json", {})
    (fact,) = run_facts._errors(run_facts.Network("n", nothing, nothing, "predictions.csv", lines, 0, ""))
    assert fact.text == "Of 5 cases 1 are falsely called negative: a; 1 falsely positive: b; 2 are unsure."
