"""Two cohorts in numbers, and where one lies outside the other."""

import json

from tss.data.cohort import Patient
from tss.data.cohort_profile import differences, profile


def cohort(folder, values, **more):
    (folder / "transforms").mkdir(parents=True, exist_ok=True)
    patients = []
    for number, value in enumerate(values):
        record = {"acquired": {"dwi_median": value}, "measures": {"dwi_contrast": 2.0, "brain_ml": 1400}}
        (folder / "transforms" / f"p{number}.json").write_text(json.dumps(record))
        patients.append(Patient({"patient": f"p{number}", "onset_to_mri_min": "", **more}, folder))
    return patients


def test_a_profile_holds_no_patient_and_nothing_that_is_unknown(tmp_path):
    found = profile(tmp_path, cohort(tmp_path, [100, 200, 300], field_strength="1.5"))
    assert found["patients"] == 3 and found["scanner"] == {"field_strength": {"1.5": 3}}
    assert set(found["numbers"]) == {"dwi_median", "dwi_contrast"}
    assert found["numbers"]["dwi_median"] == {"n": 3, "percentiles": [110, 150, 200, 250, 290]}
    assert "p0" not in json.dumps(found)


def test_what_lies_outside_the_training_patients_is_marked(tmp_path):
    training = profile(tmp_path / "a", cohort(tmp_path / "a", [100, 200, 300], field_strength="1.5"))
    here = profile(tmp_path / "b", cohort(tmp_path / "b", [900, 950], field_strength="3"))
    found = {line.what: line for line in differences(training, here)}
    assert found["field strength"] == ("field strength", "1.5 (3)", "3 (2)", True)
    assert found["DWI, healthy brain, scanner units"].outside
    assert not found["DWI, lesion over its mirror image"].outside
    assert found["DWI, lesion over its mirror image"].here == "2 (2 to 2; 2 to 2), n = 2"


def test_what_only_one_of_them_knows_is_a_dash_and_not_outside(tmp_path):
    training = profile(tmp_path / "a", cohort(tmp_path / "a", [100, 200], age="60", site="north"))
    here = profile(tmp_path / "b", cohort(tmp_path / "b", [100, 200]))
    found = {line.what: line for line in differences(training, here)}
    assert (found["age, years"].here, found["site"].here) == ("-", "-")
    assert not any(line.outside for line in found.values())
