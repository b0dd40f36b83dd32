"""A BIDS folder as a cohort: names of the specification and of practice, sidecars, tables, run_preprocess.py.

Where only names matter the images are empty files: nothing opens them before preprocessing.
"""

import csv
import json
import shutil

import heads
import numpy as np
import phantom_bids
import pytest
from quick_preprocessing import no_bias_correction, no_pictures

import run_preprocess
from tss.data import bids
from tss.data.bids_layout import Dataset, parse_name
from tss.data.cohort import Patient, read_cohort
from tss.errors import InputError
from tss.preprocessing.scans import load_scans

TABLE = "participant_id\tonset_to_mri_min\tstroke_side\n"


def lay(folder, *names):
    """Make a BIDS folder of empty files."""
    for name in ("dataset_description.json", *names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"Name": "made up", "BIDSVersion": "1.10.0"}' if name.endswith(".json") else "")
    return folder


def put(folder, texts):
    """Write texts by file name; what is no text as JSON."""
    for name, text in texts.items():
        (folder / name).write_text(text if isinstance(text, str) else json.dumps(text))


def read(folder):
    said = []
    return {patient.id: patient for patient in bids.read(folder, said.append)}, said


def scans(patient):
    return {
        name: patient.row[name] for name in ("dwi", "dwi_bval", "b0", "adc", "flair", "lesion") if patient.row[name]
    }


def test_the_names_of_isles_22(tmp_path):
    root = "sub-strokecase0001/ses-0001"
    stem = "sub-strokecase0001_ses-0001"
    lay(
        tmp_path,
        f"{root}/dwi/{stem}_dwi.nii.gz",
        f"{root}/dwi/{stem}_adc.nii.gz",
        f"{root}/anat/{stem}_FLAIR.nii.gz",
        f"derivatives/{root}/{stem}_msk.nii.gz",
    )
    patients, said = read(tmp_path)
    assert scans(patients["sub-strokecase0001"]) == {
        "dwi": f"{root}/dwi/{stem}_dwi.nii.gz",
        "adc": f"{root}/dwi/{stem}_adc.nii.gz",
        "flair": f"{root}/anat/{stem}_FLAIR.nii.gz",
        "lesion": f"derivatives/{root}/{stem}_msk.nii.gz",
    }
    assert patients["sub-strokecase0001"].row["session"] == "ses-0001"
    assert said == [
        "BIDS dataset made up, version 1.10.0: 1 patients; DWI, b0 or ADC, and FLAIR of 1, onset of 0, "
        "side of 0, lesion mask of 1",
        "  there is no participants.tsv: onset times and sides are unknown",
    ]


def test_the_names_of_soop_with_its_masks_and_its_table(tmp_path):
    masks = [
        f"derivatives/lesion_masks/sub-7/dwi/sub-7_space-TRACE_desc-{name}_mask.nii.gz"
        for name in ("lesion", "lesionAcute", "lesionChronic")
    ]
    lay(
        tmp_path,
        "sub-7/dwi/sub-7_rec-ADC_dwi.nii.gz",
        "sub-7/dwi/sub-7_rec-TRACE_dwi.nii.gz",
        "sub-7/anat/sub-7_FLAIR.nii.gz",
        "sub-7/anat/sub-7_T1w.nii.gz",
        *masks,
    )
    put(
        tmp_path,
        {
            "participants.tsv": "participant_id\tsex\tage\tnihss\tetiology\n"
            'sub-7\tF\t89+\tn/a\t"2: Cardioembolism (e.g., ""flutter"")"\n'
        },
    )
    patients, said = read(tmp_path)
    assert scans(patients["sub-7"]) == {
        "dwi": "sub-7/dwi/sub-7_rec-TRACE_dwi.nii.gz",
        "adc": "sub-7/dwi/sub-7_rec-ADC_dwi.nii.gz",
        "flair": "sub-7/anat/sub-7_FLAIR.nii.gz",
        "lesion": masks[1],
    }
    row = patients["sub-7"].row
    assert (row["sex"], row["age"], row.get("nihss", "")) == ("F", "89+", "")
    assert row["etiology"] == '2: Cardioembolism (e.g., "flutter")' and patients["sub-7"].minutes is None
    assert [line for line in said if "has no column" in line] == [
        f"  participants.tsv has no column {name}: unknown, except for what sessions.tsv files say"
        for name in ("onset_to_mri_min", "stroke_side")
    ]
    (tmp_path / masks[1]).unlink()
    assert scans(read(tmp_path)[0]["sub-7"])["lesion"] == masks[0]
    (tmp_path / masks[0]).unlink()
    assert "lesion" not in scans(read(tmp_path)[0]["sub-7"])  # an old lesion is not the stroke


