"""The cohort table: what is refused and how it is said, labels, the split, Table 1."""

import numpy as np
import pytest

from tss.data import cohort, prepared, splits, tasks
from tss.display import tables
from tss.errors import InputError

HEADER = "patient,dwi,b0,flair,onset_to_mri_min,stroke_side"
GOOD = "p1,a.nii,b.nii,c.nii,120,left"


def table(folder, *lines, header=HEADER):
    path = folder / "cohort.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_a_good_row_is_read_with_its_unknown_columns(tmp_path):
    path = table(tmp_path, GOOD + ",7 T", header=HEADER + ",scanner")
    (patient,) = cohort.read_cohort(path)
    assert (patient.id, patient.minutes, patient.side) == ("p1", 120.0, "left")
    assert patient.row["scanner"] == "7 T"
    assert patient.path("dwi") == tmp_path / "a.nii"
    assert patient.path("adc") is None


def test_unknown_time_and_side_and_excels_byte_order_mark(tmp_path):
    path = tmp_path / "cohort.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"{HEADER}\r\np1,a,b,c,,\r\n".encode())
    (patient,) = cohort.read_cohort(path)
    assert (patient.minutes, patient.side) == (None, "")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("p1,a,b,c,-5,left", "line 2: onset_to_mri_min is '-5'; write minutes above 0"),
        ("p1,a,b,c,0,left", "onset_to_mri_min is '0'"),
        ("p1,a,b,c,3h,left", "onset_to_mri_min is '3h'"),
        ("p1,a,b,c,nan,left", "onset_to_mri_min is 'nan'"),
        ("p1,a,b,c,120,L", "stroke_side is 'L'; write left, right or both"),
        ("../p1,a,b,c,120,left", "patient '../p1' cannot name a file"),
        ("p/1,a,b,c,120,left", "patient 'p/1' cannot name a file"),
        ("p..1,a,b,c,120,left", "patient 'p..1' cannot name a file"),
        (",a,b,c,120,left", "patient '' cannot name a file"),
        ("p1,,b,c,120,left", "dwi is empty"),
        ("p1,a,,c,120,left", "neither b0 nor adc is given"),
        ("p1,a,b,c,120,left,x", "line 2: 7 cells where the header has 6"),
        ("p1,a,b,c,120", "line 2: 5 cells where the header has 6"),
    ],
)
def test_a_bad_row_is_named_by_file_line_problem_and_remedy(tmp_path, row, message):
    path = table(tmp_path, row)
    with pytest.raises(InputError) as refusal:
        cohort.read_cohort(path)
    assert message in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_unknown_split_word_and_duplicates_are_refused_together(tmp_path):
    path = table(tmp_path, GOOD + ",train", GOOD.replace("p1", "P1") + ",testing", header=HEADER + ",split")
    with pytest.raises(InputError) as refusal:
        cohort.read_cohort(path)
    assert "line 3: split is 'testing'; write train, val or test" in str(refusal.value)
    assert "line 3: patient 'P1' is already on line 2" in str(refusal.value)


def test_readings_are_0_or_1_or_empty(tmp_path):
    header = HEADER + ",reader_1,reader_2,reader_notes"
    (patient,) = cohort.read_cohort(table(tmp_path, GOOD + ",1,,sharp", header=header))
    assert patient.readings == {"reader_1": 1}
    with pytest.raises(InputError, match="line 2: reader_2 is 'yes'; write 1 = DWI-FLAIR mismatch, 0 = none"):
        cohort.read_cohort(table(tmp_path, GOOD + ",1,yes,sharp", header=header))


def test_a_labs_own_column_is_not_lost_under_a_name_of_ours(tmp_path):
    with pytest.raises(InputError, match="line 2: status is 'discharged'; this column is run_preprocess.py's, which"):
        cohort.read_cohort(table(tmp_path, GOOD + ",discharged", header=HEADER + ",status"))
    with pytest.raises(InputError, match="line 2: reason is 'fell'; this column is run_preprocess.py's: rename yours"):
        cohort.read_cohort(table(tmp_path, GOOD + ",fell", header=HEADER + ",reason"))
    (patient,) = cohort.read_cohort(table(tmp_path, GOOD + ",ok,motion", header=HEADER + ",status,flags"))
    assert patient.row["flags"] == "motion"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (HEADER.replace(",flair", ""), "column flair is missing"),
        (HEADER.replace("b0", "bzero"), "column b0 (or adc) is missing"),
        (HEADER + ",dwi", "column dwi stands twice"),
        (HEADER.replace(",", ";"), "is missing"),
    ],
)
def test_a_bad_header_is_refused(tmp_path, header, message):
    with pytest.raises(InputError, match="column") as refusal:
        cohort.read_cohort(table(tmp_path, GOOD, header=header))
    assert message in str(refusal.value)


def test_missing_empty_and_binary_tables_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        cohort.read_cohort(tmp_path / "none.csv")
    with pytest.raises(InputError, match="has no patients"):
        cohort.read_cohort(table(tmp_path))
    (tmp_path / "cohort.csv").write_bytes(b"\x1f\x8b\x08\xff\xfe")
    with pytest.raises(InputError, match="not a text file"):
        cohort.read_cohort(tmp_path / "cohort.csv")


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
    with pytest.raises(InputError, match="--train-patients 273: of the patients in split 'train' 272 are prepared"):
        splits.fewer_to_train(patients, 273, seed=3)


