"""Advice that works: what a message says is done, to its end."""

import json
import shutil

import heads
import numpy as np
import pytest
from quick_preprocessing import no_bias_correction, no_pictures

import run_preprocess
import run_train
from tss.data import files
from tss.data.prepared import read_hemispheres, read_prepared
from tss.training.checkpoint import load_checkpoint

GRID = (16, 16, 8)


@pytest.fixture
def data(tmp_path, known_affines, monkeypatch):
    """Two patients and a function that preprocesses them into tmp_path/data; it has done so once."""
    no_pictures(monkeypatch)
    no_bias_correction(monkeypatch)
    table, atlas = heads.write_cohort(tmp_path, 2), heads.write_atlas(tmp_path / "atlas.nii.gz")
    words = [str(table), "--out", str(tmp_path / "data"), "--atlas", str(atlas), "--tools", "builtin", "--grid"]

    def again(*more):
        return run_preprocess.main([*words, *map(str, GRID), *more])

    assert again() == 0
    return again


@pytest.mark.parametrize("text", ['{"grid": [16', '{"tools": "builtin"}', '{"grid": "x"}', "[" * 100000, None])
def test_settings_that_are_damaged_or_gone(data, tmp_path, capsys, text):
    settings = tmp_path / "data" / "settings.json"
    splits = {patient.id: patient.split for patient in read_prepared(tmp_path / "data")}
    settings.unlink() if text is None else settings.write_text(text)
    assert data() == 2 and "--overwrite" in capsys.readouterr().err
    assert data("--overwrite") == 0 and data() == 0
    assert {patient.id: patient.split for patient in read_prepared(tmp_path / "data")} == splits


@pytest.mark.parametrize(
    ("key", "value"), [("status", "done"), ("flags", None), ("scans", []), ("measures", {"a": "b"}), ("patient", "p9")]
)
def test_a_record_that_is_damaged(data, tmp_path, capsys, key, value):
    record = tmp_path / "data" / "transforms" / "p1.json"
    good = json.loads(record.read_text())
    record.write_text(json.dumps(good | {key: value}))
    assert data() == 2
    assert (
        f"p1.json: {key}" in (said := capsys.readouterr().err) and "Delete it and run run_preprocess.py again" in said
    )
    record.unlink()
    assert data() == 0 and json.loads(record.read_text()) == good
    assert {patient.status for patient in read_prepared(tmp_path / "data")} == {"ok"}


@pytest.mark.parametrize(
    "spoil", [lambda a: a.astype(">f2"), lambda a: a.astype(float), lambda a: a * 0, lambda a: a + np.nan]
)
def test_hemispheres_that_are_damaged_are_made_again(data, tmp_path, spoil):
    file = tmp_path / "data" / "hemispheres" / "p1.npy"
    good = read_hemispheres(tmp_path / "data", "p1", GRID)
    np.save(file, spoil(good))
    with pytest.raises(files.InputError, match="Delete .*p1.json and run run_preprocess.py again"):
        read_hemispheres(tmp_path / "data", "p1", GRID)
    assert data() == 0
    assert np.array_equal(read_hemispheres(tmp_path / "data", "p1", GRID), good)


def test_a_best_checkpoint_that_is_damaged(tiny_data, tmp_path, no_drawing, capsys):
    words = ["--phase", "1", "--data", str(tiny_data), "--out", str(tmp_path), "--width", "4", "--device", "cpu"]
    words += ["--epochs", "1"]
    assert run_train.main(words) == 0
    best = tmp_path / "phase1" / "best.pt"
    good = load_checkpoint(best)
    best.write_bytes(best.read_bytes()[:-100])
    next_phase = [
        "--phase",
        "2",
        "--data",
        str(tiny_data),
        "--out",
        str(tmp_path),
        "--init",
        str(best),
        "--epochs",
        "1",
    ]
    assert run_train.main(next_phase) == 2 and "--resume continues from last.pt" in capsys.readouterr().err
    assert run_train.main([*words, "--resume"]) == 0
    assert load_checkpoint(best)["epoch"] == good["epoch"]
    shutil.rmtree(tmp_path / "phase2", ignore_errors=True)
    assert run_train.main(next_phase) == 0