@pytest.mark.parametrize(
    ("names", "bvals", "expected"),
    [
        # the series with b1000 and b0 comes before what a scanner derives from it
        (["dwi", "ADC", "trace", "FA", "colFA", "expADC", "sbref"], {"dwi": "0 1000 1000"}, {"dwi": "dwi"}),
        (["trace", "ADC", "expADC", "FA"], {}, {"dwi": "trace", "adc": "ADC"}),
        (["trace", "ADC", "S0map"], {}, {"dwi": "trace", "b0": "S0map"}),
        (["dwi", "ADC"], {"dwi": "1000 1000"}, {"dwi": "dwi", "adc": "ADC"}),  # a series without b0
        (["dwi", "trace", "ADC"], {"dwi": "0 2000"}, {"dwi": "trace", "adc": "ADC"}),  # a series of another b
        (["dir-AP_dwi", "dir-PA_dwi"], {"dir-AP_dwi": "0 1000", "dir-PA_dwi": "0 0"}, {"dwi": "dir-AP_dwi"}),
        (["acq-b1000_dwi", "acq-b0_dwi", "desc-adc_dwi"], {}, {"dwi": "acq-b1000_dwi", "b0": "acq-b0_dwi"}),
        (["run-1_dwi", "run-2_dwi"], {"run-1_dwi": "0", "run-2_dwi": "1000"}, {"dwi": "run-2_dwi", "b0": "run-1_dwi"}),
        (["run-1_dwi", "run-2_dwi", "run-1_ADC", "run-2_ADC"], {}, {"dwi": "run-2_dwi", "adc": "run-2_ADC"}),
        (["run-1_trace", "run-1_ADC", "run-2_ADC"], {}, {"dwi": "run-1_trace", "adc": "run-1_ADC"}),  # of one series
        (
            ["part-mag_dwi", "part-phase_dwi"],
            dict.fromkeys(["part-mag_dwi", "part-phase_dwi"], "0 1000"),
            {"dwi": "part-mag_dwi"},
        ),
        (["dwi"], {"dwi": "0 3000"}, {"dwi": "dwi"}),  # nothing better: it fails with its b-values
    ],
)
def test_which_of_the_images_in_dwi_are_read(tmp_path, names, bvals, expected):
    lay(tmp_path, *(f"sub-1/dwi/sub-1_{name}.nii" for name in names))
    put(tmp_path / "sub-1" / "dwi", {f"sub-1_{name}.bval": text for name, text in bvals.items()})
    found = scans(read(tmp_path)[0]["sub-1"])
    found.pop("dwi_bval", None)
    assert found == {column: f"sub-1/dwi/sub-1_{name}.nii" for column, name in expected.items()}


def test_the_sidecar_says_what_the_name_does_not(tmp_path):
    """As converters leave a Siemens series: every image is run-n_dwi, and the JSON knows which is the ADC."""
    types = {1: "TRACEW", 2: "ADC", 3: "FA"}
    lay(tmp_path, *(f"sub-1/dwi/sub-1_run-{run}_dwi.nii.gz" for run in types))
    put(
        tmp_path / "sub-1" / "dwi",
        {f"sub-1_run-{run}_dwi.json": {"ImageType": ["DERIVED", "PRIMARY", word]} for run, word in types.items()},
    )
    assert scans(read(tmp_path)[0]["sub-1"]) == {
        "dwi": "sub-1/dwi/sub-1_run-1_dwi.nii.gz",
        "adc": "sub-1/dwi/sub-1_run-2_dwi.nii.gz",
    }


def test_sidecars_are_inherited_from_above_and_the_lowest_counts(tmp_path):
    lay(tmp_path, "sub-1/ses-1/dwi/sub-1_ses-1_acq-a_dwi.nii.gz", "sub-2/ses-1/dwi/sub-2_ses-1_dwi.nii.gz")
    put(
        tmp_path,
        {
            "dwi.bval": "0 1000",
            "bold.bval": "1",
            "acq-b_dwi.bval": "0 2000",  # the images have no acq-b
            "dwi.json": {"EchoTime": 0.08, "RepetitionTime": 4},
            "sub-1/sub-1_acq-a_dwi.json": {"EchoTime": 0.09},
        },
    )
    patients, _ = read(tmp_path)
    assert [patients[name].row["dwi_bval"] for name in ("sub-1", "sub-2")] == ["dwi.bval", "dwi.bval"]
    data = Dataset(tmp_path)
    assert data.sidecar(parse_name(patients["sub-1"].path("dwi"))) == {"EchoTime": 0.09, "RepetitionTime": 4}
    (tmp_path / "sub-1" / "ses-1" / "sub-1_ses-1_dwi.bval").write_text("0 900")
    assert read(tmp_path)[0]["sub-1"].row["dwi_bval"] == "sub-1/ses-1/sub-1_ses-1_dwi.bval"
    assert read(tmp_path)[0]["sub-2"].row["dwi_bval"] == "dwi.bval"


