"""The cohort table: what is read, what is refused and how it is said."""

import pytest

from tss.data import cohort, prepared
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
        ("p1,a,a,c,120,left", "line 2: dwi and b0 are the same file, a; name the B0's own"),
        ("p1,a,b,./b,120,left", "line 2: b0 and flair are the same file, b"),
        ("p1,a,b,c,3.5,left", "onset_to_mri_min is '3.5'; nobody is scanned so soon after onset. Are these hours?"),
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
    assert "line 3: split is 'testing'; write train, val, test or external" in str(refusal.value)
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
        (HEADER + ",dwi", "column dwi appears twice"),
        (HEADER.replace("onset_to_mri_min", "Onset h"), "(is it 'Onset h'? then rename that one; it is in minutes)"),
        (HEADER.replace("stroke_side", "side"), "stroke_side (is it 'side'? then rename that one) is missing"),
        (HEADER + ",DWI ", "column dwi appears twice"),
    ],
)
def test_a_bad_header_is_refused(tmp_path, header, message):
    with pytest.raises(InputError, match="column") as refusal:
        cohort.read_cohort(table(tmp_path, GOOD, header=header))
    assert message in str(refusal.value)


def test_an_empty_cell_is_no_fault_of_the_table(tmp_path):
    """The row fails when its scans are read, with the reason, as a BIDS patient without FLAIR does."""
    patients = cohort.read_cohort(table(tmp_path, GOOD, "p2,a,b,,120,left", "p3,,b,c,120,left", "p4,a,,c,120,left"))
    assert [patient.id for patient in patients] == ["p1", "p2", "p3", "p4"]


def test_columns_of_labels_may_be_absent(tmp_path):
    (patient,) = cohort.read_cohort(table(tmp_path, "p1,a,b,c", header="patient,dwi,b0,flair"))
    assert (patient.minutes, patient.side, cohort.row_problems(patient.row)) == (None, "", [])


def test_sex_in_codes_is_asked_about(tmp_path):
    header = HEADER + ",sex"
    read = cohort.read_cohort(
        table(tmp_path, *(f"p{k},a,b,c,120,left,{sex}" for k, sex in enumerate(("F", "male", ""))), header=header)
    )
    assert [patient.row["sex"] for patient in read] == ["F", "male", ""]
    with pytest.raises(InputError, match="line 2: sex is '2'; codes are not guessed: write female, male"):
        cohort.read_cohort(table(tmp_path, GOOD + ",2", header=header))


def test_onsets_that_can_only_be_hours_are_asked_about(tmp_path):
    """Hours that are each possible as minutes are not, taken together; a few early patients are."""
    hours = (11, 14, 18.5, 23, 48, 70)
    with pytest.raises(InputError, match="half of the patients would have been scanned within 20.75 minutes .* hours"):
        cohort.read_cohort(table(tmp_path, *(f"p{k},a,b,c,{hour},left" for k, hour in enumerate(hours))))
    assert len(
        cohort.read_cohort(table(tmp_path, *(f"p{k},a,b,c,{m},left" for k, m in enumerate((20, 25, 40, 90, 95)))))
    )


def test_codes_for_an_unknown_onset_are_asked_about(tmp_path):
    """As a time 999 would make a patient of unknown onset one scanned after 17 hours: negative in both tasks."""
    with pytest.raises(InputError, match="onset_to_mri_min is 9999 of 1 patient: a code .* write 9999.0"):
        cohort.read_cohort(table(tmp_path, "p1,a,b,c,9999,left", "p2,a,b,c,95,left"))
    with pytest.raises(InputError, match="onset_to_mri_min is 999 of 2 patients: a code for unknown. Leave"):
        cohort.read_cohort(table(tmp_path, "p1,a,b,c,999,left", "p2,a,b,c,999,left", "p3,a,b,c,95,left"))
    known = cohort.read_cohort(table(tmp_path, "p1,a,b,c,999,left", "p2,a,b,c,999.0,left", "p3,a,b,c,9999.0,left"))
    assert [patient.minutes for patient in known] == [999, 999, 9999]


def test_excel_in_half_of_europe(tmp_path):
    """Semicolons, decimal commas, capitals and blanks in the header, empty columns and lines at the end."""
    header = "Patient;DWI;B0;FLAIR;Onset to MRI (min);Stroke side;AGE;Scanner;;"
    lines = ("p1;a, b.nii;b.nii;c.nii;95,5;Left;60,25;1,5 T;;", ";;;;;;;;;", "  ;;")
    (patient,) = cohort.read_cohort(table(tmp_path, *lines, header=header))
    assert patient.row == {
        "patient": "p1", "dwi": "a, b.nii", "b0": "b.nii", "flair": "c.nii", "onset_to_mri_min": "95.5",
        "stroke_side": "left", "age": "60.25", "Scanner": "1,5 T",
    }  # fmt: skip
    assert patient.minutes == 95.5


def test_missing_empty_and_binary_tables_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        cohort.read_cohort(tmp_path / "none.csv")
    with pytest.raises(InputError, match="has no patients"):
        cohort.read_cohort(table(tmp_path))
    (tmp_path / "cohort.csv").write_bytes(b"\x1f\x8b\x08\xff\xfe")
    with pytest.raises(InputError, match="not a text file"):
        cohort.read_cohort(tmp_path / "cohort.csv")


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
