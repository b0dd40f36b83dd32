"""checklist.md and model-card.md through run_eval.py: every figure is looked up again in the file it names."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
import torch
from untrained import save_checkpoint

import run_eval
from tss.data.cohort import write_cohort
from tss.data.prepared import read_prepared, read_settings
from tss.evaluation import checklist, evaluate, gradcam_overlap, model_card, older_methods, report
from tss.evaluation.inference import Prediction
from tss.evaluation.results import GradcamScores, Promise, as_json
from tss.evaluation.run_facts import facts_of
from tss.evaluation.scores import over_all

BULLET = re.compile(r"- (?P<text>.*) \(`(?P<file>[^`]+)`: (?P<where>.*)\)")
NAMES = re.compile(r"95 %|[23]d\b|[23]D|ResNet-18|T2w|SHA-256|tss<[\d.]+h|TSS < [\d.]+ h|p\d\d\b|reader_\d|AUC with")


@pytest.fixture(scope="module")
def evaluated(scanned, tmp_path_factory):
    """OUT of a network on phantoms whose table has the usual columns, and the Run that its lists were made of."""
    folder = tmp_path_factory.mktemp("checklist")
    shutil.copytree(scanned / "data", folder / "data")
    patients = read_prepared(folder / "data")
    for number, patient in enumerate(patients):
        patient.row |= {
            "age": str(50 + number) if number else "", "sex": "FM"[number % 2], "nihss": str(number % 21),
            "site": "north" if number % 3 else "south", "field_strength": ("3", "1.5", "")[number % 3],
            "flair_te_ms": "94",
        }  # fmt: skip
    patients[29].row |= {"status": "failed", "reason": "FLAIR is *cut* off {here}"}
    patients[20].row |= {"verdict": "reject", "verdict_remark": "motion"}
    patients[31].row["onset_to_mri_min"] = ""
    write_cohort(folder / "data" / "cohort.csv", patients)
    file = folder / "data" / "settings.json"
    more = {"atlas": "atlas_t2w.nii.gz", "seed": 7, "reference": {"patient": "p03"}, "versions": {"numpy": "2.4.6"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | more))
    settings = {"batch_size": 8, "lr": 1e-5, "final_lr": 1e-3, "epochs": 100, "patience": 10, "seed": 0,
                "precision": "fp32", "weights": "phase 3", "preprocessing": read_settings(folder / "data"),
                "versions": {"tss": "0.1.0", "torch": "2.13.0+cpu", "python": "3.11.7"},
                "profile": {"patients": 18, "scanner": {}, "numbers": {}}}  # fmt: skip
    path = save_checkpoint(folder / "phase4" / "best.pt", 4, folder / "data", settings=settings, val_auc=0.7654321)
    runs = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "write_report", lambda folder, found: None)
        patch.setattr(older_methods, "run_older_methods", lambda *_: ({}, []))
        patch.setattr(evaluate, "facts_of", lambda run: runs.append(run) or facts_of(run))
        words = ["--data", str(folder / "data"), "--out", str(folder / "eval"), "--report", "--gradcam", "0"]
        assert run_eval.main([path, *words]) == 0
    return folder / "eval", runs[0]


def values_at(out, file, where):
    """All numbers of which a sentence may be made: what the file holds at these keys, or counts of these columns."""
    path = out / file
    if path.suffix in (".json", ".pt"):
        content = json.loads(path.read_text()) if path.suffix == ".json" else torch.load(path, weights_only=True)
        if path.suffix == ".pt":
            tensors = content["state_dict"].values()
            content["state_dict"] = {"tensors": len(tensors), "numbers": sum(tensor.numel() for tensor in tensors)}
        found = []
        for key in where.split(", "):
            value = content
            for part in [] if key == "its entries" else key.split("."):
                value = value[int(part) if isinstance(value, list) else part]
            found += [value, *([len(value)] if isinstance(value, (list, dict, str)) else [])]
        return found
    if path.name == "table2.md":
        return [path.read_text()]
    with open(path, newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    columns = where.removeprefix("columns ").removeprefix("column ").split(", ")
    groups = [rows, *([row for row in rows if row.get("split") == split] for split in ("train", "val", "test"))]
    found = [row[column] for row in rows for column in columns]
    for group in groups:
        for column in columns:
            cells = [row[column] for row in group]
            found += [len(cells), *(cells.count(cell) for cell in {*cells, "", "ok", "failed", "rejected"})]
            found.append(sum(cell != "" for cell in cells))
            numbers = [float(cell) for cell in cells if re.fullmatch(r"[\d.]+", cell)]
            found += list(np.percentile(numbers, [25, 50, 75])) if numbers else []
    if path.name == "predictions.csv":
        wrong = [r for r in rows if r["label"] and r["probability"]
                 and (r["probability"] >= r["threshold"]) != (r["label"] == "1")]  # fmt: skip
        found += [sum(row["label"] == label for row in wrong) for label in "01"]
        found.append(sum(row["label"] != "" and row["probability"] != "" for row in rows))
    return found


def is_among(number, values):
    """Is a written number one of the values, to its own digits, or part of one that is text?"""
    for value in values:
        if isinstance(value, str) and number in value:
            return True
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            digits = len(number.partition(".")[2].partition("e")[0])
            if float(number) == value or float(number) == round(value, digits) or f"{value:.4g}" == number:
                return True
    return False


@pytest.mark.parametrize("name", [checklist.NAME, model_card.NAME])
def test_every_figure_is_in_the_file_that_is_named(evaluated, name):
    out, _ = evaluated
    facts = [found for line in (out / name).read_text().splitlines() if (found := BULLET.fullmatch(line))]
    assert len(facts) > 25
    for fact in facts:
        values = values_at(out, fact["file"], fact["where"])
        text = re.sub(r"\\(.)", r"\1", fact["text"])
        if fact["file"] == "table2.md":
            assert text in values[0]
            continue
        for number in re.findall(r"(?:(?<=[ \[(])-)?\d[\d,]*(?:\.\d+)?(?:e-\d+)?", NAMES.sub("", text)):
            assert is_among(number.replace(",", ""), values), (fact[0], number)


def test_thirty_of_claims_44_are_filled_and_the_others_are_marked(evaluated):
    out, run = evaluated
    text, facts = (out / checklist.NAME).read_text(), facts_of(run)
    claim, tripod = text.split("## TRIPOD+AI")
    items = dict(re.findall(r"^### (\w+)\. [^\n]+\n\n((?:- .*\n)+)", claim, re.M))
    assert [*items] == [str(number) for number in range(1, 45)]
    filled = {number for number, body in items.items() if body != f"- {checklist.WRITE}\n"}
    assert len(filled) >= 30 and f"Filled: {len(filled)} of 44" in claim
    assert not filled & {"2", "3", "4", "5", "11", "15", "16", "21", "34", "41", "42", "44"}
    assert filled == {item.number for item in checklist.CLAIM if checklist.is_filled(item, facts)}
    assert len(re.findall(r"^### ", tripod, re.M)) == 52
    assert "**These patients are phantoms" in text


def test_what_the_files_hold_is_said(evaluated):
    text = (evaluated[0] / checklist.NAME).read_text()
    found = json.loads((evaluated[0] / "metrics.json").read_text())
    for said in (
        "AUC {:.3f} [95 % CI {:.3f} to {:.3f}]. (`metrics.json`".format(found["auc"], *found["auc_ci"]),
        "True positives {tp}, false positives {fp}, true negatives {tn}, false negatives {fn}.".format(**found),
        "DWI-FLAIR mismatch was judged, of 8 test patients: reader\\_1 8, reader\\_2 7.",
        "Field strength (T), patients: 3 (12), 1.5 (12), unknown (12). (`../data/cohort.csv`: column field_strength)",
        "Patients by site: north (24), south (12).",
        "Of 36 patients 35 were preprocessed, 1 failed. Rejected at quality control: 1. (`../data/cohort.csv`: col",
        "Why: rejected at quality control: motion (1), FLAIR is \\*cut\\* off {here} (1).",
        "Not known, of 36 patients: onset of 1, side of 0, age of 1, sex of 0, NIHSS of 0.",
        "AdaBound, learning rate 1e-05 to 0.001, batches of 8. (`../phase4/best.pt`: settings.lr,",
        "Epoch 1 was kept, with a validation AUC of 0.765.",
        "Patients without a split of their own were divided with seed 7.",
    ):
        assert said in text


@pytest.mark.parametrize(("columns", "item"), [
    (("age", "sex", "nihss", "onset_to_mri_min"), "36"), (("site",), "7"), (("reader_1", "reader_2"), "17"),
])  # fmt: skip
def test_an_absent_column_has_to_be_written(evaluated, columns, item):
    _, run = evaluated
    rows = [{name: cell for name, cell in p.row.items() if name not in columns} for p in run.patients]
    without = run._replace(patients=[type(p)(row, p.folder) for p, row in zip(run.patients, rows, strict=True)])
    for there, known in ((run, True), (without, False)):
        body = re.search(rf"### {item}\. [^\n]+\n\n((?:- .*\n)+)", checklist.checklist(facts_of(there), False))[1]
        assert (body == f"- {checklist.WRITE}\n") != known, body


def test_external_patients_beside_the_cohorts_own_are_counted_with_them(evaluated):
    _, run = evaluated
    rows = [p.row | ({"split": "external"} if p.split == "test" else {}) for p in run.patients]
    patients = [type(p)(row, p.folder) for p, row in zip(run.patients, rows, strict=True)]
    said = facts_of(run._replace(patients=patients, split="external"))["numbers"]
    assert [fact.text for fact in said] == ["36 patients: train 18, val 10, external 8."]


def test_a_recipe_without_early_stopping_is_not_said_to_have_patience(evaluated):
    _, run = evaluated
    (network,) = run.networks
    for recipe, length in (("paper", "At most 100 epochs, patience 10."),
                           ("extended", "100 epochs, the last one kept, without early stopping.")):  # fmt: skip
        checkpoint = network.checkpoint._replace(content=network.checkpoint.content | {"recipe": recipe})
        said = facts_of(run._replace(networks=[network._replace(checkpoint=checkpoint)]))["training"]
        assert [fact.text for fact in said if "epochs" in fact.text] == [length]


def test_a_key_that_a_file_lacks_is_not_said(evaluated):
    _, run = evaluated
    (network,) = run.networks
    for key, gone in (
        ("auc_ci", "AUC "),
        ("brier", "Brier"),
        ("tp", "True positives"),
        ("threshold_from", "Positive is c"),
    ):
        content = {name: value for name, value in network.metrics.content.items() if name != key}
        facts = facts_of(run._replace(networks=[network._replace(metrics=network.metrics._replace(content=content))]))
        assert not any(fact.text.startswith(gone) for said in facts.values() for fact in said), key


def test_the_card_says_what_it_is_not_for(evaluated):
    text = (evaluated[0] / model_card.NAME).read_text()
    assert model_card.NO_DEVICE in text and "**These patients are phantoms" in text
    assert [*re.findall("^## (.*)", text, re.M)] == [heading for heading, _, _ in model_card.SECTIONS]
    assert f"## Ethics\n\n- {checklist.WRITE}: consent" in text


def test_what_only_some_runs_have_is_said_too(evaluated):
    """Grad-CAM on lesions, failures counted both ways, a promise: written by their own classes, read by their keys."""
    _, run = evaluated
    (network,) = run.networks
    overlap = gradcam_overlap.summarise(np.full((2, 2, 3), 0.25), 0)
    lines = [Prediction(f"p{n}", "left", n % 2, 0.1 + 0.2 * n if n else None) for n in range(5)]
    more = {
        "gradcam": GradcamScores(2, 2, {}, overlap, {}, overlap, "as defined"),
        "over_all": over_all(lines, 0.5),
        "promise": Promise(
            promised=0.9, confidence=0.9, chosen_on=68, chosen_from="validation", lower=0.1, upper=None, n=8, unsure=7,
            ppv=None, npv=None,
        ),
    }  # fmt: skip
    metrics = network.metrics._replace(content={**network.metrics.content, **as_json(more)})
    facts = facts_of(run._replace(networks=[network._replace(metrics=metrics)]))
    assert [fact.text for fact in facts["maps"]] == ["Mean share of the map in the lesion 0.250 in 2 patients."]
    (said,) = (fact.text for fact in facts["over all"])
    assert said.startswith("Over all 5 cases, 1 of them without a prediction: AUC ")
    assert [fact.text for fact in facts["promise"]] == ["Promised PPV and NPV 0.9: 7 of 8 cases are unsure."]


def test_women_are_counted_of_those_whose_sex_is_known(evaluated):
    _, run = evaluated
    rows = [p.row | {"sex": "" if p.id in ("p28", "p29") else p.row["sex"]} for p in run.patients]
    some = run._replace(patients=[type(p)(row, p.folder) for p, row in zip(run.patients, rows, strict=True)])
    assert facts_of(some)["people"][-1].text.endswith(", test 3 of 6.")