def test_of_several_flairs_the_plain_one_and_the_last_run(tmp_path):
    lay(
        tmp_path,
        *(f"sub-1/anat/sub-1_{name}FLAIR.nii.gz" for name in ("", "ce-GD_", "acq-3D_")),
        *(f"sub-2/anat/sub-2_{name}FLAIR.nii.gz" for name in ("run-2_", "run-10_", "ce-GD_")),
        *(f"sub-3/anat/sub-3_{name}FLAIR.nii.gz" for name in ("ce-GD_", "rec-NORM_")),
    )
    patients, said = read(tmp_path)
    assert patients["sub-1"].row["flair"] == "sub-1/anat/sub-1_FLAIR.nii.gz"
    assert patients["sub-2"].row["flair"] == "sub-2/anat/sub-2_run-10_FLAIR.nii.gz"
    assert patients["sub-3"].row["flair"] == "sub-3/anat/sub-3_rec-NORM_FLAIR.nii.gz"
    assert "  sub-2: sub-2_run-10_FLAIR.nii.gz is read, sub-2_run-2_FLAIR.nii.gz, sub-2_ce-GD_FLAIR.nii.gz not" in said


def test_masks_that_do_not_lie_on_the_dwi_are_left_alone(tmp_path):
    lay(
        tmp_path,
        "sub-1/dwi/sub-1_dwi.nii.gz",
        "sub-1/anat/sub-1_label-lesion_roi.nii.gz",
        "derivatives/a/sub-1/dwi/sub-1_desc-brain_mask.nii.gz",
        "derivatives/a/sub-1/dwi/sub-1_space-T1w_label-lesion_mask.nii.gz",
        "derivatives/b/sub-2/dwi/sub-2_label-lesion_mask.nii.gz",
        "derivatives/tss/registered/sub-1_lesion.nii.gz",
    )
    assert "lesion" not in scans(read(tmp_path)[0]["sub-1"])
    lay(tmp_path, "derivatives/c/sub-1/dwi/sub-1_space-orig_label-lesion_mask.nii.gz")
    assert scans(read(tmp_path)[0]["sub-1"])["lesion"].startswith("derivatives/c/")


def session(name, *images, subject="sub-1"):
    return [
        f"{subject}/{name}/{'anat' if image == 'FLAIR' else 'dwi'}/{subject}_{name}_{image}.nii.gz" for image in images
    ]


def test_one_session_a_patient_the_first_with_mri(tmp_path):
    """ses-2 before ses-10; an admission with CT alone; the order of time; the one that the table asks for."""
    whole = ("trace", "ADC", "FLAIR")
    lay(tmp_path, *session("ses-10", *whole), *session("ses-2", *whole), "sub-1/ses-1/ct/sub-1_ses-1_ct.nii.gz")
    patients, said = read(tmp_path)
    assert list(patients) == ["sub-1"] and patients["sub-1"].row["session"] == "ses-2"
    assert (
        "  sub-1: ses-2 is read, ses-1, ses-10 not: one session a patient; a column session in participants.tsv "
        "chooses another"
    ) in said
    put(
        tmp_path / "sub-1",
        {
            "sub-1_sessions.tsv": "session_id\tacq_time\tonset_to_mri_min\n"
            "ses-1\t2009-06-15T13:00:00\t20\nses-2\t2009-06-18T13:00:00\t4000\n"
            "ses-10\t2009-06-16T13:00:00\t95\n"
        },
    )
    patient = read(tmp_path)[0]["sub-1"]
    assert patient.row["session"] == "ses-10" and patient.minutes == 95  # of 16 June; ses-1 has no MRI
    put(tmp_path, {"participants.tsv": "participant_id\tsession\tage\nsub-1\t2\t60\n"})
    patient = read(tmp_path)[0]["sub-1"]
    assert patient.row["session"] == "ses-2" and patient.minutes == 4000 and patient.row["age"] == "60"
    put(tmp_path, {"participants.tsv": "participant_id\tsession\nsub-1\tses-3\n"})
    assert read(tmp_path)[0]["sub-1"].row["not_found"] == "there is no folder ses-3, which participants.tsv names"


