"""Raw scans through the three scripts, as a user types them: preprocess, train phase after phase, evaluate."""

import csv
import json

import numpy as np
import pytest
from heads import COARSE

import run_eval
import run_preprocess
import run_train
from tss.phantom import make_cohort, write_atlas

GRID = ("48", "56", "10")
SPLITS = ["train"] * 2 + ["val"] * 2 + ["test"] * 2
MINUTES = [100, 300] * 3  # each class of each task in each split


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Phantom scans as a scanner leaves them, with a table in which every split has each class."""
    folder = tmp_path_factory.mktemp("raw")
    write_atlas(folder / "atlas_t2w.nii.gz")
    table = make_cohort(folder, len(SPLITS), seed=3, difficulty=COARSE, progress=False)
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    for row, split, minutes in zip(rows, SPLITS, MINUTES, strict=True):
        row |= {"split": split, "onset_to_mri_min": minutes}
    with open(table, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.mark.slow
def test_raw_scans_become_a_table(raw, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    prepare = [str(raw / "cohort.csv"), "--out", "data", "--atlas", str(raw / "atlas_t2w.nii.gz"), "--tools", "builtin"]
    assert run_preprocess.main([*prepare, "--grid", *GRID]) == 0
    with open("data/cohort.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["split"] for row in rows] == SPLITS and {row["status"] for row in rows} == {"ok"}
    hemispheres = np.load(tmp_path / "data" / "hemispheres" / f"{rows[0]['patient']}.npy")
    assert hemispheres.shape == (2, 3, 10, 56, 24) and 0 <= hemispheres.min() < hemispheres.max() <= 1

    small = ["--epochs", "2", "--seed", "0"]
    assert run_train.main(["--phase", "1", "--width", "4", *small]) == 0
    for phase in ("2", "3", "4"):
        assert run_train.main(["--phase", phase, "--init", f"runs/2d/phase{int(phase) - 1}/best.pt", *small]) == 0

    checkpoints = [f"runs/2d/phase{phase}/best.pt" for phase in "1234"]
    assert run_eval.main([*checkpoints, "--table", "--gradcam", "0"]) == 0
    counts = {phase: json.loads((tmp_path / f"eval/phase{phase}/metrics.json").read_text())["n"] for phase in "1234"}
    with open("eval/phase4/predictions.csv", newline="") as file:
        predicted = {row["patient"]: row for row in csv.DictReader(file)}
    of_test = [row for row in rows if row["split"] == "test"]
    assert counts["1"] == 4 and set(predicted) == {row["patient"] for row in of_test}
    for row in of_test:
        assert predicted[row["patient"]]["label"] == str(int(float(row["onset_to_mri_min"]) < 270))
        assert 0 < float(predicted[row["patient"]]["probability"]) < 1
    with open("eval/table2.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) >= 4
    assert "phantom scores are not clinical results" in capsys.readouterr().out
