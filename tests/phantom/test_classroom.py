"""The class-room size: small, coarse, complete, and made once."""

import nibabel
import numpy as np

from tss.data.cohort import read_cohort
from tss.data.files import read_json
from tss.phantom import __main__ as script
from tss.phantom import classroom

WHOLE = classroom.PATIENTS


def test_it_is_small_and_says_what_to_type_next(tmp_path, monkeypatch, capsys):
    """Three patients here; the whole must stay below 10 MB, atlas included."""
    monkeypatch.setattr(classroom, "PATIENTS", 3)
    out = tmp_path / "class"
    assert script.main(["classroom", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "3 patients" in said and "CC0" in said and "python run_preprocess.py" in said and "not clinical" in said
    patients = read_cohort(out / "cohort.csv")
    assert [patient.id for patient in patients] == ["p001", "p002", "p003"]
    assert read_json(out / "classroom.json")["licence"].startswith("CC0 1.0")
    scans = [nibabel.load(path) for path in sorted((out / "scans").iterdir())]
    assert len(scans) == 9 and all(scan.get_data_dtype() == np.int16 for scan in scans)
    assert all(sorted(scan.header.get_zooms())[1] < 4.2 for scan in scans)
    atlas = (out / "atlas_t2w.nii.gz").stat().st_size
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert atlas + (size - atlas) / 3 * WHOLE < 10e6

    assert script.main(["classroom", "--out", str(out)]) == 2
    assert "is not empty. Choose another folder" in capsys.readouterr().err