def test_a_complete_follow_up_never_takes_the_place_of_an_acute_session_that_lacks_a_file(tmp_path):
    """Its onset and side are not the follow-up's."""
    lay(tmp_path, *session("ses-1", "trace", "ADC"), *session("ses-2", "trace", "ADC", "FLAIR"))
    put(tmp_path, {"participants.tsv": TABLE + "sub-1\t95\tleft\n"})
    patient = read(tmp_path)[0]["sub-1"]
    assert (patient.row["session"], patient.minutes, patient.row["not_found"]) == (
        "ses-1",
        95,
        "no FLAIR in sub-1/ses-1/anat",
    )


@pytest.mark.parametrize(
    ("names", "first"),
    [(("3mo", "acute"), "acute"), (("baseline", "24h"), "baseline"), (("followup", "1"), "1"), (("2", "10"), "2")],
)
def test_sessions_without_times_by_what_their_names_say(tmp_path, names, first):
    for name in names:
        lay(tmp_path, *session(f"ses-{name}", "trace", "ADC", "FLAIR"))
    assert read(tmp_path)[0]["sub-1"].row["session"] == f"ses-{first}"


@pytest.mark.parametrize(
    ("one", "two", "first"),
    [
        ("2009-06-15T13:00:00.25", "2009-06-15 9:30", "ses-2"),
        ("15.6.2009 13:00", "9.10.2008", "ses-2"),
        ("6/15/2009 1:00 PM", "6/15/2009 11:30 AM", "ses-2"),  # as text 1:00 comes first
        ("12/25/2009", "1/2/2009", "ses-2"),
        ("2/1/2010", "25/12/2009", "ses-2"),
        ("20090615T130000", "2009-06-14T23:00:00Z", "ses-2"),
        ("3 March 2009", "12 Feb 2009", "ses-2"),
        ("10", "9.5", "ses-2"),  # days since something
        ("3/4/2009", "2/5/2009", "ses-1"),  # may be April and May, or 4 March and 5 February: the names decide
        ("soon", "later", "ses-1"),
        ("2009-06-15", "n/a", "ses-1"),
    ],
)
def test_sessions_in_the_order_of_dates_as_people_write_them(tmp_path, one, two, first):
    lay(tmp_path, *session("ses-1", "trace", "ADC", "FLAIR"), *session("ses-2", "trace", "ADC", "FLAIR"))
    put(tmp_path / "sub-1", {"sub-1_sessions.tsv": f"session_id\tacq_time\nses-1\t{one}\nses-2\t{two}\n"})
    patients, said = read(tmp_path)
    assert patients["sub-1"].row["session"] == first
    assert any("give no order in time" in line for line in said) == (first == "ses-1")


def test_times_of_scans_tsv_count_where_sessions_tsv_has_none(tmp_path):
    for name, time in (("ses-1", "1925-03-02T10:00:00"), ("ses-2", "1925-03-01T10:00:00")):  # shifted for privacy
        lay(tmp_path, *session(name, "trace", "ADC", "FLAIR"))
        table = f"filename\tacq_time\ndwi/sub-1_{name}_trace.nii.gz\t{time}\n"
        put(tmp_path / "sub-1" / name, {f"sub-1_{name}_scans.tsv": table})
    assert read(tmp_path)[0]["sub-1"].row["session"] == "ses-2"


def test_not_available_in_one_table_erases_nothing_of_the_other(tmp_path):
    lay(tmp_path, *session("ses-1", "trace", "ADC", "FLAIR"))
    put(tmp_path, {"participants.tsv": TABLE + "sub-1\t95\tLeft\n\t\t\n"})
    put(tmp_path / "sub-1", {"sub-1_sessions.tsv": "session_id\tonset_to_mri_min\tstroke_side\nses-1\tn/a\tNA\n"})
    patient = read(tmp_path)[0]["sub-1"]
    assert (patient.minutes, patient.side) == (95, "left")


def test_units_are_heeded_or_refused(tmp_path):
    lay(tmp_path, *session("ses-1", "trace", "ADC", "FLAIR"))
    put(tmp_path, {"participants.tsv": "participant_id\tonset_to_mri_min\tage\nsub-1\t3.5\t780\n"})
    put(tmp_path, {"participants.json": {"onset_to_mri_min": {"Units": "Hours"}, "age": {"Units": "months"}}})
    patient = read(tmp_path)[0]["sub-1"]
    assert patient.minutes == 210 and patient.row["age"] == "65"
    put(tmp_path, {"participants.json": {"onset_to_mri_min": {"Units": "fortnights"}}})
    with pytest.raises(
        InputError, match="participants.json: onset_to_mri_min is in 'fortnights', which is none of min"
    ):
        read(tmp_path)
    put(tmp_path, {"participants.json": {"onset_to_mri_min": {"Units": None}, "sex": 3}})
    with pytest.raises(InputError, match="onset_to_mri_min is '3.5'; nobody is scanned so soon"):
        read(tmp_path)
    put(tmp_path / "sub-1", {"sub-1_sessions.tsv": "session_id\tonset_to_mri_min\nses-1\t7200\n"})
    put(tmp_path / "sub-1", {"sub-1_sessions.json": {"onset_to_mri_min": {"Units": "s"}}})
    assert read(tmp_path)[0]["sub-1"].minutes == 120


