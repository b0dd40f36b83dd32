"""What sidecars say of a scan becomes columns of the cohort, and from there lines of Table 1."""

import json

import pytest

from tss.data import bids
from tss.data.acquisition import acquisition_of
from tss.display.tables import table1_rows

DWI = {"Manufacturer": "Siemens", "ManufacturersModelName": "Prisma  fit", "MagneticFieldStrength": 2.89362,
       "EchoTime": 0.078, "RepetitionTime": 6.4}  # fmt: skip
FLAIR = {"Manufacturer": "Siemens", "MagneticFieldStrength": 3, "EchoTime": 0.094, "InversionTime": 2.5,
         "RepetitionTime": 9}  # fmt: skip
COLUMNS = {"vendor": "Siemens", "model": "Prisma fit", "field_strength": "3", "b_values": "0 1000", "dwi_te_ms": "78",
           "dwi_tr_ms": "6400", "flair_te_ms": "94", "flair_tr_ms": "9000", "flair_ti_ms": "2500"}  # fmt: skip


def test_sidecars_in_our_units():
    assert acquisition_of({"dwi": DWI, "flair": FLAIR}, [0, 5, 995, 1000, 1005]) == COLUMNS
    assert acquisition_of({"dwi": {"DiffusionBValue": 1000}, "flair": {}}) == {"b_values": "1000"}
    assert acquisition_of({"dwi": {}, "flair": {"MagneticFieldStrength": 1.494}}) == {"field_strength": "1.5"}
    assert acquisition_of({"flair": {"MagneticFieldStrength": 0.064}}) == {"field_strength": "0.06"}


@pytest.mark.parametrize("value", [None, "", "3 T", True, [3], {"T": 3}, float("nan"), -1])
def test_what_a_sidecar_does_not_say_is_absent(value):
    fields = ("Manufacturer", "MagneticFieldStrength", "EchoTime", "DiffusionBValue")
    said = acquisition_of({"dwi": dict.fromkeys(fields, value), "flair": {}})
    assert said == ({"vendor": "3 T"} if value == "3 T" else {})


def test_a_bids_folder_s_sidecars_are_in_its_cohort_and_in_table_1(tmp_path):
    for name in ("sub-1", "sub-2"):
        for kind, stem, sidecar in (("dwi", "dwi", DWI), ("anat", "FLAIR", FLAIR)):
            folder = tmp_path / name / kind
            folder.mkdir(parents=True)
            (folder / f"{name}_{stem}.nii.gz").touch()
            if name == "sub-1":
                (folder / f"{name}_{stem}.json").write_text(json.dumps(sidecar))
        (tmp_path / name / "dwi" / f"{name}_dwi.bval").write_text("0 1000 1000 1000\n")
    (tmp_path / "participants.tsv").write_text("participant_id\tflair_te_ms\nsub-1\t100\nsub-2\tn/a\n")
    one, other = bids.read(tmp_path, say=lambda line: None)
    assert {name: one.row[name] for name in COLUMNS} == COLUMNS | {"flair_te_ms": "100"}  # the table knows better
    assert {name: other.row.get(name, "") for name in COLUMNS} == dict.fromkeys(COLUMNS, "") | {"b_values": "0 1000"}
    rows = {row[0]: row[1] for row in table1_rows([one, other])}
    assert rows["Field strength (T)"] == "3 (1), unknown (1)" and rows["b (s/mm^2)"] == "0 1000 (2)"
    assert rows["FLAIR, TI (ms)"] == "2500 (2500-2500), 1 unknown"
    assert "Vendor" not in {row[0] for row in table1_rows([other])}
