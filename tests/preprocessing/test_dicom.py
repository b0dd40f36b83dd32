"""Folders of DICOM files: which series is what, and through both programs with a made-up dcm2niix in the place of the
real one, which tests do not need."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import heads
import nibabel
import numpy as np
import pytest
from processes import ends, until
from quick_preprocessing import no_bias_correction, no_pictures
from untrained import save_checkpoint

import run_eval
import run_preprocess
from tss.data.prepared import read_settings
from tss.preprocessing import dicom
from tss.preprocessing.dicom_series import FEWEST_SLICES, Series, find_scans, kind_of

FAKE = '''#!{python}
"""Copies what each .dcm file names: after 128 bytes and DICM a JSON object with number, nifti, header and bvals."""
import json, os, pathlib, shutil, sys, time
*_, out, folder = sys.argv
calls = pathlib.Path(__file__).with_name("calls")
calls.write_text((calls.read_text() if calls.exists() else "") + folder + chr(10))
if (slow := pathlib.Path(__file__).with_name("slow")).exists():
    slow.write_text(str(os.getpid()))
    time.sleep(60)
for file in sorted(pathlib.Path(folder).rglob("*.dcm")):
    told = json.loads(file.read_bytes()[132:])
    stem = pathlib.Path(out, str(told["header"]["SeriesNumber"]))
    shutil.copy(told["nifti"], f"{{stem}}.nii.gz")
    pathlib.Path(f"{{stem}}.json").write_text(json.dumps(told["header"]))
    if told["bvals"]:
        pathlib.Path(f"{{stem}}.bval").write_text(" ".join(map(str, told["bvals"])))
print("Convert something")
sys.exit(1 if any(pathlib.Path(folder).rglob("broken")) else 0)
'''
DWI = {"SeriesDescription": "ep2d_diff_3scan_trace", "EchoTime": 0.08, "MagneticFieldStrength": 3}
FLAIR = {"SeriesDescription": "t2_tirm_tra_dark-fluid", "EchoTime": 0.09, "InversionTime": 2.5}


def series(description, number=1, bvals=None, slices=26, **header):
    about = {"SeriesDescription": description, "SeriesNumber": number, "Modality": "MR", **header}
    return Series(Path(f"{number}.nii.gz"), about, None if bvals is None else np.array(bvals, float), slices)


@pytest.mark.parametrize(("one", "kind"), [
    # As dcm2niix converts them: Siemens XA30, GE, United Imaging (dcm_qa_xa30, _ge and _uih of its authors).
    (series("DWI_dir80_PA", bvals=[0, 2500, 2500], ImageType=["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]), ""),
    (series("DWI_dir80_PA_ADC", ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]), "adc"),
    (series("DWI_dir80_PA_FA", ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "FA"]), ""),
    (series("DWI_dir80_PA_ColFA", ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "FA"]), ""),
    (series("Ax DWI TENSOR R2", bvals=[0, 1000, 1000, 1000]), "dwi"),
    (series("3D Ax T1 MP-RAGE_R22", InversionTime=1, EchoTime=0.003), ""),
    (series("dti_tra_dir16_PA", bvals=[1.25, 929.75, 929.75]), "dwi"),
    (series("t1_gre_fsp_3d_sag", InversionTime=0.75, EchoTime=0.0031), ""),
    (series("Axial EPI-FMRI", ScanningSequence="EP"), ""),
    # As stroke protocols name them.
    (series("ep2d_diff_3scan_trace_TRACEW", ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"]), "dwi"),
    (series("DWI b1000"), "dwi"), (series("DWI b=0"), "b0"), (series("DWI b2000"), ""),
    (series("ep2d_diff_b0", bvals=[0]), "b0"), (series("dADC"), "adc"), (series("eADC"), ""),
    (series("Apparent Diffusion Coefficient (mm2/s)"), "adc"), (series("exp ADC"), ""),
    (series("t2_tirm_tra_dark-fluid", InversionTime=2.5, EchoTime=0.09), "flair"),
    (series("AX FLAIR"), "flair"), (series("Ax T1 FLAIR", InversionTime=0.8, EchoTime=0.02), ""),
    (series("Ax T1 FLAIR"), ""), (series("STIR", InversionTime=0.15, EchoTime=0.08), ""),
    (series("SPACE", InversionTime=1.8, EchoTime=0.38), "flair"),  # its name says nothing, its times do
    (series("AX FLAIR", slices=FEWEST_SLICES - 1), ""), (series("AX FLAIR", Modality="CT"), ""),
    (series("t2_tse_tra", EchoTime=0.1), ""), (series("AX FLAIR", ImageType=["ORIGINAL", "PHASE"]), ""),
    (series("AX FLAIR", InversionTime="2.5", ImageType="ORIGINAL", SeriesNumber=None), "flair"),  # no numbers, no list
])  # fmt: skip
def test_what_a_series_is(one, kind):
    assert kind_of(one) == kind


def names(found):
    return {role: one.description for role, one in found.scans.items()}


def test_the_whole_series_before_its_parts_and_the_last_repetition():
    whole = series("ep2d_diff", 4, [0, 1000])
    trace, adc = series("ep2d_diff_TRACEW", 5), series("ep2d_diff_ADC", 6)
    flairs = [series("FLAIR", number, InversionTime=2.5, EchoTime=0.1) for number in (7, 9)]
    gado, mpr = series("FLAIR +C", 10, InversionTime=2.5), series("FLAIR MPR", 11, ImageType=["DERIVED", "SECONDARY"])
    found = find_scans([adc, trace, whole, gado, mpr, *flairs])
    assert names(found) == {"dwi": "ep2d_diff", "flair": "FLAIR"} and not found.missing
    assert found.scans["flair"].number == 9
    assert found.unused[:2] == ["5 ep2d_diff_TRACEW (dwi)", "6 ep2d_diff_ADC (adc)"]
    assert names(find_scans([adc, trace, *flairs])) == {
        "dwi": "ep2d_diff_TRACEW", "adc": "ep2d_diff_ADC", "flair": "FLAIR"}  # fmt: skip
    b0 = series("ep2d_diff_b0", 8, [0])
    assert names(find_scans([adc, b0, trace]))["b0"] == "ep2d_diff_b0"
    other = series("another_b0", 12, [0], slices=40)  # of another acquisition: not on the DWI's grid
    assert "no b0 and no ADC for 5 ep2d_diff_TRACEW" in find_scans([other, trace]).missing[0]


def test_a_trace_image_has_the_b_of_its_directions():
    directions, trace = (
        series("dwi", 1, [0, 2500], AcquisitionTime="12:11"),
        series("t_TRACEW", 2, AcquisitionTime="12:11"),
    )
    found = find_scans([directions, trace])
    there = "(series: 1 dwi, b = 0, 2500; 2 t_TRACEW)"
    assert not found.scans
    assert found.missing == [f"no DWI with b between 800 and 1200 s/mm^2 {there}", f"no FLAIR {there}"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Two phantoms as NIfTI in raw/, the same as folders of DICOM files in dicom/, and the fake program in bin/."""
    folder = tmp_path_factory.mktemp("dicom")
    rows = [heads.write_patient(folder / "raw", f"p{n}", n) | {"split": "train"} for n in range(2)]
    heads.write_table(folder / "raw", rows)
    heads.write_atlas(folder / "atlas.nii.gz")
    for row in rows:
        scans = {name: nibabel.load(folder / "raw" / row[name]) for name in ("dwi", "b0", "flair")}
        both = np.stack([scans[name].get_fdata(dtype=np.float32) for name in ("b0", "dwi")], -1)
        series_file = folder / "raw" / f"{row['patient']}_series.nii.gz"
        nibabel.save(nibabel.Nifti1Image(both, scans["dwi"].affine), series_file)
        for number, (header, nifti, bvals) in enumerate(
            ((DWI, series_file, [0, 1000]), (FLAIR, folder / "raw" / row["flair"], []),
             ({"SeriesDescription": "localizer"}, folder / "raw" / row["flair"], [])), 1):  # fmt: skip
            place = folder / "dicom" / row["patient"] / f"series{number}"
            place.mkdir(parents=True)
            told = {"header": header | {"SeriesNumber": number}, "nifti": str(nifti), "bvals": bvals}
            (place / "1.dcm").write_bytes(bytes(128) + b"DICM" + json.dumps(told).encode())
    program = folder / "bin" / "dcm2niix"
    program.parent.mkdir()
    program.write_text(FAKE.format(python=sys.executable))
    program.chmod(0o755)
    return folder


