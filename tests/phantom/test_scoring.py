"""The row of a stranger's predictions: the ideal observer's own, a method that fails, and files that are refused."""

from pathlib import Path

import numpy as np
import pytest

from tss import metrics
from tss.phantom import __main__ as script
from tss.phantom import benchmark
from tss.phantom.scoring import HEAD


@pytest.fixture(scope="module")
def test_split():
    """Names, labels for TSS < 4.5 h and latents of the middle level's test patients."""
    patients = benchmark.patient_table(Path(), "middle")
    chosen = [i for i, patient in enumerate(patients) if patient.split == "test"]
    return (
        [patients[i].id for i in chosen],
        np.array([int(patients[i].minutes < 270) for i in chosen]),
        benchmark.latents("middle")[chosen],
    )


def write(path, rows, head="patient,probability"):
    path.write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return str(path)


def score(capsys, *words):
    """Run the command; return its Markdown row as column -> cell, and everything that it said."""
    assert script.main(["score", *words, "--level", "middle"]) == 0
    said = capsys.readouterr().out
    line = [line for line in said.splitlines() if line.startswith("| ")][-1]
    return dict(zip(HEAD, line.strip("| ").split(" | "), strict=True)), said


def test_the_ideal_observer_has_all_of_itself(test_split, tmp_path, capsys):
    names, y, latent = test_split
    p = 1 / (1 + np.exp(latent))
    path = write(tmp_path / "ideal.csv", zip(names, p, np.where(p > 0.5, "positive", "unsure"), strict=True),
                 "patient,probability,verdict")  # fmt: skip
    row, said = score(capsys, path)
    auc = "{:.3f} [{:.2f}-{:.2f}]".format(metrics.roc_auc(y, p), *metrics.auc_ci(y, p))
    assert (row["method"], row["TSS-Phantom"], row["task"], row["answered"]) == (
        "ideal",
        "3 middle",
        "TSS < 4.5 h",
        "82 of 82",
    )
    assert [row[name] for name in HEAD[5:8]] == [auc] * 3 and row["ideal observer"] == auc[:5]
    assert row["share of the ideal AUC [95 % CI]"] == "1.000 [1.00-1.00]"
    assert row["sensitivity"].startswith("1.00 [") and row["sensitivity"].endswith(f"of {(p > 0.5)[y == 1].sum()}")
    assert row["specificity"].startswith("0.00 [")
    assert "phantom scores are not clinical results" in said and row["cases"] in said


def test_failures_are_counted_both_ways_and_other_splits_are_not(test_split, tmp_path, capsys):
    names, y, latent = test_split
    rows = [(name, "" if i < 3 else 0.5 - value / 4) for i, (name, value) in enumerate(zip(names, latent, strict=True))]
    path = write(
        tmp_path / "some.csv", [*rows[:-1], ("p001" if "p001" not in names else "p002", 0.5)]
    )  # one is missing
    row, said = score(capsys, path)
    p = np.array([np.nan if cell == "" else cell for _, cell in rows], float)
    p[-1] = np.nan
    assert row["answered"] == "78 of 82" and "1 patients of other splits are not counted" in said
    for name, filled in (
        ("all: failures as wrong", metrics.failures_as_wrong(y, p)),
        ("all: failures at one neutral score", metrics.failures_at_neutral(p)),
    ):
        assert row[name].startswith(f"{metrics.roc_auc(y, filled):.3f} [")
    assert row["sensitivity"] == row["specificity"] == "-"


@pytest.mark.parametrize(("head", "rows", "message"), [
    ("patient,p", [("p001", 0.5)], "has no column probability. Its header: patient,probability"),
    ("patient,probability", [("x", 0.5)], "line 2: 'x' is no patient of TSS-Phantom, which has p001 to p422"),
    ("patient,probability", [("p001", 0.5), ("p001", 0.5)], "line 3: p001 appears twice"),
    ("patient,probability", [("p001", 1.5)], "the probability '1.5' is no number in 0..1. Leave it empty where"),
    ("patient,probability", [("p001", "nan")], "the probability 'nan' is no number"),
    ("patient,probability,verdict", [("p001", 0.5, "late")], "the verdict 'late' is none of positive, 1, negative, 0"),
    ("patient,probability,label", [("p001", 0.5, 2)], "the label of p001 is 2, in TSS-Phantom 3 it is "),
    ("patient,probability", [("p001", "")], "has a probability for none of the 82 test patients. Give --split."),
])  # fmt: skip
def test_files_that_cannot_be_scored_are_refused(tmp_path, capsys, head, rows, message):
    path = write(tmp_path / "bad.csv", rows, head)
    assert script.main(["score", path, "--level", "middle"]) == 2
    assert message in capsys.readouterr().err