def test_a_unit_given_above_and_below_counts_once_the_lower_one(tmp_path):
    lay(tmp_path, *session("ses-1", "trace", "ADC", "FLAIR"))
    put(tmp_path, {"participants.tsv": "participant_id\tage\nsub-1\t60\n"})
    put(tmp_path / "sub-1", {"sub-1_sessions.tsv": "session_id\tOnset to MRI (min)\nses-1\t2\n"})
    put(tmp_path, {"sessions.json": {"Onset to MRI (min)": {"Units": "h"}}})
    assert read(tmp_path)[0]["sub-1"].minutes == 120
    put(tmp_path / "sub-1", {"sub-1_sessions.json": {"onset_to_mri_min": {"Units": "h"}}})
    assert read(tmp_path)[0]["sub-1"].minutes == 120
    put(tmp_path / "sub-1", {"sub-1_sessions.json": {"onset_to_mri_min": {"Units": "d"}}})
    assert read(tmp_path)[0]["sub-1"].minutes == 2880


@pytest.mark.parametrize("text", ['{"onset_to_mri_min": {"Units": "s"},}', "[]"])
def test_a_table_whose_units_cannot_be_read_is_refused(tmp_path, text):
    lay(tmp_path, *session("ses-1", "trace", "ADC", "FLAIR"))
    put(tmp_path, {"participants.tsv": "participant_id\tonset_to_mri_min\nsub-1\t7200\n", "participants.json": text})
    with pytest.raises(InputError, match="participants.json .*It says what the table's numbers and codes mean"):
        read(tmp_path)
    (tmp_path / "participants.json").write_text('{"onset_to_mri_min": {"Units": "s"}}', encoding="utf-8-sig")
    assert read(tmp_path)[0]["sub-1"].minutes == 120


def test_the_real_part_and_never_the_imaginary_one(tmp_path):
    parts = ("imag", "real", "phase")
    lay(tmp_path, *(f"sub-1/anat/sub-1_part-{part}_FLAIR.nii.gz" for part in parts))
    lay(tmp_path, *(f"sub-1/dwi/sub-1_part-{part}_dwi.nii.gz" for part in parts))
    put(tmp_path / "sub-1" / "dwi", {f"sub-1_part-{part}_dwi.bval": "0 1000" for part in parts})
    found = scans(read(tmp_path)[0]["sub-1"])
    assert (found["dwi"], found["flair"]) == (
        "sub-1/dwi/sub-1_part-real_dwi.nii.gz",
        "sub-1/anat/sub-1_part-real_FLAIR.nii.gz",
    )
    lay(tmp_path, "sub-1/anat/sub-1_acq-3D_part-mag_FLAIR.nii.gz", "sub-2/anat/sub-2_part-imag_FLAIR.nii.gz")
    patients, _ = read(tmp_path)
    assert patients["sub-1"].row["flair"].endswith("part-mag_FLAIR.nii.gz")
    assert "no FLAIR in sub-2/anat" in patients["sub-2"].row["not_found"]


def test_another_subjects_file_in_a_subjects_folder_is_not_read(tmp_path):
    lay(
        tmp_path,
        "sub-1/dwi/sub-1_trace.nii.gz",
        "sub-1/dwi/sub-1_ADC.nii.gz",
        "sub-1/anat/sub-2_FLAIR.nii.gz",
        *session("ses-1", "trace", "ADC", subject="sub-3"),
        "sub-3/ses-1/anat/sub-3_ses-2_FLAIR.nii.gz",
    )
    patients, said = read(tmp_path)
    assert patients["sub-1"].row["not_found"] == "no FLAIR in sub-1/anat"
    assert patients["sub-3"].row["not_found"] == "no FLAIR in sub-3/ses-1/anat"
    assert "  sub-1: sub-2_FLAIR.nii.gz is not read: it lies in sub-1, and its name is another's" in said


