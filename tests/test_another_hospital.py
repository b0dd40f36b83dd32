"""Trained on one hospital's phantoms, scored on another's: as a user types it, labelled or not."""

import csv
import json
import shutil
from dataclasses import replace

import nibabel
import pytest
from heads import COARSE
from quick_preprocessing import no_pictures, no_registration

import run_eval
import run_preprocess
import run_train
from tss.data import nifti
from tss.phantom import make_cohort, write_atlas
from tss.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

GRID = ("48", "56", "10")
SPLITS = ["train"] * 2 + ["val"] * 2 + ["test"]
MINUTES = [100, 300, 100, 300, 100]  # each class of each task in each split
OTHER_SCANNER = replace(COARSE, bias=(0.2, 0.35), snr=(14.0, 20.0), tilt=14.0)


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def preprocess(table, out, atlas, *more):
    return run_preprocess.main([str(table), "--out", str(out), "--atlas", str(atlas), *more])


def evaluate(checkpoint, data, out, *more):
    words = [str(checkpoint), "--data", str(data), "--out", str(out), "--device", "cpu", "--gradcam", "0"]
    return run_eval.main([*words, *more])


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Hospital A, preprocessed without registration and trained on; hospital B's scans, from another scanner."""
    folder = tmp_path_factory.mktemp("hospitals")
    write_atlas(folder / "atlas.nii.gz")
    table = make_cohort(folder / "a", len(SPLITS), seed=3, difficulty=COARSE, progress=False)
    rows = read(table)
    for row, split, minutes in zip(rows, SPLITS, MINUTES, strict=True):
        row |= {"split": split, "onset_to_mri_min": minutes, "field_strength": "1.5"}
    write(table, rows)
    words = ["--tools", "builtin", "--grid", *GRID]
    with pytest.MonkeyPatch.context() as monkeypatch:
        no_registration(monkeypatch)
        no_pictures(monkeypatch)
        assert preprocess(table, folder / "data", folder / "atlas.nii.gz", *words) == 0
    train = ["--data", str(folder / "data"), "--out", str(folder / "runs"), "--epochs", "1"]
    assert run_train.main(["--phase", "all", "--model", "2d", "--width", "4", *train]) == 0
    other = make_cohort(folder / "b", 3, seed=11, difficulty=OTHER_SCANNER, progress=False)
    rows = read(other)
    for row, minutes in zip(rows, (90, 400, 800), strict=True):
        row |= {"onset_to_mri_min": minutes, "field_strength": "3"}
    write(other, rows)
    unlabelled = [{name: row[name] for name in ("patient", "dwi", "b0", "flair")} for row in rows]
    write(folder / "b" / "unlabelled.csv", unlabelled)
    return folder


@pytest.fixture
def quick(known_affines, monkeypatch):
    """As hospital A was preprocessed: where it matters who is scored, and not by what number."""
    no_pictures(monkeypatch)


@pytest.fixture(scope="module")
def scored(here, tmp_path_factory):
    """B, unlabelled, prepared and scored by two commands."""
    out = tmp_path_factory.mktemp("unlabelled")
    checkpoint = here / "runs" / "phase4" / "best.pt"
    table = here / "b" / "unlabelled.csv"
    assert preprocess(table, out / "data", here / "atlas.nii.gz", "--like", str(checkpoint)) == 0
    assert evaluate(checkpoint, out / "data", out / "eval", "--report") == 0
    return out


def test_patients_without_labels_are_prepared_like_the_training_patients_and_all_are_scored(here, scored):
    own, other = (json.loads((folder / "data" / "settings.json").read_text()) for folder in (here, scored))
    assert other["reference"] == own["reference"] and other["grid"] == own["grid"] == [48, 56, 10]
    assert {row["split"] for row in read(scored / "data" / "cohort.csv")} == {"external"}
    lines = read(scored / "eval" / "predictions.csv")
    assert len(lines) == 3 and all(0 < float(line["probability"]) < 1 for line in lines)
    assert {line["label"] for line in lines} == {""} and {line["side_from"] for line in lines} == {"phase 1"}
    metrics = json.loads((scored / "eval" / "metrics.json").read_text())
    assert (metrics["n"], metrics["auc"], metrics["split"]) == (0, None, "external")
    assert len(metrics["coverage"]["label_unknown"]) == 3


def test_probabilities_are_those_of_one_patient_at_a_time_to_the_last_bit(here, scored, tmp_path):
    for line in read(scored / "eval" / "predictions.csv")[:2]:
        scans = [str(here / "b" / "scans" / f"{line['patient']}_{name}.nii.gz") for name in ("dwi", "b0", "flair")]
        words = ["--patient", *scans, "--atlas", str(here / "atlas.nii.gz"), "--device", "cpu", "--gradcam", "0"]
        out = tmp_path / line["patient"]
        assert run_eval.main([str(here / "runs" / "phase4" / "best.pt"), *words, "--out", str(out)]) == 0
        (result,) = json.loads((out / "result.json").read_text())["results"]
        assert result["probability"] == float(line["probability"])
        assert set(line) <= set(result)


def test_labelled_patients_are_scored_and_the_report_says_what_they_are(here, tmp_path):
    checkpoint = here / "runs" / "phase4" / "best.pt"
    like = ["--like", str(checkpoint), "--jobs", "2"]
    assert preprocess(here / "b" / "cohort.csv", tmp_path / "data", here / "atlas.nii.gz", *like) == 0
    assert evaluate(checkpoint, tmp_path / "data", tmp_path / "eval", "--report") == 0
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert (metrics["n"], metrics["n_positive"]) == (3, 1) and metrics["auc"] is not None
    assert any("External patients" in note for note in metrics["notes"])
    page = (tmp_path / "eval" / "report.html").read_text()
    assert "external" in page and "No other hospital" not in page
    assert "has no training patients to fit it to" in page


