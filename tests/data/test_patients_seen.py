"""Patients are known again by their scans, not by their names."""

import json

from tss.data.cohort import Patient
from tss.data.patients_seen import find_seen, hashes_of, together, why_not_new

SEEN = {"p1": ["a", "b", "c"], "p2": ["d", "e", "f"]}


def test_hashes_come_from_the_records(tmp_path):
    (tmp_path / "transforms").mkdir()
    (tmp_path / "transforms" / "p1.json").write_text(json.dumps({"voxels": {"dwi": "b", "t2w": "a", "flair": "c"}}))
    (tmp_path / "transforms" / "p2.json").write_text("{}")
    patients = [Patient({"patient": name}, tmp_path) for name in ("p1", "p2", "p3")]
    assert hashes_of(tmp_path, patients) == {"p1": ["a", "b", "c"], "p2": [], "p3": []}


def test_one_common_scan_is_enough_and_names_do_not_count():
    assert find_seen({"p1": ["x", "y"], "new": ["z", "e"]}, SEEN) == {"new": "p2"}
    assert find_seen({"p1": []}, SEEN) == {}


def test_two_patients_of_one_name_keep_both_hashes():
    assert together({"p1": ["z"]}, SEEN) == {"p1": ["a", "b", "c", "z"], "p2": ["d", "e", "f"]}


def test_who_is_not_new_is_named_and_what_is_not_known_is_said():
    assert why_not_new({"q": ["x"]}, SEEN, False) == ""
    assert why_not_new({"q": ["x"], "r": ["a"]}, SEEN, False) == "learned from 1 of these patients: r (there p1)"
    assert "p1" in why_not_new({"p1": ["a"]}, SEEN, True)
    for here, seen in (({"q": []}, SEEN), ({"q": ["x"]}, {}), ({"q": ["x"]}, SEEN | {"p3": []})):
        assert "may have learned" in why_not_new(here, seen, False)
        assert why_not_new(here, seen, True) == ""
