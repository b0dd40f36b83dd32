"""The split: its shares in every stratum, what it depends on, and what it leaves as it was."""

from pathlib import Path

import numpy as np
import pytest

from tss.data import cohort, splits
from tss.errors import InputError


def people(n, **columns):
    rng = np.random.default_rng(5)
    rows = [
        {
            "patient": f"p{i}",
            "onset_to_mri_min": str(int(rng.integers(30, 900))),
            "status": "ok",
            "stroke_side": str(rng.choice(["left", "right"])),
        }
        | columns
        for i in range(n)
    ]
    return [cohort.Patient(row, folder=None) for row in rows]


def test_the_split_is_64_16_20_and_even_in_every_stratum():
    patients = people(200)
    splits.assign_splits(patients, np.random.default_rng(0))
    assert [sum(p.split == name for p in patients) for name in cohort.SPLITS] == [128, 32, 40]
    for side in cohort.SIDES:
        for low, high in ((0, 180), (180, 270), (270, 1e9)):
            stratum = [p for p in patients if p.side == side and low <= p.minutes < high]
            in_test = sum(p.split == "test" for p in stratum)
            assert abs(in_test - 0.20 * len(stratum)) <= 1.5


def test_the_split_depends_on_the_seed_alone_and_keeps_what_is_given():
    first, again, other = people(50), people(50), people(50)
    for patients, seed in ((first, 1), (again, 1), (other, 2)):
        splits.assign_splits(patients, np.random.default_rng(seed))
    assert splits.split_hash(first) == splits.split_hash(again) != splits.split_hash(other)

    before = {p.id: p.split for p in first}
    joined = first + [cohort.Patient(p.row | {"patient": f"new-{p.id}", "split": ""}, None) for p in people(25)]
    splits.assign_splits(joined, np.random.default_rng(3))
    assert all(p.split == before[p.id] for p in joined if p.id in before)
    assert [sum(p.split == name for p in joined) for name in cohort.SPLITS] == [48, 12, 15]


def test_any_first_n_of_a_balanced_order_have_each_stratums_share():
    patients = people(200)
    ordered = splits.in_balance(patients, np.random.default_rng(0))
    assert sorted(p.id for p in ordered) == sorted(p.id for p in patients)
    strata = [splits.stratum(p) for p in patients]
    for n in (30, 60, 120, 200):
        for one in set(strata):
            expected = strata.count(one) * n / 200
            assert abs(sum(splits.stratum(p) == one for p in ordered[:n]) - expected) <= 1, (n, one)
    again = splits.in_balance(patients, np.random.default_rng(0))
    other = splits.in_balance(patients, np.random.default_rng(1))
    assert [p.id for p in ordered] == [p.id for p in again] != [p.id for p in other]


def test_fewer_training_patients_are_nested_and_nobody_else_is_touched():
    patients = people(272, split="train")
    for name, count in (("val", 10), ("test", 10)):
        patients += [cohort.Patient(p.row | {"patient": f"{name}-{p.id}", "split": name}, None) for p in people(count)]
    patients.append(cohort.Patient(patients[0].row | {"patient": "broken", "status": "failed"}, None))
    chosen = {}
    for n in (34, 68, 136, 272):
        kept = splits.fewer_to_train(patients, n, seed=3)
        chosen[n] = {p.id for p in kept if p.split == "train" and p.status == "ok"}
        assert len(chosen[n]) == n and [p.id for p in kept if p.split != "train"] == [p.id for p in patients[272:-1]]
        assert kept[-1].id == "broken"  # counted among who failed, as ever
    assert chosen[34] < chosen[68] < chosen[136] < chosen[272]
    assert {p.id for p in splits.fewer_to_train(patients, 34, seed=4)} & chosen[34] != chosen[34]
    with pytest.raises(InputError, match="--train-patients 273: 272 patients in split 'train' are preprocessed"):
        splits.fewer_to_train(patients, 273, seed=3)


@pytest.mark.parametrize(("minutes", "band"), [("179.9", 0), ("180", 1), ("269.9", 1), ("270", 2), ("271", 2)])
def test_bands_end_at_180_and_270_minutes(minutes, band):
    patient = cohort.Patient({"patient": "p", "onset_to_mri_min": minutes, "stroke_side": "left"}, Path())
    assert splits.stratum(patient) == (True, band, "left")


def test_external_patients_change_no_hash():
    inside = [cohort.Patient({"patient": "p", "split": "train"}, Path())]
    outside = cohort.Patient({"patient": "q", "split": "external"}, Path())
    assert splits.split_hash([*inside, outside]) == splits.split_hash(inside)


def test_an_unknown_onset_is_a_stratum_of_its_own():
    unknown = cohort.Patient({"patient": "p", "onset_to_mri_min": "", "stroke_side": "left"}, Path())
    assert splits.stratum(unknown) == (False, 0, "left")


@pytest.mark.parametrize(
    ("n", "dealt"), [(1, [1, 0, 0]), (2, [1, 0, 1]), (3, [2, 0, 1]), (4, [2, 1, 1]), (5, [3, 1, 1])]
)
def test_each_patient_goes_where_most_are_missing_once_it_is_counted(n, dealt):
    """Of three, 1.92 belong in train, 0.48 in val and 0.6 in test: two, none and one."""
    patients = people(n, onset_to_mri_min="100", stroke_side="left")
    splits.assign_splits(patients, np.random.default_rng(0))
    assert [sum(p.split == name for p in patients) for name in ("train", "val", "test")] == dealt


def test_who_has_a_split_already_counts():
    given = people(8, onset_to_mri_min="100", stroke_side="left", split="train")
    new = people(2, onset_to_mri_min="100", stroke_side="left")
    splits.assign_splits([*given, *new], np.random.default_rng(0))
    assert sorted(p.split for p in new) == ["test", "val"]  # train has more than its share