@pytest.mark.parametrize(
    "label", ["acq-FA", "rec-colFA", "desc-MD", "rec-expADC", "acq-eADC", "acq-b500", "acq-b2000", "acq-b2k53dirs"]
)
def test_labels_that_name_a_derived_image_or_another_b(tmp_path, label):
    lay(tmp_path, f"sub-1/dwi/sub-1_{label}_dwi.nii.gz", "sub-1/dwi/sub-1_rec-ADC_dwi.nii.gz")
    assert "dwi" not in scans(read(tmp_path)[0]["sub-1"])
    lay(tmp_path, "sub-1/dwi/sub-1_run-1_dwi.nii.gz")
    assert scans(read(tmp_path)[0]["sub-1"])["dwi"] == "sub-1/dwi/sub-1_run-1_dwi.nii.gz"


def test_a_label_gives_no_b_where_a_bval_does(tmp_path):
    lay(tmp_path, "sub-1/dwi/sub-1_acq-b2000_dwi.nii.gz")
    put(tmp_path / "sub-1" / "dwi", {"sub-1_acq-b2000_dwi.bval": "0 1000 2000"})
    assert scans(read(tmp_path)[0]["sub-1"])["dwi"].endswith("acq-b2000_dwi.nii.gz")


def test_of_the_masks_of_two_raters_one_is_read_and_it_is_said(tmp_path):
    masks = [f"derivatives/masks/sub-1/dwi/sub-1_rater-{rater}_label-lesion_mask.nii.gz" for rater in "AB"]
    lay(tmp_path, "sub-1/dwi/sub-1_trace.nii.gz", *masks)
    patients, said = read(tmp_path)
    assert scans(patients["sub-1"])["lesion"] == masks[0]
    assert f"  sub-1: lesion mask {masks[0]} is read, {masks[1]} not: by another rater?" in said
    agreed = "derivatives/masks/sub-1/dwi/sub-1_rater-consensus_label-lesion_mask.nii.gz"
    lay(tmp_path, agreed)
    assert scans(read(tmp_path)[0]["sub-1"])["lesion"] == agreed


@pytest.mark.parametrize("value", [None, 5, "DERIVED\\PRIMARY\\ADC", ["DERIVED", None, 7, "ADC"], {"a": 1}])
def test_sidecars_of_whatever_kind(tmp_path, value):
    lay(tmp_path, "sub-1/dwi/sub-1_run-1_dwi.nii.gz", "sub-1/dwi/sub-1_rec-TRACE_dwi.nii.gz")
    put(tmp_path / "sub-1" / "dwi", {"sub-1_run-1_dwi.json": {"ImageType": value}})
    put(tmp_path, {"participants.tsv": "participant_id\tsex\nsub-1\tF\n"})
    put(tmp_path, {"participants.json": {"sex": {"Levels": [1]}}, "dataset_description.json": {"Name": None}})
    is_adc = isinstance(value, (str, list))
    assert ("adc" in scans(read(tmp_path)[0]["sub-1"])) == is_adc


def test_a_unit_that_is_not_available_is_none_and_a_flair_by_another_name_is_named(tmp_path):
    lay(tmp_path, "sub-1/dwi/sub-1_trace.nii.gz", "sub-1/dwi/sub-1_ADC.nii.gz", "sub-1/anat/sub-1_T2FLAIR.nii.gz")
    put(tmp_path, {"participants.tsv": TABLE + "sub-1\t95\tleft\n"})
    put(tmp_path, {"participants.json": {"onset_to_mri_min": {"Units": "n/a"}}})
    patient = read(tmp_path)[0]["sub-1"]
    assert patient.minutes == 95
    assert patient.row["not_found"].startswith("no FLAIR in sub-1/anat (sub-1_T2FLAIR.nii.gz: BIDS names one")


def test_a_stray_quote_in_a_table_swallows_no_subject(tmp_path):
    lay(tmp_path, *(f"sub-{k}/dwi/sub-{k}_trace.nii.gz" for k in (1, 2, 3)))
    put(tmp_path, {"participants.tsv": 'Participant_ID\tsex\tcoil\nsub-1\tF\t"8\nsub-2\tM\t16"\nsub-3\tF\t32\t\n'})
    patients, said = read(tmp_path)
    assert [patients[f"sub-{k}"].row["coil"] for k in (1, 2, 3)] == ['"8', '16"', "32"]
    assert not [line for line in said if "not in participants.tsv" in line]


