"""Table 2: hand-made figures come back as rows; a prepared cohort gives the table through run_eval.py."""

import csv
import io
import json
import shutil
from dataclasses import replace

import pytest
from untrained import save_checkpoint

import run_eval
from tss.evaluation import table2
from tss.evaluation.auc_comparison import compare_models
from tss.evaluation.inference import Prediction
from tss.evaluation.results import (
    CUTOFF,
    FLAIR_CLOCK,
    LEE2020,
    NETWORK,
    OLDER,
    SOFT_CLOCK,
    SUBSET,
    Covered,
    Estimate,
    ReaderScores,
    Readings,
    Row,
)
from tss.evaluation.scores import cases_hash, coverage, score
from tss.metrics.failures import NEUTRAL, WRONG
from tss.metrics.roc import auc_ci, roc_auc, wilson
from tss.phantom.ideal_observer import PHANTOM_NOTE

SIX = [
    Prediction(f"p{n}", "left", label, p)
    for n, (label, p) in enumerate([(1, 0.9), (1, 0.6), (1, 0.3), (0, 0.5), (0, 0.2), (0, 0.1)])
]
FIVE = [*SIX[:5], Prediction("p5", "", 0, None, "b0.nii.gz is cut off")]


WHOM = ["all patients", "where it can be used", f"all patients, {WRONG}", f"all patients, {NEUTRAL}"]
CUTOFFS = [
    "1.07, Petkova 2010 (3 h)",
    "1.15, Civrny 2023",
    "1.18, Legge 2017 (6 h)",
    "1.20, Legge 2017 (8 h), Galinovic 2014",
]


def network(name, phase, model, predictions, threshold, task="tss<4.5h", weights="random", **more):
    return Row(
        kind=NETWORK,
        name=name,
        task=task,
        phase=phase,
        model=model,
        attention=phase == 4,
        weights=weights,
        split="test",
        positive_class="TSS < 4.5 h",
        scores=score(predictions, threshold),
        coverage=coverage(predictions),
        **more,
    )


def read(text):
    return {line["name"]: line for line in csv.DictReader(io.StringIO(text))}


def cells(markdown, name):
    return [cell.strip() for line in markdown.splitlines() if f"| {name} |" in line for cell in line.split("|")[1:-1]]


def test_figures_come_back_in_full_precision_and_youden_on_test_is_called_optimistic():
    results = [network("a", 3, "3d", SIX, 0.55, weights="phase 2")]
    rows = table2.in_order(results)
    line = read(table2.to_csv(rows))["a"]
    assert [line[name] for name in ("tp", "fp", "tn", "fn", "n", "n_positive")] == ["2", "0", "3", "1", "6", "3"]
    assert float(line["auc"]) == 8 / 9 and float(line["accuracy"]) == 5 / 6
    assert (float(line["sensitivity_ci_low"]), float(line["sensitivity_ci_high"])) == wilson(2, 3)
    assert line["cases_sha256"] == cases_hash(SIX) and len(line["cases_sha256"]) == 64
    assert (line["threshold"], line["threshold_from"]) == ("0.55", "validation")
    youdens = results[0].scores.youden_on_this_split_optimistic.threshold
    assert float(line["threshold_optimistic"]) == youdens != 0.55
    assert [name for name in line if "youden" in name] == [] and line["ceiling"] == line["phantoms"] == ""
    shown = table2.to_markdown(rows, {}, results)
    assert cells(shown, "a")[:8] == [
        "Phase 3: TSS < 4.5 h",
        "a",
        "3D",
        "phase 2",
        "no",
        "6 patients",
        "3",
        "0.889 [{:.2f}-{:.2f}]".format(*results[0].scores.auc.ci),
    ]
    assert cells(shown, "a")[11:] == ["0.550", "2", "0", "3", "1", "6 of 6", cases_hash(SIX)[:8]]
    before, after = shown.split("## Optimistic")
    assert f"{youdens:.3f}" in after and f"| {youdens:.3f} |" not in before
    assert "different sets" not in shown and "phantom" not in shown and "Not run" not in shown