def test_labels_of_each_task_come_from_one_time_column():
    def patient(name, minutes, side, status="ok"):
        return cohort.Patient(
            {"patient": name, "onset_to_mri_min": minutes, "stroke_side": side, "split": "train", "status": status},
            None,
        )

    patients = [
        patient("a", "179.9", "left"),
        patient("b", "180", "right"),
        patient("c", "270", "both"),
        patient("unknown time", "", "left"),
        patient("unknown side", "100", ""),
        patient("failed", "100", "left", "failed"),
    ]
    assert tasks.samples(patients, "stroke", "train") == [
        ("a", "left", 1),
        ("a", "right", 0),
        ("b", "left", 0),
        ("b", "right", 1),
        ("c", "left", 1),
        ("c", "right", 1),
        ("unknown time", "left", 1),
        ("unknown time", "right", 0),
    ]
    assert tasks.samples(patients, "tss<3h", "train") == [
        ("a", "left", 1),
        ("b", "right", 0),
        ("c", "left", 0),
        ("c", "right", 0),
    ]
    assert tasks.samples(patients, "tss<4.5h", "train") == [
        ("a", "left", 1),
        ("b", "right", 1),
        ("c", "left", 0),
        ("c", "right", 0),
    ]
    assert tasks.samples(patients, "stroke", "test") == []


def test_whom_quality_control_rejects_takes_no_part_and_the_split_stays_the_same():
    patients = people(6, split="train")
    before = splits.split_hash(patients)
    patients[0].row |= {"verdict": "reject", "verdict_remark": "eyes in\n the mask"}
    patients[1].row |= {"verdict": "reject"}
    patients[2].row |= {"verdict": "accept", "verdict_remark": "fine"}
    patients[3].row |= {"verdict": "unsure"}
    patients[4].row |= {"status": "failed", "reason": "no b0", "verdict": "reject"}
    patients[5].row |= {"status": ""}
    assert [p.status for p in patients] == ["rejected", "rejected", "ok", "ok", "failed", ""]
    assert [p.reason for p in patients] == [
        "rejected at quality control: eyes in the mask",
        "rejected at quality control",
        "",
        "",
        "no b0",
        "not preprocessed",
    ]
    for task in (*tasks.TASKS, tasks.RESTORE):
        assert {sample.patient for sample in tasks.samples(patients, task, "train")} == {"p2", "p3"}
    assert splits.split_hash(patients) == before


def test_a_misspelt_verdict_is_refused_rather_than_ignored(tmp_path):
    with pytest.raises(InputError, match="line 2: verdict is 'rejected'; write accept, reject or unsure"):
        cohort.read_cohort(table(tmp_path, GOOD + ",rejected", header=HEADER + ",verdict"))


def test_a_written_table_finds_the_scans_from_its_new_place(tmp_path):
    path = table(tmp_path, GOOD)
    patients = cohort.read_cohort(path)
    patients[0].row |= {"split": "train", "status": "ok"}
    cohort.write_cohort(tmp_path / "out" / "data" / "cohort.csv", patients)
    (again,) = prepared.read_prepared(tmp_path / "out" / "data")
    assert again.path("dwi").resolve() == (tmp_path / "a.nii").resolve()
    assert again.status == "ok"


def test_reading_unprepared_data_says_which_command_is_missing(tmp_path):
    with pytest.raises(InputError, match="python run_preprocess.py COHORT_CSV --out"):
        prepared.read_prepared(tmp_path)
    table(tmp_path, GOOD)
    with pytest.raises(InputError, match="no column split, status"):
        prepared.read_prepared(tmp_path)


def test_table_1_by_hand():
    def patient(name, age, sex, minutes, split):
        return cohort.Patient(
            {
                "patient": name,
                "age": age,
                "sex": sex,
                "onset_to_mri_min": minutes,
                "stroke_side": "left",
                "split": split,
            },
            None,
        )

    lines = tables.table1(
        [
            patient("a", "60", "F", "100", "train"),
            patient("b", "70", "M", "200", "train"),
            patient("c", "80", "F", "", "test"),
        ]
    ).splitlines()
    cells = {line.split("  ")[0]: [cell for cell in line.split("  ")[1:] if cell] for line in lines}
    cells = {name: [cell.strip() for cell in row] for name, row in cells.items()}
    assert cells["Table 1"] == ["All", "train", "test"]
    assert cells["Age (years)"] == ["70 (65-75)", "65 (62-68)", "80 (80-80)"]
    assert cells["Female"] == ["2 (67%)", "1 (50%)", "1 (100%)"]
    assert cells["Onset to MRI (min)"] == ["150 (125-175), 1 unknown", "150 (125-175)", "-"]
    assert cells["TSS < 3 h"] == ["1 (33%)", "1 (50%)", "0 (0%)"]
    assert cells["NIHSS"] == ["-", "-", "-"]