def test_what_is_missing_is_said_and_stays_in_the_cohort(tmp_path):
    lay(
        tmp_path,
        "sub-2/dwi/sub-2_trace.nii.gz",
        "sub-10/anat/sub-10_FLAIR.nii.gz",
        "sub-old_copy/x",
        "sub-3/dwi/sub-3_FA.nii.gz",
        "sub-3/anat/sub-3_T2w.nii.gz",
    )
    put(tmp_path, {"participants.tsv": TABLE + "sub-3\tn/a\tn/a\n4\t30\tleft\nsub-10\t200\tboth\n"})
    patients, said = read(tmp_path)
    assert list(patients) == ["sub-2", "sub-3", "sub-10", "sub-4"]
    assert {name: patient.row["not_found"] for name, patient in patients.items()} == {
        "sub-2": "no b0: sub-2_trace.nii.gz has no .bval with b = 0, and sub-2/dwi has no b0 and no ADC; "
        "no FLAIR in sub-2/anat",
        "sub-3": "no DWI in sub-3/dwi; no FLAIR in sub-3/anat",
        "sub-10": "no DWI in sub-10/dwi",
        "sub-4": "there is no folder sub-4",
    }
    for line in (
        "  sub-10: no DWI in sub-10/dwi",
        "  sub-2: not in participants.tsv",
        "  sub-old_copy is skipped: a subject's folder is named sub- and then letters and digits",
    ):
        assert line in said
    assert (patients["sub-4"].minutes, patients["sub-10"].side, patients["sub-3"].minutes) == (30, "both", None)
    assert said[0].endswith("4 patients; DWI, b0 or ADC, and FLAIR of 0, onset of 2, side of 2, lesion mask of 0")


def test_codes_are_read_by_the_json_beside_the_table_and_our_columns_are_not_overwritten(tmp_path):
    lay(tmp_path, "sub-1/dwi/sub-1_trace.nii.gz")
    put(
        tmp_path,
        {
            "participants.tsv": "participant_id\tstroke_side\tsex\tlesion\treader_1\tsplit\nsub-1\tL\t2\t1\t0\ttest\n",
            "participants.json": {
                "stroke_side": {"Levels": {"L": "left", "R": "right"}},
                "sex": {"Levels": {"2": {"Description": "Female"}}},
            },
        },
    )
    patients, said = read(tmp_path)
    row = patients["sub-1"].row
    assert (row["stroke_side"], row["sex"], row["lesion"], row["reader_1"], row["split"]) == (
        "left",
        "female",
        "",
        "0",
        "test",
    )
    assert "  participants.tsv: column lesion is ignored: its name has another meaning here" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("participant_id\tstroke_side\nsub-1\tL\n", "participants.tsv cannot be used.*\n  sub-1: stroke_side is 'L'"),
        (TABLE + "sub-1\t-3\tleft\n", "sub-1: onset_to_mri_min is '-3'"),
        (TABLE + "sub-1\t30\n", "line 2: 2 cells where the header has 3"),
        (TABLE + "sub-1\t30\tleft\n1\t40\tleft\n", "line 3: sub-1 is on an earlier line too"),
        ("participant_id,age\nsub-1,60\n", "needs a column participant_id.*Separate the columns by tabs"),
        ("participant_id\tage\tage\nsub-1\t1\t2\n", "each column once"),
        ("", "needs a column participant_id"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, text, message):
    lay(tmp_path, "sub-1/dwi/sub-1_trace.nii.gz")
    put(tmp_path, {"participants.tsv": text})
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_names_that_differ_by_capitals_alone_are_refused(tmp_path):
    lay(tmp_path, "sub-a1/x")
    put(tmp_path, {"participants.tsv": TABLE + "sub-A1\t30\tleft\n"})
    with pytest.raises(InputError, match="sub-A1: another subject's name differs in upper and lower case only"):
        read(tmp_path)