@pytest.fixture
def own(raw, installed):
    """DATA of the same patients' NIfTI files, prepared once, and a checkpoint of it."""
    if not (raw / "own").exists():
        assert run(raw, raw / "raw" / "cohort.csv", raw / "own") == 0
        settings = {"preprocessing": read_settings(raw / "own")}
        save_checkpoint(raw / "best.pt", 4, raw / "own", patients_seen={}, settings=settings)
    return raw / "own"


@pytest.fixture
def installed(raw, monkeypatch, known_affines):
    """The fake program is on PATH, nothing is drawn, and what was seen of folders is forgotten."""
    monkeypatch.setenv("PATH", f"{raw / 'bin'}{os.pathsep}{os.environ['PATH']}")
    no_pictures(monkeypatch)
    no_bias_correction(monkeypatch)
    (raw / "bin" / "calls").unlink(missing_ok=True)
    dicom._stamp.cache_clear()
    dicom.is_dicom.cache_clear()
    return raw / "bin" / "calls"


def run(raw, source, out, *more):
    words = ["--out", str(out), "--atlas", str(raw / "atlas.nii.gz"), "--tools", "builtin", "--grid", "16", "16", "8"]
    return run_preprocess.main([str(source), *words, *more])


def table(out):
    with open(out / "cohort.csv", newline="") as file:
        return {row["patient"]: row for row in csv.DictReader(file)}


