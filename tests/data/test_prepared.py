"""DATA: what is refused, with which words, and its paths."""

import json

import pytest

from tss.data import prepared
from tss.errors import InputError


def test_reading_unprepared_data_says_which_command_is_missing(tmp_path):
    with pytest.raises(InputError, match="python run_preprocess.py COHORT_CSV --out"):
        prepared.read_prepared(tmp_path)
    header = "patient,dwi,b0,flair,onset_to_mri_min,stroke_side"
    (tmp_path / "cohort.csv").write_text(f"{header}\np1,a.nii,b.nii,c.nii,120,left\n")
    with pytest.raises(InputError, match="no column split, status"):
        prepared.read_prepared(tmp_path)


def test_settings_without_a_grid_are_refused(tmp_path):
    (tmp_path / "settings.json").write_text('{"tools": "builtin"}')
    with pytest.raises(
        InputError, match="settings.json: grid is missing. Make .* again: run_preprocess.py with --overwrite"
    ):
        prepared.read_settings(tmp_path)


def test_settings_differ_where_both_know_of_them():
    one = {"tools": "builtin", "grid": [4, 4, 2], "reference": {"patient": "p", "landmarks": {"dwi": [1.0, 2.0, 3.0]}}}
    assert prepared.differing_settings(one, one) == prepared.differing_settings(one, {"grid": [4, 4, 2]}) == ""
    other = one | {"tools": "FSL", "reference": {"patient": "p", "landmarks": {"dwi": [1.0, 2.5, 3.0]}}}
    assert prepared.differing_settings(one, other) == "tools builtin, there FSL; its medians dwi 2, there dwi 2.5"


def test_a_reference_without_landmarks_of_every_channel_is_refused(tmp_path):
    landmarks = {name: [float(k) for k in range(1, 8)] for name in ("dwi", "t2w", "flair")}
    settings = {"grid": [4, 4, 2], "reference": {"patient": "p", "landmarks": landmarks}}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    assert prepared.read_settings(tmp_path) == settings
    landmarks["dwi"].pop()
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="reference.landmarks.dwi is .*, not a list of 7"):
        prepared.read_settings(tmp_path)
    del landmarks["dwi"], landmarks["t2w"]
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"reference.landmarks.(dwi|t2w) is missing"):
        prepared.read_settings(tmp_path)