def test_a_folder_that_is_no_dataset_is_refused_with_a_hint(tmp_path, capsys):
    assert (
        run_preprocess.main([str(tmp_path), "--out", str(tmp_path / "d"), "--atlas", "a.nii", "--tools", "builtin"])
        == 2
    )
    assert f"{tmp_path} is not a BIDS dataset: there is no folder sub-<label> in it." in capsys.readouterr().err
    lay(tmp_path / "raw", "sub-1/dwi/sub-1_trace.nii.gz")
    with pytest.raises(InputError, match=f"There are such folders in {tmp_path / 'raw'}: is that the dataset"):
        read(tmp_path)
    (tmp_path / "cohort.csv").write_text("")
    with pytest.raises(InputError, match=f"Did you mean {tmp_path / 'cohort.csv'}"):
        read(tmp_path)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Three heads as the phantom writes them in BIDS, their table, and the cohort.csv that they come from."""
    folder = tmp_path_factory.mktemp("bids")
    rows = [
        heads.write_patient(folder / "raw", f"p{number}", number) | {"split": "train", "phantom": "0.1"}
        for number in range(3)
    ]
    cohort = heads.write_table(folder / "raw", rows)
    heads.write_atlas(folder / "atlas.nii.gz")
    return phantom_bids.write_bids(cohort, folder / "bids"), cohort


def test_a_phantom_written_as_bids_is_the_same_patient(dataset):
    folder, cohort = dataset
    for patient, original in zip(bids.read(folder), read_cohort(cohort), strict=True):
        assert scans(patient).keys() == {"dwi", "dwi_bval", "flair"}
        assert (patient.minutes, patient.side, patient.split) == (original.minutes, original.side, "train")
        found, expected = load_scans(patient), load_scans(original)
        assert found.lesion is expected.lesion is None
        for new, scan in zip(found[:3], expected[:3], strict=True):
            assert np.allclose(new.data, scan.data, rtol=1e-5) and np.allclose(new.affine, scan.affine)
    assert (folder / "sub-p0" / "dwi" / "sub-p0_dwi.bvec").read_text() == "0 1 0 0\n0 0 1 0\n0 0 0 1\n"
    assert json.loads((folder / "participants.json").read_text())["onset_to_mri_min"]["Units"] == "min"
    with pytest.raises(InputError, match="is there already"):
        phantom_bids.write_bids(cohort, folder)


def test_real_patients_are_not_given_made_up_directions(tmp_path):
    heads.write_table(
        tmp_path,
        [
            {
                "patient": "p",
                "dwi": "d.nii",
                "b0": "b.nii",
                "flair": "f.nii",
                "onset_to_mri_min": "",
                "stroke_side": "",
                "phantom": "",
            }
        ],
    )
    with pytest.raises(InputError, match="p is not a phantom"):
        phantom_bids.write_bids(tmp_path / "cohort.csv", tmp_path / "bids")


@pytest.mark.slow
def test_a_bids_folder_through_run_preprocess(dataset, tmp_path, known_affines, monkeypatch, capsys):
    """Dry run, two shards, a patient without FLAIR, one without folder; the same line tries them again."""
    no_pictures(monkeypatch)
    no_bias_correction(monkeypatch)
    folder, out = tmp_path / "bids", tmp_path / "bids" / "derivatives" / "tss"
    shutil.copytree(dataset[0], folder)
    atlas = dataset[0].parent / "atlas.nii.gz"
    flair = folder / "sub-p1" / "anat" / "sub-p1_FLAIR.nii.gz"
    flair.rename(tmp_path / "aside.nii.gz")
    with open(folder / "participants.tsv", "a") as table:
        table.write("sub-p9\t60\tleft\tA\ttest\t0.1\n")

    def run(*more, source=folder, out=out):
        return run_preprocess.main(
            [
                str(source),
                "--out",
                str(out),
                "--atlas",
                str(atlas),
                "--tools",
                "builtin",
                "--grid",
                "16",
                "16",
                "8",
                *more,
            ]
        )

    def rows():
        with open(out / "cohort.csv", newline="") as file:
            return {row["patient"]: row for row in csv.DictReader(file)}

    assert run("--dry-run") == 0
    said = capsys.readouterr().out
    assert "4 of 4 patients would be preprocessed" in said and not out.exists()
    assert "sub-p1: no FLAIR in sub-p1/anat" in said and "sub-p9: there is no folder sub-p9" in said

    assert (run("--shard", "2/2"), run("--shard", "1/2")) == (1, 0)
    found = rows()
    assert {name: (row["status"], row["reason"]) for name, row in found.items()} == {
        "sub-p0": ("ok", ""),
        "sub-p1": ("failed", "no FLAIR in sub-p1/anat"),
        "sub-p2": ("ok", ""),
        "sub-p9": ("failed", "there is no folder sub-p9"),
    }
    assert (found["sub-p0"]["split"], found["sub-p9"]["split"], found["sub-p0"]["site"]) == ("train", "test", "A")
    assert found["sub-p0"]["dwi"] == "../../sub-p0/dwi/sub-p0_dwi.nii.gz" and found["sub-p1"]["flair"] == ""
    assert Patient(found["sub-p0"], out).bval.is_file()
    halves = np.load(out / "hemispheres" / "sub-p0.npy")

    (tmp_path / "aside.nii.gz").rename(flair)
    assert run() == 1
    assert "2 of 4 patients are already finished" in capsys.readouterr().out and rows()["sub-p1"]["status"] == "ok"

    again = tmp_path / "again"  # what was understood is a cohort.csv like any other
    assert run("--shard", "1/4", source=out / "cohort.csv", out=again) == 0
    assert np.array_equal(np.load(again / "hemispheres" / "sub-p0.npy"), halves)