def test_a_table_with_folders_is_prepared_as_the_same_scans_are(raw, own, installed, tmp_path, capsys):
    (tmp_path / "cohort.csv").write_text(
        "patient,dicom,dwi,flair,b0,onset_to_mri_min,stroke_side,split,field_strength\n"
        f"p0,{raw}/dicom/p0,,,,100,left,train,\n"
        f"p1,,{raw}/dicom/p1,{raw}/dicom/p1/series2,,300,right,train,1.5\n"
    )
    assert run(raw, tmp_path / "cohort.csv", tmp_path / "data") == 0
    for patient in ("p0", "p1"):
        one, other = (np.load(data / "hemispheres" / f"{patient}.npy") for data in (tmp_path / "data", own))
        assert np.array_equal(one, other)
    rows = table(tmp_path / "data")
    assert rows["p0"]["dwi"] == "converted/p0/dwi.nii.gz" and rows["p0"]["status"] == "ok"
    assert rows["p0"]["dicom_series"] == "dwi: 1 ep2d_diff_3scan_trace, b = 0, 1000; flair: 2 t2_tirm_tra_dark-fluid"
    assert [rows["p0"][name] for name in ("field_strength", "b_values", "flair_ti_ms")] == ["3", "0 1000", "2500"]
    assert rows["p1"]["field_strength"] == "1.5"  # the table knows better
    assert sorted(path.name for path in (tmp_path / "data" / "converted" / "p0").iterdir()) == [
        "dwi.bval", "dwi.json", "dwi.nii.gz", "flair.json", "flair.nii.gz", "found.json"]  # fmt: skip
    assert installed.read_text().count("\n") == 3  # p1 has two folders
    capsys.readouterr()
    assert run(raw, tmp_path / "cohort.csv", tmp_path / "data") == 0
    assert "2 of 2 patients are already finished" in capsys.readouterr().out
    assert installed.read_text().count("\n") == 3  # not converted again
    assert run(raw, tmp_path / "data" / "cohort.csv", tmp_path / "again", "--dry-run") == 0  # a table like any


def test_a_folder_of_patients_and_what_is_missing_in_one(raw, own, installed, tmp_path, capsys):
    os.makedirs(tmp_path / "in" / "p1" / "s")
    (tmp_path / "in" / "p1" / "s" / "1.dcm").write_bytes((raw / "dicom" / "p1" / "series1" / "1.dcm").read_bytes())
    (tmp_path / "in" / "p1" / "broken").touch()  # the program complains, and has converted something
    data = tmp_path / "data"
    words = ["--out", str(data), "--atlas", str(raw / "atlas.nii.gz"), "--like", str(raw / "best.pt")]
    assert run_preprocess.main([str(tmp_path / "in"), *words]) == 1
    assert ": 1 patients by their folders of DICOM files; onset" in capsys.readouterr().out
    rows = table(data)
    assert (rows["p1"]["status"], rows["p1"]["split"]) == ("failed", "external")
    assert "no FLAIR (series: 1 ep2d_diff_3scan_trace, b = 0, 1000)" in rows["p1"]["reason"]
    calls = installed.read_text().count("\n")
    (tmp_path / "in" / "p1" / "s" / "2.dcm").write_bytes((raw / "dicom" / "p1" / "series2" / "1.dcm").read_bytes())
    dicom._stamp.cache_clear()
    assert run_preprocess.main([str(tmp_path / "in"), *words]) == 0
    assert table(data)["p1"]["status"] == "ok" and installed.read_text().count("\n") == calls + 1


def test_a_new_patient_from_a_folder_has_the_answer_of_the_same_scans(raw, own, tmp_path):
    path, row = str(raw / "best.pt"), table(own)["p1"]
    scans = [str(own / row[name]) for name in ("dwi", "b0", "flair")]
    more = ["--atlas", str(raw / "atlas.nii.gz"), "--tools", "builtin", "--side", "left", "--gradcam", "0"]
    answers = []
    for given, out in ((scans, "nifti"), ([str(raw / "dicom" / "p1")], "dicom")):
        assert run_eval.main([path, "--patient", *given, *more, "--out", str(tmp_path / out)]) == 0
        answers.append(json.loads((tmp_path / out / "result.json").read_text()))
    assert answers[0]["results"][0]["probability"] == answers[1]["results"][0]["probability"]
    assert answers[1]["scans"]["dicom_series"].startswith("dwi: 1 ep2d_diff_3scan_trace, b = 0, 1000; flair: 2 ")
    assert answers[1]["scans"]["dwi"] == str(tmp_path / "dicom" / "converted" / "patient" / "dwi.nii.gz")