def test_a_patient_that_the_network_has_learned_from_is_named_and_refused(here, tmp_path, quick, capsys):
    checkpoint = here / "runs" / "phase4" / "best.pt"
    learned = read(here / "a" / "cohort.csv")[3]  # in validation
    shutil.copytree(here / "b", tmp_path / "b")
    smuggled = {"patient": "newcomer"}
    for name in ("dwi", "b0", "flair"):  # under another name, not compressed
        image = nibabel.load(here / "a" / learned[name])
        nibabel.save(image, tmp_path / "b" / f"newcomer_{name}.nii")
        smuggled[name] = f"newcomer_{name}.nii"
    table = write(tmp_path / "b" / "more.csv", [*read(tmp_path / "b" / "unlabelled.csv")[:1], smuggled])
    assert preprocess(table, tmp_path / "data", here / "atlas.nii.gz", "--like", str(checkpoint)) == 0
    assert f"has learned from this patient, there {learned['patient']}" in capsys.readouterr().out
    assert evaluate(checkpoint, tmp_path / "data", tmp_path / "eval") == 2
    said = capsys.readouterr().err
    assert f"learned from 1 of these patients: newcomer (there {learned['patient']})" in said
    assert not (tmp_path / "eval").exists()


def test_what_is_not_the_checkpoints_is_refused_before_any_work(here, scored, tmp_path, capsys):
    checkpoint, table = here / "runs" / "phase4" / "best.pt", here / "b" / "unlabelled.csv"
    atlas = nifti.load(here / "atlas.nii.gz")
    nifti.save(tmp_path / "other.nii.gz", atlas.data * 2, atlas.affine)
    assert preprocess(table, tmp_path / "data", tmp_path / "other.nii.gz", "--like", str(checkpoint)) == 2
    assert "different settings from its own: atlas (SHA-256) " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        preprocess(table, tmp_path / "data", here / "atlas.nii.gz", "--like", str(checkpoint), "--grid", *GRID)
    assert "--grid is the checkpoint's with --like" in capsys.readouterr().err
    assert preprocess(table, tmp_path / "data", here / "atlas.nii.gz", "--like", str(tmp_path / "no.pt")) == 2
    assert "no.pt cannot be read" in capsys.readouterr().err
    words = ["--tools", "builtin", "--grid", *GRID]
    assert preprocess(table, scored / "data", here / "atlas.nii.gz", *words) == 2
    assert "--like was given, now not given" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_the_same_command_skips_who_is_finished(here, scored, tmp_path, capsys):
    shutil.copytree(scored / "data", tmp_path / "data")
    (tmp_path / "data" / "transforms" / "p002.json").unlink()
    like = ["--like", str(here / "runs" / "phase4" / "best.pt")]
    assert preprocess(here / "b" / "unlabelled.csv", tmp_path / "data", here / "atlas.nii.gz", *like) == 0
    assert "2 of 3 patients are already finished and skipped" in capsys.readouterr().out
    hemispheres = [folder / "data" / "hemispheres" / "p002.npy" for folder in (scored, tmp_path)]
    assert hemispheres[0].read_bytes() == hemispheres[1].read_bytes()


def test_patients_added_to_ones_own_cohort_are_external_and_no_model_is_refused(here, tmp_path, quick, capsys):
    shutil.copytree(here / "data", tmp_path / "data")
    rows = read(here / "a" / "cohort.csv")
    added = read(here / "b" / "cohort.csv")[0]
    new = {name: added.get(name, "") for name in rows[0]} | {"patient": "late", "split": ""}
    new |= {name: str(here / "b" / added[name]) for name in ("dwi", "b0", "flair", "lesion")}
    table = write(here / "a" / "later.csv", [*rows, new])
    checkpoint, words = here / "runs" / "phase4" / "best.pt", ["--tools", "builtin", "--grid", *GRID]
    assert preprocess(table, tmp_path / "data", here / "atlas.nii.gz", *words) == 0
    assert (
        "1 patients without a split have come since it was drawn (late): they are external" in capsys.readouterr().out
    )
    assert evaluate(checkpoint, tmp_path / "data", tmp_path / "test") == 0
    assert evaluate(checkpoint, tmp_path / "data", tmp_path / "late", "--split", "external") == 0
    assert [line["patient"] for line in read(tmp_path / "late" / "predictions.csv")] == ["late"]
    # And with a split of one's own, which makes another cohort: nobody in its test set has been seen.
    table = write(here / "a" / "later.csv", [*rows, new | {"split": "test"}])
    assert preprocess(table, tmp_path / "data", here / "atlas.nii.gz", *words) == 0
    assert evaluate(checkpoint, tmp_path / "data", tmp_path / "two") == 0
    assert len(read(tmp_path / "two" / "predictions.csv")) == 2
    # But a training patient may not become a test patient.
    table = write(here / "a" / "later.csv", [rows[0] | {"split": "test"}, *rows[1:]])
    assert preprocess(table, tmp_path / "again", here / "atlas.nii.gz", *words) == 0
    assert evaluate(checkpoint, tmp_path / "again", tmp_path / "no") == 2
    assert f"learned from 1 of these patients: {rows[0]['patient']}" in capsys.readouterr().err


def test_the_checkpoint_knows_its_patients_by_their_scans(here):
    content = load_checkpoint(here / "runs" / "phase4" / "best.pt")
    seen = content["patients_seen"]
    learned = [
        row["patient"] for row, split in zip(read(here / "a" / "cohort.csv"), SPLITS, strict=True) if split != "test"
    ]
    assert sorted(seen) == sorted(learned) and all(len(scans) == 3 for scans in seen.values())