def test_rows_stand_in_the_order_of_the_papers_table_and_different_patients_are_told():
    six = score(SIX, 0.5)
    reader = ReaderScores(
        n=6, n_positive=3, without_call=0, cases_sha256=six.cases_sha256, counts=six.counts, shares=six.shares
    )
    readers = Readings("DWI-FLAIR mismatch", 6, {"reader_1": reader}, None, {}, {})
    results = [
        network(
            "four", 4, "2d", FIVE, 0.5, readers=readers, ceiling=Estimate(0.87, (0.7, 0.95)), notes=(PHANTOM_NOTE,)
        ),
        network("three 3d", 3, "3d", SIX, 0.5, weights="Models Genesis", ceiling=Estimate(0.87, (0.7, 0.95))),
        network("three 2d", 3, "2d", SIX, 0.5, ceiling=Estimate(0.87, (0.7, 0.95))),
        network("one", 1, "3d", SIX, 0.5, "stroke"),
    ]
    clock = Row(kind=OLDER, name="clock", task="tss<4.5h", scores=score(SIX, 0.5), coverage=coverage(SIX))
    lee = Row(kind=OLDER, name="Lee 2020", task="tss<4.5h", reason="no scans | at all")
    medical = Row(
        kind=NETWORK,
        name="medical",
        task="tss<4.5h",
        reason="needs a file",
        phase=3,
        model="2d",
        weights="medical images",
    )
    rows = table2.in_order(results, [clock, lee, medical])
    assert [row.name for row in rows] == [
        "one",
        "three 2d",
        "medical",
        "three 3d",
        "four",
        "clock",
        "Lee 2020",
        "reader_1",
    ]
    lines = read(table2.to_csv(rows))
    assert [lines["medical"][name] for name in ("stage", "kind", "phase", "model", "weights", "auc", "not_run")] == [
        "not run",
        "network",
        "3",
        "2d",
        "medical images",
        "",
        "needs a file",
    ]
    assert [lines["four"][name] for name in Covered._fields] == ["6", "5", "0", "1"]
    assert lines["reader_1"]["auc"] == lines["reader_1"]["threshold"] == "" and lines["reader_1"]["tp"] == "2"
    assert lines["Lee 2020"]["not_run"] == "no scans | at all" and lines["Lee 2020"]["n"] == ""
    assert [lines[name]["ceiling"] for name in ("one", "clock", "reader_1")] == ["", "0.87", "0.87"]
    assert (lines["clock"]["ceiling_ci_low"], lines["clock"]["ceiling_ci_high"]) == ("0.7", "0.95")
    # One of six has no probability: a positive, which beats none of three, or as many as lie below the median.
    assert [lines["four"][name] for name in ("n", "n_over_all")] == ["5", "6"] and lines["three 2d"]["n_over_all"] == ""
    assert float(lines["four"]["auc_failures_wrong"]) < float(lines["four"]["auc_failures_neutral"])
    assert lines["reader_1"]["phantoms"] == "yes: not clinical results"
    compared = {"tss<4.5h": compare_models({"four": FIVE, "three 2d": SIX}, "tss<4.5h")}
    shown = table2.to_markdown(rows, compared, results)
    assert cells(shown, "three 3d")[0] == "" and cells(shown, "three 3d")[3] == "Models Genesis, published"
    assert f"({cases_hash(SIX)[:8]}: three 2d + three 3d + clock + reader_1; {cases_hash(FIVE)[:8]}: four)" in shown
    assert shown.count("different sets of patients") == 1 and "5 of 6" in shown
    assert "Not run: Lee 2020, TSS < 4.5 h: no scans | at all" in shown
    assert "phantom scores are not clinical results" in shown
    assert (
        "The AUC that is the best possible on average on such patients: TSS < 4.5 h 0.870 (on 95 % of cohorts of this"
        in shown
    )
    assert "four: over all 6 cases, 1 of them failed: failures as wrong: AUC " in shown
    assert "1 cases that only one of them has are left out" in shown and "p (Holm)" in shown
    assert "DWI-FLAIR mismatch (simulated)" in shown