def test_without_the_program_the_message_says_what_to_type(raw, installed, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "cohort.csv").write_text(f"patient,dicom\np0,{raw}/dicom/p0\n")
    assert run(raw, tmp_path / "cohort.csv", tmp_path / "data") == 2
    said = capsys.readouterr().err
    assert "dcm2niix, which is not installed. Install it (pip install dcm2niix" in said
    assert "dcm2niix -b y -z y -o NIFTI_FOLDER DICOM_FOLDER" in said
    assert run(raw, tmp_path / "cohort.csv", tmp_path / "data") == 2  # and nothing of it is remembered
    assert not (tmp_path / "data").exists() or not any((tmp_path / "data").glob("converted/*"))


@pytest.mark.parametrize(("make", "message"), [
    (lambda folder: None, "is no folder. Name the folder with this patient's DICOM files"),
    (lambda folder: folder.mkdir(), "image of it. Export its series again as DICOM. It said: Convert something"),
])  # fmt: skip
def test_a_folder_without_images_fails_its_patient_alone(raw, installed, tmp_path, make, message):
    make(tmp_path / "empty")
    (tmp_path / "cohort.csv").write_text(f"patient,dicom,split\np0,{raw}/dicom/p0,train\np1,{tmp_path}/empty,train\n")
    assert run(raw, tmp_path / "cohort.csv", tmp_path / "data") == 1
    rows = table(tmp_path / "data")
    assert rows["p0"]["status"] == "ok" and message in rows["p1"]["reason"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_what_is_killed_while_it_converts_leaves_nothing_to_the_next_run(raw, installed, tmp_path, capsys):
    (tmp_path / "cohort.csv").write_text(f"patient,dicom,split\np0,{raw}/dicom/p0,train\n")
    slow, converted = raw / "bin" / "slow", tmp_path / "data" / "converted"
    slow.touch()
    words = ["run_preprocess.py", tmp_path / "cohort.csv", "--out", tmp_path / "data", "--tools", "builtin"]
    words += ["--atlas", raw / "atlas.nii.gz", "--grid", "16", "16", "8"]
    killed = subprocess.Popen([sys.executable, *map(str, words)], cwd=Path(run_preprocess.__file__).parent)
    try:
        until(slow.read_text)
    finally:
        killed.kill()
        killed.wait()
    program = int(slow.read_text())
    slow.unlink()
    ends(program)
    assert [path.suffix for path in sorted(converted.iterdir())] == [".p0", ".folder"]
    assert run(raw, tmp_path / "cohort.csv", tmp_path / "data") == 0
    assert [path.name for path in converted.iterdir()] == ["p0"]
    shutil.copytree(converted, tmp_path / "half" / "converted")  # killed when the reference had been converted
    calls = installed.read_text()
    assert run(raw, tmp_path / "cohort.csv", tmp_path / "half") == 0 and installed.read_text() == calls
    (tmp_path / "theirs" / "converted" / "p0").mkdir(parents=True)
    (tmp_path / "theirs" / "converted" / "p0" / "scan.nii.gz").touch()
    assert run(raw, tmp_path / "cohort.csv", tmp_path / "theirs") == 2  # nobody's own files are replaced
    assert "was not made by run_preprocess.py" in capsys.readouterr().err
    (converted / ".5.p0").touch()  # killed when all but tidying was done
    (converted / ".5.p0.folder").mkdir()
    assert run(raw, tmp_path / "cohort.csv", tmp_path / "data", "--overwrite") == 0
    assert [path.name for path in converted.iterdir()] == ["p0"]


def test_a_folder_that_holds_neither_bids_nor_dicom_is_refused_as_before(raw, installed, tmp_path, capsys):
    (tmp_path / "in" / "a").mkdir(parents=True)
    assert run(raw, tmp_path / "in", tmp_path / "data") == 2
    assert "is not a BIDS dataset" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "message"), [
    (["a", "b"], "--patient takes DWI B0 FLAIR, or one folder of DICOM files: 2 given"),
    (["a", "--adc"], "of DICOM files the headers say which is which"),
])  # fmt: skip
def test_flags_of_one_folder(capsys, words, message):
    with pytest.raises(SystemExit):
        run_eval.main(["a.pt", "--patient", *words, "--atlas", "x"])
    assert message in capsys.readouterr().err
