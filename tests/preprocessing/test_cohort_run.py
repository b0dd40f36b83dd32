"""A cohort through run_preprocess.py: what is left behind, skipped, refused, continued; bad patients; odd input."""

import base64
import csv
import errno
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import heads
import nibabel
import numpy as np
import pytest
from quick_preprocessing import no_bias_correction, no_pictures

import run_preprocess
from tss.data import files, nifti
from tss.data.prepared import read_prepared
from tss.data.splits import split_hash
from tss.display import slice_plots
from tss.errors import InputError
from tss.preprocessing import cohort_run, tools
from tss.preprocessing.patient_record import read_record

GRID = ["16", "16", "8"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Four patients and an atlas, as a lab has them. Not to be changed."""
    folder = tmp_path_factory.mktemp("raw")
    heads.write_cohort(folder, 4)
    heads.write_atlas(folder / "atlas.nii.gz")
    return folder


@pytest.fixture
def quick(known_affines, monkeypatch):
    """No registration (the answer is near the identity), bias or picture: these tests are about the cohort."""
    no_pictures(monkeypatch)
    no_bias_correction(monkeypatch)


@pytest.fixture(scope="module")
def done(raw, tmp_path_factory):
    """DATA made with the real tools, once."""
    out = tmp_path_factory.mktemp("done") / "data"
    assert preprocess(raw, out) == 0
    return out


def preprocess(raw: Path, out: Path, *more: str, table: str = "cohort.csv") -> int:
    return run_preprocess.main(
        [
            str(raw / table),
            "--out",
            str(out),
            "--atlas",
            str(raw / "atlas.nii.gz"),
            "--tools",
            "builtin",
            "--grid",
            *GRID,
            *more,
        ]
    )


def rows(out: Path) -> dict[str, dict]:
    with open(out / "cohort.csv", newline="") as file:
        return {row["patient"]: row for row in csv.DictReader(file)}


def content(out: Path) -> dict[str, bytes]:
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*")) if file.is_file()}


def spoiled(raw: Path, folder: Path, spoil) -> Path:
    """Copy the raw folder and let `spoil(folder)` do something to it."""
    shutil.copytree(raw, folder)
    spoil(folder)
    return folder


@pytest.mark.slow
def test_data_folder_is_as_designed(done):
    kinds = ("dwi", "t2w", "flair", "mask")
    expected = {"cohort.csv", "settings.json", "qc/index.html"}
    for name in ("p0", "p1", "p2", "p3"):
        expected |= {f"hemispheres/{name}.npy", f"transforms/{name}.json", f"qc/{name}.png"}
        expected |= {f"registered/{name}_{kind}.nii.gz" for kind in kinds}
    assert set(content(done)) == expected
    halves = np.load(done / "hemispheres" / "p0.npy")
    assert halves.dtype == np.float16 and halves.shape == (2, 3, 8, 16, 8)
    record = json.loads((done / "transforms" / "p0.json").read_text())
    assert np.array(record["b0_to_atlas"]).shape == (4, 4) and record["status"] == "ok"
    settings = json.loads((done / "settings.json").read_text())
    assert settings["grid"] == [16, 16, 8] and settings["tools"].startswith("built-in")
    assert len(settings["reference"]["landmarks"]["dwi"]) == 7 and len(settings["atlas_sha256"]) == 64
    assert sum(map(float, settings["reference"]["histograms"]["flair"].split())) == pytest.approx(1, abs=0.01)


def test_table_keeps_unknown_columns_and_paths_still_lead_to_the_scans(done):
    patients = read_prepared(done)
    assert [p.status for p in patients] == ["ok"] * 4 and patients[0].row["site"] == "A"
    assert all(p.path("dwi").is_file() for p in patients)
    reference = json.loads((done / "settings.json").read_text())["reference"]["patient"]
    assert rows(done)[reference]["split"] == "train"


def test_side_of_the_lesion_is_right_for_every_patient(done):
    for name, row in rows(done).items():
        left, right = np.load(done / "hemispheres" / f"{name}.npy")[:, 0].astype(float)
        assert ("left" if np.percentile(left, 99.5) > np.percentile(right, 99.5) else "right") == row["stroke_side"]


@pytest.mark.slow
def test_finished_patients_are_skipped_and_the_files_stay_the_same(raw, done, tmp_path, capsys):
    out = tmp_path / "data"
    shutil.copytree(done, out)
    before = {name: (out / name).stat().st_mtime_ns for name in content(out) if name.startswith("hemispheres")}
    (out / "transforms" / "p1.json").unlink()  # as if killed while p1 was on
    (out / "hemispheres" / ".123.p1.npy").write_bytes(b"half a file")
    (out / "hemispheres" / "p1.npy").unlink()
    assert preprocess(raw, out) == 0
    assert content(out) == content(done)
    assert "3 of 4 patients are already finished" in capsys.readouterr().out
    after = {name: (out / name).stat().st_mtime_ns for name in before}
    assert [name for name in before if after[name] != before[name]] == ["hemispheres/p1.npy"]


@pytest.mark.slow
def test_who_lost_a_file_is_done_again(raw, done, tmp_path, capsys):
    out = tmp_path / "data"
    shutil.copytree(done, out)
    (out / "hemispheres" / "p0.npy").unlink()
    cut_short = out / "hemispheres" / "p1.npy"
    cut_short.write_bytes(cut_short.read_bytes()[:-100])
    (out / "registered" / "p2_flair.nii.gz").unlink()
    assert preprocess(raw, out) == 0
    assert "1 of 4 patients are already finished" in capsys.readouterr().out
    assert content(out) == content(done)


@pytest.mark.slow
def touched(path: Path) -> None:
    """Blacken two slices in place, so that neither the size nor the time of the last change tells."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 50_000] = bytes(50_000)
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_scans_are_known_by_their_content(raw, tmp_path, quick, capsys):
    """Changed in place they are done again; archived, linked, copied or touched ones are not."""
    folder, out = spoiled(raw, tmp_path / "raw", lambda folder: None), tmp_path / "data"
    for kind in ("dwi", "b0", "flair"):
        nibabel.save(nibabel.load(raw / f"p1_{kind}.nii.gz"), folder / f"p1_{kind}.nii")
    table = list(csv.DictReader(open(raw / "cohort.csv", newline="")))
    table[1] |= {kind: f"p1_{kind}.nii" for kind in ("dwi", "b0", "flair")}
    heads.write_table(folder, table)
    assert preprocess(folder, out) == 0
    (folder / "p2_dwi.nii.gz").rename(tmp_path / "archived")
    (folder / "link.nii.gz").symlink_to(folder / "p3_dwi.nii.gz")
    shutil.copy(folder / "p3_flair.nii.gz", folder / "copy.nii.gz")
    os.utime(folder / "p0_dwi.nii.gz", (1, 1))
    table[3] |= {"dwi": "link.nii.gz", "flair": "copy.nii.gz"}
    heads.write_table(folder, table)
    assert preprocess(folder, out) == 0
    assert "4 of 4 patients are already finished" in capsys.readouterr().out and rows(out)["p2"]["status"] == "ok"
    before = np.load(out / "hemispheres" / "p1.npy")
    touched(folder / "p1_flair.nii")
    assert preprocess(folder, out) == 0
    assert "3 of 4 patients are already finished" in capsys.readouterr().out
    assert not np.array_equal(np.load(out / "hemispheres" / "p1.npy"), before)


def test_a_bval_changed_in_place_and_a_b_in_the_table_do_the_patient_again(raw, tmp_path, quick, capsys):
    folder, out = spoiled(raw, tmp_path / "raw", lambda folder: None), tmp_path / "data"
    scans = [nibabel.load(folder / f"p1_{kind}.nii.gz") for kind in ("b0", "dwi")]
    series = np.stack([*(scan.get_fdata(dtype=np.float32) for scan in scans), scans[1].get_fdata() * 0.5], -1)
    heads.save(folder / "p1_series.nii.gz", series.astype(np.float32), scans[0].affine)
    (folder / "p1_series.bval").write_text("0 1000 2000")
    table = list(csv.DictReader(open(raw / "cohort.csv", newline="")))
    table[1] |= {"dwi": "p1_series.nii.gz", "b0": ""}
    heads.write_table(folder, [row | {"dwi_b": ""} for row in table])
    assert preprocess(folder, out) == 0
    (folder / "p1_series.bval").write_text("0 2000 1000")
    capsys.readouterr()
    assert preprocess(folder, out) == 0
    assert "3 of 4 patients are already finished" in capsys.readouterr().out
    heads.write_table(folder, [row | {"dwi_b": "900" if row["patient"] == "p3" else ""} for row in table])
    assert preprocess(folder, out) == 0
    assert "3 of 4 patients are already finished" in capsys.readouterr().out


def test_two_patients_are_not_one_scan(raw, tmp_path, quick, capsys):
    """The same three files under another name, stored differently, in another split; one FLAIR of another patient."""

    def spoil(folder):
        table = list(csv.DictReader(open(folder / "cohort.csv", newline="")))
        split = dict(zip(("p0", "p1", "p2", "p3"), ("train", "train", "test", "test"), strict=True))
        table = [row | {"split": split[row["patient"]]} for row in table]
        for kind in ("dwi", "b0", "flair"):  # other axes, no compression, double precision
            image = nibabel.load(folder / f"p0_{kind}.nii.gz")
            turned = nibabel.Nifti1Image(image.get_fdata()[::-1], image.affine @ np.diag([-1.0, 1, 1, 1]))
            turned.affine[:3, 3] = image.affine[:3] @ [image.shape[0] - 1, 0, 0, 1]
            nibabel.save(nibabel.Nifti1Image(turned.get_fdata(), turned.affine), folder / f"x_{kind}.nii")
        table[2] |= {kind: f"x_{kind}.nii" for kind in ("dwi", "b0", "flair")}
        heads.write_table(folder, table)

    folder, out = spoiled(raw, tmp_path / "raw", spoil), tmp_path / "data"
    assert preprocess(folder, out) == 1
    found = rows(out)
    assert {name: row["status"] for name, row in found.items()} == {
        "p0": "failed",
        "p1": "ok",
        "p2": "failed",
        "p3": "ok",
    }
    assert (
        "p0_dwi.nii.gz and " in found["p0"]["reason"]
        and "x_dwi.nii of patient p2 hold the same voxels" in found["p0"]["reason"]
    )
    assert f"{folder / 'x_dwi.nii'} and {folder / 'p0_dwi.nii.gz'} of patient p0 hold" in found["p2"]["reason"]
    assert "2 failed" in capsys.readouterr().out

    shutil.copy(raw / "p3_flair.nii.gz", folder / "p1_flair.nii.gz")
    assert preprocess(folder, out) == 1
    assert (
        "p1_flair.nii.gz and " in rows(out)["p1"]["reason"]
        and "p3_flair.nii.gz of patient p3" in rows(out)["p1"]["reason"]
    )

    shutil.copy(raw / "p1_flair.nii.gz", folder)
    table = list(csv.DictReader(open(folder / "cohort.csv", newline="")))
    heads.write_table(folder, [row for row in table if row["patient"] != "p2"])
    assert preprocess(folder, out) == 0  # once the table is right, the rest need not be done again
    assert {row["status"] for row in rows(out).values()} == {"ok"}


def test_one_file_in_two_columns_is_refused_with_both_named(raw, tmp_path, quick):
    def spoil(folder):
        shutil.copy(folder / "p1_dwi.nii.gz", folder / "copy.nii.gz")
        table = list(csv.DictReader(open(folder / "cohort.csv", newline="")))
        table[1]["b0"] = "copy.nii.gz"
        heads.write_table(folder, table)

    assert preprocess(spoiled(raw, tmp_path / "raw", spoil), tmp_path / "data") == 1
    reason = rows(tmp_path / "data")["p1"]["reason"]
    assert "p1_dwi.nii.gz and " in reason and "copy.nii.gz hold the same voxels" in reason


def test_splits_too_small_for_a_task_are_said_before_any_work(raw, tmp_path, capsys):
    assert preprocess(raw, tmp_path / "data", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "too few for 'TSS < 3 h': " in said and "val has 0 positive of 1 hemispheres" in said
    assert "too few for 'stroke in the hemisphere'" not in said


def test_a_cohort_without_training_patients_is_refused_with_the_reason(raw, tmp_path, capsys):
    def spoil(folder):
        table = list(csv.DictReader(open(folder / "cohort.csv", newline="")))
        heads.write_table(folder, [row | {"split": "test"} for row in table])

    assert preprocess(spoiled(raw, tmp_path / "raw", spoil), tmp_path / "data") == 2
    assert "no patient is in split 'train'" in capsys.readouterr().err


def test_labels_may_be_absent_and_an_empty_cell_is_a_failed_row(raw, tmp_path, quick):
    def spoil(folder):
        table = list(csv.DictReader(open(folder / "cohort.csv", newline="")))
        table = [{name: row[name] for name in ("patient", "dwi", "b0", "flair")} for row in table]
        table[2]["flair"] = ""
        heads.write_table(folder, [row | {"split": "train"} for row in table])

    out = tmp_path / "data"
    assert preprocess(spoiled(raw, tmp_path / "raw", spoil), out) == 1
    assert [patient.status for patient in read_prepared(out)] == ["ok", "ok", "failed", "ok"]
    assert rows(out)["p2"]["reason"] == "no flair is given. Name the file in column flair."


@pytest.mark.slow
def test_two_shards_and_two_jobs_leave_what_one_run_leaves(raw, done, tmp_path):
    out = tmp_path / "data"
    assert preprocess(raw, out, "--shard", "2/2") == 0
    assert [row["status"] for row in rows(out).values()] == ["", "ok", "", "ok"]
    assert preprocess(raw, out, "--shard", "1/2", "--jobs", "2") == 0
    assert content(out) == content(done)


def test_shards_on_two_kinds_of_processor_that_start_at_once_agree_on_the_reference(raw, tmp_path, quick, monkeypatch):
    """The second finds the reference, rounded otherwise, while the first has begun and ends."""
    out, find = tmp_path / "data", cohort_run._find_reference

    def late(patients, options, atlas):
        found = find(patients, options, atlas)
        if options.shard.part == 2:
            assert preprocess(raw, out, "--shard", "1/2") == 0
            found["landmarks"]["dwi"] = [value * (1 + 1e-5) for value in found["landmarks"]["dwi"]]
        return found

    monkeypatch.setattr(cohort_run, "_find_reference", late)
    assert preprocess(raw, out, "--shard", "2/2") == 0
    assert {row["status"] for row in rows(out).values()} == {"ok"}


def test_shards_that_write_the_reference_at_once_take_the_last_one(raw, tmp_path, quick, monkeypatch):
    out, assemble, written = tmp_path / "data", cohort_run._assemble, []

    def then_another(*given):
        table = assemble(*given)
        if not written:
            settings = json.loads((out / "settings.json").read_text())
            settings["reference"]["landmarks"]["dwi"][0] *= 1 + 1e-5
            files.write_json(out / "settings.json", settings)
            written.append(settings)
        return table

    monkeypatch.setattr(cohort_run, "_assemble", then_another)
    assert preprocess(raw, out, "--shard", "1/2") == 0
    assert [bool(read_record(patient, out, written[0])) for patient in read_prepared(out)] == [True, False, True, False]


def test_a_lesion_on_the_other_side_than_the_tables_is_flagged_and_a_corrected_table_is_enough(
    raw, tmp_path, quick, capsys
):
    """The scans say right of p0. Its mask too; the table says left, then right: no patient is done again for that."""
    table = list(csv.DictReader(open(raw / "cohort.csv", newline="")))[:1]
    folder = spoiled(raw, tmp_path / "raw", lambda folder: None)
    affine = heads.grid(*heads.DWI_GRID)
    voxels = np.indices(heads.DWI_GRID[0]).reshape(3, -1)
    mask = heads.in_lesion(nifti.apply_affine(affine, voxels)).reshape(heads.DWI_GRID[0])
    heads.save(folder / "mask.nii.gz", 2 * mask.astype(np.uint8), affine)
    for side, flags in (("left", 1), ("right", 0), ("both", 0)):
        heads.write_table(folder, [table[0] | {"stroke_side": side, "lesion": "mask.nii.gz", "split": "train"}])
        assert preprocess(folder, tmp_path / "data") == 0
        said = "stroke_side is left, but 100% of the lesion mask lies in the other hemisphere"
        assert rows(tmp_path / "data")["p0"]["flags"].count(said) == flags
        assert capsys.readouterr().out.count("already finished") == (side != "left")


def test_another_seed_whose_run_is_killed_at_once_draws_its_split_when_it_is_rerun(
    raw, done, tmp_path, quick, monkeypatch
):
    out = tmp_path / "data"
    shutil.copytree(done, out)
    drawn = {name: row["split"] for name, row in rows(done).items()}
    before = dict(zip(drawn, ("train", "val", "test", "train"), strict=True))
    heads.write_table(out, [row | {"split": before[name]} for name, row in rows(out).items()])
    with monkeypatch.context() as patch:
        patch.setattr(cohort_run, "_assemble", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            preprocess(raw, out, "--overwrite", "--seed", "5")
    assert {name: row["split"] for name, row in rows(out).items()} == before
    assert preprocess(raw, out, "--overwrite", "--seed", "5", "--shard", "1/4") == 0
    assert {name: row["split"] for name, row in rows(out).items()} == drawn  # of four patients each seed draws the same


@pytest.mark.parametrize("missing", [True, False])
def test_a_shard_does_not_wait_for_others_that_finish_patients_all_the_time(raw, done, tmp_path, monkeypatch, missing):
    out, times = tmp_path / "data", []
    shutil.copytree(done, out)

    def busy(patient, *more):
        record = read_record(patient, *more)
        if patient.id == "p0" and len(times) < 9:  # another shard does p0 again and again, nine times
            times.append(1)
            record["flags"] = [f"flag {len(times)}"]
        return None if missing and patient.id == "p3" else record

    monkeypatch.setattr(cohort_run, "read_record", busy)
    options = cohort_run.Options(out / "cohort.csv", out, out / "atlas.nii.gz", "builtin")
    written = cohort_run._assemble(read_prepared(out), options, json.loads((out / "settings.json").read_text()))
    assert len(times) == (4 if missing else 9)  # the last one, after writing, is only looked at
    assert written[0].row["flags"] == rows(out)["p0"]["flags"] == ("flag 3" if missing else "")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--grid", "16", "16", "10"], "grid was [16, 16, 8], now [16, 16, 10]"),
        (["--seed", "3"], "seed was 0, now 3"),
        (["--reference", "p9"], "now p9"),
    ],
)
def test_other_settings_are_refused_with_both_values(raw, done, capsys, more, message):
    before = content(done)
    assert preprocess(raw, done, *more) == 2
    said = capsys.readouterr().err
    assert message in said and "--overwrite" in said and "Traceback" not in said
    assert content(done) == before


@pytest.mark.slow
def test_overwrite_takes_other_settings(raw, done, tmp_path, quick):
    out = tmp_path / "data"
    shutil.copytree(done, out)
    assert preprocess(raw, out, "--overwrite", "--grid", "12", "16", "8") == 0
    assert np.load(out / "hemispheres" / "p0.npy").shape == (2, 3, 8, 16, 6)


@pytest.mark.slow
def test_overwrite_leaves_the_split_as_it_is_but_with_another_seed(raw, done, tmp_path, quick):
    """Whoever was tested on may not be trained on; a table that says otherwise is believed, as it is the user's."""
    out = tmp_path / "data"
    shutil.copytree(done, out)
    given = dict(zip(("p0", "p1", "p2", "p3"), ("test", "val", "train", "train"), strict=True))
    heads.write_table(out, [row | {"split": given[name]} for name, row in rows(out).items()])

    def splits(*more, folder=raw):
        assert preprocess(folder, out, "--overwrite", *more) == 0
        return {name: row["split"] for name, row in rows(out).items()}

    assert splits() == given
    fewer = spoiled(
        raw,
        tmp_path / "raw",
        lambda folder: heads.write_table(folder, list(csv.DictReader(open(folder / "cohort.csv", newline="")))[:3]),
    )
    assert splits(folder=fewer) == {name: given[name] for name in ("p0", "p1", "p2")}
    assert splits("--seed", "1") != given
    table = list(csv.DictReader(open(raw / "cohort.csv", newline="")))
    changed = spoiled(
        raw, tmp_path / "more", lambda folder: heads.write_table(folder, [row | {"split": "train"} for row in table])
    )
    assert set(splits("--seed", "1", folder=changed).values()) == {"train"}


def test_the_page_of_finished_patients_holds_its_pictures_on_request_and_nothing_else_changes(raw, done, tmp_path):
    out = tmp_path / "data"
    shutil.copytree(done, out)
    before = content(out)
    assert before["qc/index.html"].count(b'src="p') == 4 and b"base64," not in before["qc/index.html"]
    assert preprocess(raw, out, "--qc-inline") == 0
    page = content(out)["qc/index.html"]
    assert content(out) == before | {"qc/index.html": page}
    pictures = {base64.b64encode(before[f"qc/p{number}.png"]) for number in range(4)}
    assert set(re.findall(rb'src="data:image/png;base64,([^"]+)"', page)) == pictures and b'src="p' not in page
    assert preprocess(raw, out) == 0 and content(out) == before


def judge(out: Path, verdicts: dict[str, tuple[str, str]]) -> None:
    """Put verdicts into DATA/cohort.csv, as the file that qc/index.html offers has them."""
    table = [
        row | dict(zip(("verdict", "verdict_remark"), verdicts.get(name, ("", "")), strict=True))
        for name, row in rows(out).items()
    ]
    heads.write_table(out, table)


def test_verdicts_outlive_another_run_but_not_their_pictures(raw, done, tmp_path, quick, capsys):
    out = tmp_path / "data"
    shutil.copytree(done, out)
    reference = json.loads((out / "settings.json").read_text())["reference"]["patient"]
    given = {"p0": ("accept", ""), "p1": ("reject", 'eyes, "kept"\nübrigens'), reference: ("reject", "tilted")}
    judge(out, given)
    split, before = split_hash(read_prepared(done)), content(out)
    assert preprocess(raw, out) == 0
    said = capsys.readouterr().out
    assert f"{len({'p1', reference})} of 4 patients are rejected at quality control" in said
    assert f"rejected at quality control {len({'p1', reference})}, excluded from what follows" in said
    assert "the histogram reference is one of them" in said and "--reference PATIENT --overwrite" in said
    assert {name: (row["verdict"], row["verdict_remark"]) for name, row in rows(out).items() if row["verdict"]} == given
    patients = {patient.id: patient for patient in read_prepared(out)}
    assert patients["p1"].status == "rejected" and split_hash(list(patients.values())) == split
    assert {name for name, data in content(out).items() if before[name] != data} == {"cohort.csv", "qc/index.html"}
    assert json.dumps(given["p1"][1]) in (out / "qc" / "index.html").read_text()

    # p1's FLAIR is another scan now, so p1 is done again; nobody else is.
    table = list(csv.DictReader(open(raw / "cohort.csv", newline="")))
    folder = spoiled(raw, tmp_path / "raw", lambda folder: None)
    for row in table:
        row |= {name: str(raw / row[name]) for name in ("dwi", "b0", "flair")}
    table[1]["flair"] = str(folder / "p1_flair.nii.gz")
    scan = nibabel.load(folder / "p1_flair.nii.gz")
    nibabel.save(nibabel.Nifti1Image(scan.get_fdata(dtype=np.float32) * 1.5, scan.affine), folder / "p1_flair.nii.gz")
    heads.write_table(folder, table)
    assert preprocess(folder, out) == 0
    assert (
        "1 verdicts of quality control are dropped with the pictures that they judged, which are drawn again. "
        "Rejected were p1: judge them again." in capsys.readouterr().out
    )
    assert {name for name, row in rows(out).items() if row["verdict"]} == set(given) - {"p1"}
    capsys.readouterr()
    assert preprocess(folder, out, "--overwrite", "--shard", "1/4") == 0
    assert "1 verdicts of quality control are dropped with the pictures" in capsys.readouterr().out
    assert {name for name, row in rows(out).items() if row.get("verdict")} == set(given) - {"p0", "p1"}


def test_a_verdict_goes_with_its_picture_in_every_order_of_commands(
    raw, done, tmp_path, known_affines, monkeypatch, capsys
):
    """The table with verdicts is downloaded, the patient done again, and only then is the table put in its place."""
    no_bias_correction(monkeypatch)
    monkeypatch.setattr(
        slice_plots, "draw_qc", lambda path, volumes, *_: files.write_text(path, str(volumes["flair"].mean()))
    )
    folder, out = spoiled(raw, tmp_path / "raw", lambda folder: None), tmp_path / "data"
    assert preprocess(folder, out) == 0
    judge(out, {"p1": ("accept", ""), "p2": ("reject", "tilted")})
    downloaded = (out / "cohort.csv").read_bytes()
    scan = nibabel.load(folder / "p1_flair.nii.gz")
    changed = scan.get_fdata(dtype=np.float32)
    changed[:, :, 12] *= 3
    nibabel.save(nibabel.Nifti1Image(changed, scan.affine), folder / "p1_flair.nii.gz")
    assert preprocess(folder, out) == 0
    (out / "cohort.csv").write_bytes(downloaded)
    with pytest.raises(InputError, match="the verdict of p1 is of another picture"):
        read_prepared(out)  # by training and evaluation
    capsys.readouterr()
    assert preprocess(folder, out) == 0
    assert "1 verdicts of quality control are dropped" in capsys.readouterr().out
    assert {name: row["verdict"] for name, row in rows(out).items()} == {"p0": "", "p1": "", "p2": "reject", "p3": ""}
    assert (
        preprocess(out, tmp_path / "again", "--atlas", str(raw / "atlas.nii.gz")) == 0
    )  # verdicts are not of these pictures
    assert not any(row.get("verdict") for row in rows(tmp_path / "again").values())


def test_dry_run_writes_nothing(raw, tmp_path, capsys):
    assert preprocess(raw, tmp_path / "data", "--dry-run") == 0
    assert "4 of 4 patients would be preprocessed" in capsys.readouterr().out
    assert not (tmp_path / "data").exists()


def test_dry_run_knows_what_is_finished(raw, done, capsys):
    before = content(done)
    assert preprocess(raw, done, "--dry-run") == 0
    assert "0 of 4 patients would be preprocessed" in capsys.readouterr().out and content(done) == before


@pytest.mark.slow
def test_paths_are_right_where_data_is_a_link(raw, tmp_path, quick):
    (tmp_path / "scratch" / "deep" / "data").mkdir(parents=True)
    (tmp_path / "data").symlink_to(tmp_path / "scratch" / "deep" / "data")
    assert preprocess(raw, tmp_path / "data") == 0
    for patient in read_prepared(tmp_path / "data"):
        assert all(patient.path(name).is_file() for name in ("dwi", "b0", "flair"))


def test_what_may_not_be_read_is_told(raw, tmp_path, monkeypatch, capsys):
    def refused(self, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_dir", refused)  # tests may run as root, who may read everything
    assert preprocess(raw, tmp_path / "data") == 2
    assert "Permission denied" in (said := capsys.readouterr().err) and "Check who may read" in said


def test_an_image_of_one_value_is_told(raw, tmp_path, capsys):
    nifti.save(tmp_path / "flat.nii.gz", np.ones((20, 20, 10), np.float32), np.diag([8, 8, 12, 1.0]))
    assert (
        run_preprocess.main(
            [
                str(raw / "cohort.csv"),
                "--out",
                str(tmp_path / "data"),
                "--tools",
                "builtin",
                "--atlas",
                str(tmp_path / "flat.nii.gz"),
                "--grid",
                *GRID,
            ]
        )
        == 2
    )
    assert "flat.nii.gz has the same value everywhere" in capsys.readouterr().err


@pytest.mark.slow
def test_reference_can_be_chosen_and_must_be_a_training_patient(raw, done, tmp_path, quick, capsys):
    split = {name: row["split"] for name, row in rows(done).items()}
    training = [name for name in split if split[name] == "train"]
    assert preprocess(raw, tmp_path / "a", "--reference", training[-1]) == 0
    assert json.loads((tmp_path / "a" / "settings.json").read_text())["reference"]["patient"] == training[-1]
    other = next(name for name in split if split[name] != "train")
    assert preprocess(raw, tmp_path / "b", "--reference", other) == 2
    assert f"--reference {other} is not a training patient" in capsys.readouterr().err


def write(path: Path, data: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(data, nibabel.load(path).affine), path)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


BAD = {  # what is done to the scans of a patient, and what the reason must say
    "missing": ("flair", Path.unlink, "_flair.nii.gz does not exist"),
    "missing-too": ("flair", Path.unlink, "_flair.nii.gz does not exist"),
    "truncated": ("dwi", cut_short, "cut off"),
    "text": ("b0", lambda path: path.write_text("not a scan"), "_b0.nii.gz is not a NIfTI file"),
    "2-D": ("dwi", lambda path: write(path, np.ones((8, 8), np.float32)), "is 2-D"),
    "4-D": ("dwi", lambda path: write(path, np.ones((8, 8, 8, 3), np.float32)), "is 4-D"),
    "NaN": ("flair", lambda path: write(path, np.full((8, 8, 8), np.nan, np.float32)), "NaN or infinite"),
    "zero": ("b0", lambda path: write(path, np.zeros((8, 8, 8), np.float32)), "zero everywhere"),
    "shape": ("b0", lambda path: write(path, np.ones((8, 8, 8), np.float32)), "differ in shape"),
    "dark": ("dwi", lambda path: write(path, np.full(heads.DWI_GRID[0], -1, np.float32)), "no positive voxels"),
    "no-head": (
        "dwi",
        lambda path: write(path, np.pad(np.ones((4, 4, 4), np.float32), [(26, 26), (32, 32), (10, 10)])),
        "looks like brain in it measures",
    ),
}


@pytest.mark.slow
def test_bad_patients_keep_their_rows_with_the_reason_and_the_rest_is_complete(raw, tmp_path, quick, capsys):
    folder, out = tmp_path / "raw", tmp_path / "data"
    shutil.copytree(raw, folder)
    table = list(csv.DictReader(open(raw / "cohort.csv", newline="")))[:2]
    for kind, (scan, spoil, _) in BAD.items():
        row = table[0] | {"patient": kind}
        for name in ("dwi", "b0", "flair"):
            row[name] = f"{kind}_{name}.nii.gz"
            shutil.copy(raw / f"p0_{name}.nii.gz", folder / row[name])
        spoil(folder / row[scan])
        table.append(row)
    heads.write_table(folder, table)

    assert preprocess(folder, out) == 1
    done = rows(out)
    assert [name for name in done if done[name]["status"] == "ok"] == ["p0", "p1"]
    for kind, (_, _, message) in BAD.items():
        assert done[kind]["status"] == "failed" and message in done[kind]["reason"], kind
        assert not [name for name in content(out) if kind in name and not name.startswith("transforms")]
    said = capsys.readouterr()
    assert "13 patients in, 2 finished, 0 of them flagged, 11 failed" in said.out
    assert re.search(r"failed      2  \S+missing_flair.nii.gz does not exist.*\[missing, missing-too\]", said.out)
    assert "Traceback" not in said.err + said.out


def break_b0(folder: Path) -> None:
    (folder / "p1_b0.nii.gz").write_text("not a scan")


@pytest.mark.slow
def test_a_failed_patient_is_tried_again(raw, tmp_path, quick):
    folder, out = spoiled(raw, tmp_path / "raw", break_b0), tmp_path / "data"
    assert preprocess(folder, out) == 1
    shutil.copy(raw / "p1_b0.nii.gz", folder)
    assert preprocess(folder, out) == 0
    assert rows(out)["p1"]["status"] == "ok" and rows(out)["p1"]["reason"] == ""


@pytest.mark.slow
def test_the_next_training_patient_is_the_reference_where_the_first_fails(raw, tmp_path, quick, capsys):
    def spoil(folder):
        table = list(csv.DictReader(open(folder / "cohort.csv", newline="")))
        heads.write_table(folder, [row | {"split": "train" if k < 3 else "test"} for k, row in enumerate(table)])
        (folder / "p0_b0.nii.gz").write_text("not a scan")

    folder, out = spoiled(raw, tmp_path / "raw", spoil), tmp_path / "data"
    assert preprocess(folder, out) == 1
    assert "p0 cannot be the histogram reference" in capsys.readouterr().out
    assert json.loads((out / "settings.json").read_text())["reference"]["patient"] == "p1"


@pytest.mark.slow
def test_an_unexpected_fault_is_a_failed_patient_too(raw, tmp_path, quick, monkeypatch):
    sound = tools.BUILTIN

    def odd(dwi, b0):
        if dwi.path.name == "p3_dwi.nii.gz":
            raise ZeroDivisionError("oh")
        return sound.find_brain(dwi, b0)

    monkeypatch.setattr(tools, "BUILTIN", replace(sound, find_brain=odd))
    split = [{"split": "train"}, {"split": "train"}, {"split": "train"}, {"split": "test"}]

    def spoil(folder):
        table = list(csv.DictReader(open(folder / "cohort.csv", newline="")))
        heads.write_table(folder, [row | more for row, more in zip(table, split, strict=True)])

    out = tmp_path / "data"
    assert preprocess(spoiled(raw, tmp_path / "raw", spoil), out) == 1
    assert rows(out)["p3"]["reason"] == "unexpected ZeroDivisionError: oh. Please report it."


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_leaves_nothing_half_written(raw, tmp_path, quick, monkeypatch, capsys):
    out, replace = tmp_path / "data", os.replace

    def full(source, target):
        if str(target).endswith("p2_flair.nii.gz"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert preprocess(raw, out) == 2
    assert "p2_flair.nii.gz cannot be written: No space left on device" in capsys.readouterr().err
    assert not [name for name in content(out) if Path(name).name.startswith(".")]
    assert not (out / "transforms" / "p2.json").exists()
    monkeypatch.setattr(os, "replace", replace)
    assert preprocess(raw, out) == 0


def test_out_that_is_a_file_or_a_strangers_folder_is_refused(raw, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert preprocess(raw, tmp_path / "file") == 2
    assert "is a file" in capsys.readouterr().err
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("mine")
    assert preprocess(raw, tmp_path / "thesis") == 2
    assert "was not made by run_preprocess.py" in capsys.readouterr().err
    assert os.listdir(tmp_path / "thesis") == ["chapter1.txt"]


def test_a_changed_split_is_refused(raw, done, tmp_path, capsys):
    def spoil(folder):
        table = list(csv.DictReader(open(folder / "cohort.csv", newline="")))
        given = rows(done)["p0"]["split"]
        heads.write_table(folder, [row | {"split": "val" if given != "val" else "test"} for row in table])

    out = tmp_path / "data"
    shutil.copytree(done, out)
    assert preprocess(spoiled(raw, tmp_path / "raw", spoil), out) == 2
    assert "patient p0 is in split" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--jobs", "0"], "--jobs 0: at least 1"),
        (["--grid", "16", "16", "7"], "at least 8 each"),
        (["--shard", "3/2"], "3/2"),
        (["--shard", "two"], "not of the form I/N"),
        (["--tool", "fsl"], "unrecognized"),
        (["--seed", "-1"], "0 or"),
    ],
)
def test_wrong_use_is_refused_at_once(raw, tmp_path, capsys, more, message):
    with pytest.raises(SystemExit) as stopped:
        preprocess(raw, tmp_path / "data", *more)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_a_grid_that_cannot_be_is_told_before_any_work(raw, tmp_path, capsys):
    for grid, message in ((("15", "16", "8"), "must be even"), (("4000", "16", "8"), "voxels of 0.046 x 13.8 x 23 mm")):
        assert preprocess(raw, tmp_path / "data", "--grid", *grid) == 2
        assert message in capsys.readouterr().err and not (tmp_path / "data").exists()


def test_missing_table_and_atlas_are_told(raw, tmp_path, capsys):
    assert preprocess(raw, tmp_path / "data", table="none.csv") == 2
    assert "none.csv cannot be read" in capsys.readouterr().err
    assert run_preprocess.main([str(raw / "cohort.csv"), "--out", str(tmp_path / "d"), "--atlas", "no.nii"]) == 2
    assert "no.nii does not exist" in capsys.readouterr().err
    assert not (tmp_path / "data").exists() and not (tmp_path / "d").exists()
