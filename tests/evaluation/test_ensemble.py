"""Folds and seeds as one model, as run_eval.py takes them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from untrained import save_checkpoint

import run_eval
from tss.data.prepared import read_prepared
from tss.errors import InputError
from tss.evaluation import ensemble
from tss.evaluation.ensemble import ALIKE, as_ensemble
from tss.evaluation.inference import Model, open_models
from tss.metrics import youden_threshold
from tss.metrics.platt import AS_IT_IS

PHASES = (1, 4)


def validated_on(patients, fold, parts, seed=0):
    """Made-up validation of a fold: logits that tell the classes apart a little, one hemisphere a patient."""
    rng = np.random.default_rng([fold, seed])
    mine = [patient for number, patient in enumerate(patients) if number % parts == fold - 1]
    labels = [int(patient.minutes < 270) for patient in mine]
    return {
        "logits": (rng.normal(size=len(mine)) + np.array(labels)).tolist(),
        "labels": labels,
        "patients": [patient.id for patient in mine],
        "sides": ["left"] * len(mine),
    }


@pytest.fixture(scope="module")
def folds(scanned, tmp_path_factory):
    """Checkpoints of three folds, phases 1 and 4; returns a function that gives the paths of a phase."""
    runs, data = tmp_path_factory.mktemp("folds"), scanned / "data"
    learned = [patient for patient in read_prepared(data) if patient.split in ("train", "val")]
    for fold in (1, 2, 3):
        for phase in PHASES:
            preprocessing = json.loads((data / "settings.json").read_text())
            save_checkpoint(
                runs / f"fold{fold}" / f"phase{phase}" / "best.pt",
                phase,
                data,
                seed=10 * fold + phase,
                settings={"fold": f"{fold}/3", "preprocessing": preprocessing},
                validation=validated_on(learned, fold, 3),
            )
    return lambda phase=4, of=(1, 2, 3): [str(runs / f"fold{fold}" / f"phase{phase}" / "best.pt") for fold in of]


def run(scanned, out, paths, *more):
    common = ["--data", str(scanned / "data"), "--out", str(out), "--device", "cpu", "--gradcam", "0"]
    return run_eval.main([*paths, *common, *more])


def table(out):
    with open(out / "predictions.csv", newline="") as file:
        return {line["patient"]: line for line in csv.DictReader(file)}


def logit(text):
    return np.log(float(text) / (1 - float(text)))


def test_its_logit_is_the_mean_of_theirs_recalibrated_by_the_out_of_fold_predictions(scanned, folds, tmp_path):
    assert run(scanned, tmp_path / "one", folds(), "--ensemble") == 0
    for number, path in enumerate(folds()):
        assert run(scanned, tmp_path / str(number), [path]) == 0
    whole, parts = table(tmp_path / "one"), [table(tmp_path / str(number)) for number in range(3)]
    model = as_ensemble(open_models(folds()))
    for name, line in whole.items():
        if line["side_from"] != "table":  # of strokes on both sides each member may find another one likelier
            continue
        mean = np.mean([logit(part[name]["probability"]) for part in parts])
        assert logit(line["probability"]) == pytest.approx(model.line.of(mean), abs=1e-5)
    metrics = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert metrics["name"] == "ensemble-of-3" and metrics["checkpoint"] == ", ".join(folds())
    assert metrics["threshold"] == model.threshold


def test_threshold_and_calibration_are_of_everybody_but_the_test_patients(scanned, folds):
    model = as_ensemble(open_models(folds()))
    pooled = model.checkpoint["validation"]
    assert set(pooled["patients"]) == {p.id for p in read_prepared(scanned / "data") if p.split in ("train", "val")}
    cut = youden_threshold(pooled["labels"], pooled["logits"])
    assert logit(model.threshold) == pytest.approx(model.line.of(cut)) and model.line.slope > 0


def test_seeds_are_averaged_patient_by_patient(folds, scanned, tmp_path):
    learned = [patient for patient in read_prepared(scanned / "data") if patient.split == "val"]
    given = [validated_on(learned, 1, 1, seed) for seed in (1, 2)]
    paths = [
        save_checkpoint(tmp_path / f"seed{seed}" / "best.pt", 4, scanned / "data", validation=validation)
        for seed, validation in enumerate(given)
    ]
    model = as_ensemble(open_models(paths))
    assert model.checkpoint["validation"]["logits"] == pytest.approx(np.mean([v["logits"] for v in given], axis=0))


def test_seeds_are_judged_by_validation_as_one_network_is(scanned, tmp_path):
    paths = [save_checkpoint(tmp_path / name / "best.pt", 4, scanned / "data", seed=n) for n, name in enumerate("ab")]
    assert run(scanned, tmp_path / "eval", paths, "--ensemble", "--promise", "0.8") == 0
    found = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert found["threshold_from"] == found["promise"]["chosen_from"] == "validation"
    assert not any("approximate" in note for note in found["notes"])


def test_the_picture_is_drawn_and_phase_1_of_each_fold_finds_the_side(scanned, folds, tmp_path):
    assert run(scanned, tmp_path, folds(), "--ensemble", "--gradcam", "1", "--overwrite") == 0
    assert len(list((tmp_path / "gradcam").glob("*.png"))) == 1


@pytest.mark.parametrize(("which", "message"), [
    (lambda folds: folds(of=(1, 2)), "has no checkpoint of fold 3 of 3.*--fold 3/3"),
    (lambda folds: folds(of=(1,)), "needs two checkpoints or more"),
    (lambda folds: [*folds(of=(1, 2)), *folds(1, (3,))], "has phase 4, .* has 1: they are no ensemble"),
])  # fmt: skip
def test_what_is_no_ensemble_is_refused(folds, which, message):
    with pytest.raises(InputError, match=message):
        as_ensemble(open_models(which(folds)))


def test_folds_and_a_model_without_one_are_refused(scanned, folds, tmp_path):
    other = save_checkpoint(tmp_path / "best.pt", 4, scanned / "data")
    with pytest.raises(InputError, match="trained with one N of --fold K/N"):
        as_ensemble(open_models([*folds(), other]))


def test_members_without_their_validation_are_refused(scanned, tmp_path):
    paths = [
        save_checkpoint(tmp_path / name / "best.pt", 4, scanned / "data", validation={"logits": []}) for name in "ab"
    ]
    with pytest.raises(InputError, match="holds no predictions of its validation patients"):
        as_ensemble(open_models(paths))


def test_maps_of_an_ensemble_are_not_scored(scanned, folds, tmp_path, capsys):
    assert run(scanned, tmp_path / "x", folds(), "--ensemble", "--gradcam-scores") == 2
    assert "--gradcam-scores measures single networks" in capsys.readouterr().err


def member(name, **settings):
    """A model of which the likelier are positive less often, out of fold."""
    validation = {
        "patients": [f"{name}{n}" for n in range(40)], "sides": ["left"] * 40,
        "logits": [1.0] * 20 + [-1.0] * 20, "labels": [0] * 18 + [1] * 20 + [0] * 2,
    }  # fmt: skip
    about = dict.fromkeys(ALIKE, 1) | {"settings": settings, "patients_seen": {}, "validation": validation}
    return Model(Path(name), name, torch.nn.Identity(), about)


def test_scores_that_say_the_opposite_are_not_turned_round():
    assert as_ensemble([member("a"), member("b")]).line == AS_IT_IS


def test_members_of_other_preprocessing_are_refused():
    reference = [{"patient": name, "landmarks": {"dwi": [1.0] * 7}} for name in ("p1", "p2")]
    one, other = (member(name, preprocessing={"reference": ref}) for name, ref in zip("ab", reference, strict=True))
    with pytest.raises(
        InputError, match="a and b were trained .* different settings: histogram reference p1, there p2"
    ):
        as_ensemble([one, other])


def test_one_fold_twice_and_the_other_once_are_no_ensemble():
    folds = [member(name, fold=fold) for name, fold in (("a", "1/2"), ("b", "2/2"), ("c", "1/2"), ("d", "2/2"))]
    with pytest.raises(InputError, match=r"equally many checkpoints of each fold, and has \{1: 2, 2: 1\}"):
        as_ensemble(folds[:3])
    assert len(as_ensemble(folds).files) == 4


def test_a_patient_that_two_members_label_differently_is_refused():
    one, other = member("a"), member("a")
    labels = [1 - other.checkpoint["validation"]["labels"][0], *other.checkpoint["validation"]["labels"][1:]]
    changed = {"validation": other.checkpoint["validation"] | {"labels": labels}}
    with pytest.raises(InputError, match="the label of a0 is another than in a"):
        as_ensemble([one, other._replace(checkpoint=other.checkpoint | changed)])


def test_where_one_member_has_no_phase_1_nobody_finds_the_side(monkeypatch):
    beside = {"a": member("x"), "b": member("y"), "c": None}
    monkeypatch.setattr(ensemble, "side_picker", lambda model, _: beside[model.name])
    assert ensemble.picker_of([member("a"), member("c")]) is None
    assert ensemble.picker_of([member("a"), member("b")]).name == "ensemble-of-2"
