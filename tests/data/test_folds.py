from collections import Counter
from pathlib import Path

import pytest

from tss.data.cohort import Patient
from tss.data.files import write_json
from tss.data.folds import draw_folds, folds_file, in_fold, read_folds
from tss.data.shards import Shard
from tss.data.splits import split_hash, stratum
from tss.errors import InputError


def a_patient(number):
    split = ("train", "train", "train", "val", "test", "external")[number % 6]
    minutes, side = ("60", "200", "900", "")[number % 4], ("left", "right", "both")[number % 3]
    row = {"patient": f"p{number}", "split": split, "onset_to_mri_min": minutes, "stroke_side": side, "status": "ok"}
    return Patient(row, Path())


@pytest.fixture
def cohort(tmp_path):
    write_json(tmp_path / "settings.json", {"grid": [32, 32, 4], "seed": 7})
    return [a_patient(number) for number in range(180)]


def test_every_patient_but_the_test_patients_is_validated_on_once(cohort, tmp_path):
    dealt = {patient.id for patient in cohort if patient.split in ("train", "val")}
    before, validated = split_hash(cohort), []
    for part in range(1, 6):
        fold = in_fold(tmp_path, cohort, Shard(part, 5))
        validated += [patient.id for patient in fold if patient.split == "val"]
        assert {patient.id for patient in fold if patient.split in ("train", "val")} == dealt
        assert [p.id for p in fold if p.split == "test"] == [p.id for p in cohort if p.split == "test"]
    assert len(validated) == len(dealt) == 120 and set(validated) == dealt
    assert split_hash(cohort) == before


def test_folds_are_even_in_band_and_side_and_by_seed(cohort):
    dealt = [patient for patient in cohort if patient.split in ("train", "val")]
    folds = draw_folds(dealt, 5, 0)
    assert set(Counter(folds.values()).values()) == {24}
    of = Counter((folds[patient.id], stratum(patient)) for patient in dealt)
    for group in set(map(stratum, dealt)):
        counts = [of[fold, group] for fold in range(1, 6)]
        assert max(counts) - min(counts) <= 1
    assert draw_folds(dealt, 5, 0) == folds != draw_folds(dealt, 5, 1)


def test_patients_who_failed_are_spread_over_the_folds(cohort):
    """Twelve of sixty without hemispheres, three in each of four folds: each fold trains on as many as the others."""
    dealt = [patient for patient in cohort if patient.split in ("train", "val")][:60]
    for patient in dealt[::5]:
        patient.row["status"] = "failed"
    folds = draw_folds(dealt, 4, 0)
    assert Counter(folds[patient.id] for patient in dealt if patient.status != "ok") == dict.fromkeys(range(1, 5), 3)
    assert Counter(folds.values()) == dict.fromkeys(range(1, 5), 15)


def test_they_are_written_once_and_read_ever_after(cohort, tmp_path):
    folds = read_folds(tmp_path, cohort, 4)
    path = folds_file(tmp_path, 4)
    swapped = path.read_text().replace("p0,", "x,").replace("p1,", "p0,").replace("x,", "p1,")
    path.write_text(swapped)
    again = read_folds(tmp_path, cohort, 4)
    assert (again["p0"], again["p1"]) == (folds["p1"], folds["p0"])


def test_what_cannot_be_is_refused(cohort, tmp_path):
    for parts in (1, 121):
        with pytest.raises(InputError, match=f"{parts} folds of 120 training and validation patients: give 2 to 120"):
            in_fold(tmp_path, cohort, Shard(1, parts))
    read_folds(tmp_path, cohort, 3)
    cohort[4].row["split"] = "train"
    with pytest.raises(InputError, match="folds_of_3.csv is of other patients than those in split 'train' or 'val'"):
        read_folds(tmp_path, cohort, 3)
    cohort[4].row["split"] = "test"
    folds_file(tmp_path, 3).write_text("patient,fold\np0,x\n")
    with pytest.raises(InputError, match="folds_of_3.csv is damaged"):
        read_folds(tmp_path, cohort, 3)


def test_the_folds_are_of_the_seed_of_the_split(cohort, tmp_path):
    dealt = [patient for patient in cohort if patient.split in ("train", "val")]
    assert read_folds(tmp_path, cohort, 4) == draw_folds(dealt, 4, 7) != draw_folds(dealt, 4, 0)


def test_a_patient_in_two_lines_is_refused(cohort, tmp_path):
    read_folds(tmp_path, cohort, 3)
    path = folds_file(tmp_path, 3)
    path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n")
    with pytest.raises(InputError, match="folds_of_3.csv is of other patients"):
        read_folds(tmp_path, cohort, 3)