def test_rows_of_other_patients_are_told_and_a_clocks_cut_offs_are_the_clocks():
    net, clock = network("net", 4, "2d", SIX, 0.5), network("clock", 4, "2d", FIVE, 0.5)
    cutoff = replace(clock, kind=CUTOFF, name="1.07")
    assert table2.different_patients([net, network("other", 3, "2d", SIX, 0.5)]) == []
    (said,) = table2.different_patients([net, clock, cutoff])
    one, other = (row.scores.cases_sha256[:8] for row in (net, clock))
    assert f"({one}: net; {other}: clock)" in said and said.startswith("TSS < 4.5 h: the rows are of different sets")


def test_a_reader_s_row_covers_the_patients_whose_onset_is_known():
    """Of six patients two have no known onset, and one of the other four was not read."""
    found = score(SIX, 0.5)
    reader = ReaderScores(n=3, n_positive=1, without_call=1, cases_sha256="a", counts=found.counts, shares=found.shares)
    readings = Readings("mismatch", 4, {"reader_1": reader}, None, {}, {})
    rows = table2.in_order([network("net", 3, "2d", SIX, 0.5, readers=readings)])
    assert [(row.name, row.covering) for row in rows[1:]] == [("reader_1", Covered(6, 3, 2, 1))]


def test_a_bar_in_a_name_does_not_break_the_table():
    results = [network("a|b", 3, "2d", SIX, 0.5)]
    assert "| a\\|b |" in table2.to_markdown(table2.in_order(results), {}, results)


def evaluate(folder, out, *more, phases=(1, 4)):
    paths = [str(folder / f"phase{phase}" / "best.pt") for phase in phases]
    words = ["--data", str(folder / "data"), "--out", str(out), "--gradcam", "0", "--table", *more]
    return run_eval.main([*paths, *words])


def test_one_command_leaves_the_table_with_older_methods_and_readers(scanned, tmp_path, capsys):
    assert evaluate(scanned, tmp_path) == 0
    lines = read((tmp_path / "table2.csv").read_text())
    assert list(lines) == [
        "phase1",
        "phase4",
        f"phase4, where {LEE2020} can be used",
        *(
            f"{name}, {who}"
            for name in (FLAIR_CLOCK, "tissue clock, DWI", "tissue clock, ADC", SOFT_CLOCK, LEE2020)
            for who in (WHOM[:1] if name == SOFT_CLOCK else WHOM[1:])
        ),
        *CUTOFFS,
        "reader_1",
        "reader_2",
        "readers' majority",
    ]
    assert (lines["phase1"]["unit"], lines["phase1"]["n"]) == ("hemisphere", "16")
    four = [lines["phase4"][name] for name in ("weights", "attention", "n", "n_positive")]
    assert four == ["phase 3", "yes", "8", "3"]
    clock, wrong, neutral = (lines[f"tissue clock, FLAIR, {who}"] for who in WHOM[1:])
    assert (clock["n"], clock["no_answer"], float(clock["auc"])) == ("7", "1", 1.0)  # p30 has no infarct
    for everybody in (wrong, neutral, lines["soft tissue clock, all patients"]):
        assert everybody["n"] == "8" and everybody["cases_sha256"] == lines["phase4"]["cases_sha256"]
    assert [row["failures"] for row in (clock, wrong, neutral)] == ["", WRONG, NEUTRAL]
    assert float(wrong["auc"]) < float(neutral["auc"]) < 1
    same, lee = lines[f"phase4, where {LEE2020} can be used"], lines[f"{LEE2020}, {WHOM[1]}"]  # the paper's comparison
    assert (same["n"], same["no_answer"]) == ("7", "1") and same["cases_sha256"] == lee["cases_sha256"]
    with open(tmp_path / "phase4" / "predictions.csv", newline="") as file:
        answers = [
            (int(one["label"]), float(one["probability"])) for one in csv.DictReader(file) if one["patient"] != "p30"
        ]
    assert (float(same["auc"]), float(same["auc_ci_low"]), float(same["auc_ci_high"])) == pytest.approx(
        (roc_auc(*zip(*answers, strict=True)), *auc_ci(*zip(*answers, strict=True)))
    )
    assert same["threshold"] == lines["phase4"]["threshold"] and same["kind"] == SUBSET
    for name, cutoff in zip(CUTOFFS, (1.07, 1.15, 1.18, 1.20), strict=True):  # they stand in Table 2 as readers do
        point = lines[name]
        assert (point["kind"], float(point["threshold"]), point["auc"]) == ("published cut-off", cutoff, "")
        assert point["cases_sha256"] == clock["cases_sha256"] and (point["n"], point["no_answer"]) == ("7", "1")
        assert int(point["tp"]) + int(point["fn"]) == int(clock["n_positive"]) == int(point["n_positive"])
        assert f"| {name} |" in (tmp_path / "table2.md").read_text()
    assert [lines["reader_1"][name] for name in ("tp", "fp", "tn", "fn")] == ["3", "5", "0", "0"]
    assert (lines["readers' majority"]["n"], lines["readers' majority"]["no_answer"]) == ("6", "2")
    assert lines["reader_1"]["cases_sha256"] == lines["phase4"]["cases_sha256"] != lines["reader_2"]["cases_sha256"]
    shown = (tmp_path / "table2.md").read_text()
    assert "| TSS < 4.5 h: networks on the patients that Lee 2020 can process |" in shown
    assert "phantom scores are not clinical results" in shown and "phase4 - tissue clock, FLAIR" in shown
    assert "Lee 2020 - tissue clock" not in shown and "phase4 beside reader_1" in shown and "nan" not in shown
    assert "table2.md and table2.csv written to" in capsys.readouterr().out


def test_an_older_table_is_not_overwritten_and_does_not_stay_and_what_was_not_run_is_told(scanned, tmp_path, capsys):
    shutil.copytree(scanned / "data", tmp_path / "data", ignore=shutil.ignore_patterns("p07_flair.nii.gz"))
    shutil.copytree(scanned / "phase4", tmp_path / "phase4")
    out = tmp_path / "eval"
    out.mkdir()
    (out / "table2.md").write_text("of before")
    assert evaluate(tmp_path, out, phases=(4,)) == 2
    assert "already holds table2.md" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["table2.md"]
    assert evaluate(tmp_path, out, "--overwrite", phases=(4,)) == 0
    lines = read((out / "table2.csv").read_text())
    assert "p07_flair.nii.gz" in lines["Lee 2020"]["not_run"] and lines["phase4"]["n"] == "8"
    shown = (out / "table2.md").read_text()
    assert shown.count("Not run: ") == 5 and "of before" not in shown and "Paired" not in shown
    assert "not run: Lee 2020, TSS < 4.5 h: " in capsys.readouterr().out


def test_a_study_s_ensemble_of_folds_is_a_row_beside_the_single_network(tiny_data, tmp_path):
    for name, more in (("single", {}), ("fold1", {"fold": "1/2"}), ("fold2", {"fold": "2/2"})):
        path = tmp_path / name / "phase4" / "best.pt"
        save_checkpoint(path, 4, tiny_data, seed=len(name) + len(more), settings={"weights": "phase 3", **more})
    save_checkpoint(tmp_path / "single" / "phase3" / "best.pt", 3, tiny_data, settings={"weights": "phase 2"})
    folds = [f"fold{k}/phase4/best.pt" for k in (1, 2)]
    (tmp_path / "study.json").write_text(json.dumps({"not_run": [], "ensembles": {"ensemble-of-2-folds": folds}}))
    words = ["--data", str(tiny_data), "--out", str(tmp_path / "eval"), "--gradcam", "0", "--table"]
    paths = [str(tmp_path / "single" / f"phase{phase}" / "best.pt") for phase in (3, 4)]
    assert run_eval.main([*paths, *words, "--study", str(tmp_path / "study.json")]) == 0
    lines = read((tmp_path / "eval" / "table2.csv").read_text())
    row = lines["ensemble-of-2-folds"]
    assert (row["kind"], row["threshold_from"], row["n"]) == (NETWORK, "out-of-fold predictions", lines["phase4"]["n"])
    assert json.loads((tmp_path / "eval" / "ensemble-of-2-folds" / "metrics.json").read_text())["members"] == 2
    pairs = [
        (one["first"], one["second"])
        for one in json.loads((tmp_path / "eval" / "comparisons.json").read_text())["tss<4.5h"]
    ]
    assert pairs == [("phase3", "phase4"), ("phase4", "ensemble-of-2-folds")]
