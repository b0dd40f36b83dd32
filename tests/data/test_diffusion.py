"""b1000 and b0 out of a series, against a diffusion tensor worked out by hand; what is refused and with which words."""

import os
from pathlib import Path

import heads
import nibabel
import numpy as np
import pytest

from tss.data.cohort import Patient, row_problems
from tss.data.diffusion import listed, load_dwi, shells
from tss.errors import InputError
from tss.preprocessing import brain_extraction
from tss.preprocessing.scans import load_scans

REAL = Path(os.environ.get("TSS_REAL", Path(__file__).parents[3] / "shared" / "real")) / "cases"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="no real scans in ../shared/real")
AFFINE = np.diag([2.0, 2, 5, 1])


def save(folder, volumes, bvals=None, name="dwi", **header):
    image = nibabel.Nifti1Image(np.stack(volumes, -1).astype(header.get("dtype", np.float32)), AFFINE)
    image.header.set_slope_inter(header.get("slope"), header.get("inter"))
    nibabel.save(image, folder / f"{name}.nii.gz")
    if bvals is not None:
        (folder / f"{name}.bval").write_text(bvals)
    return folder / f"{name}.nii.gz", folder / f"{name}.bval"


def constant(value):
    return np.full((6, 7, 8), value, np.float32)


def test_directions_become_the_trace_image_and_b0s_their_mean(tmp_path):
    rng = np.random.default_rng(0)
    tensor = np.array([[1.7, 0.2, -0.1], [0.2, 0.5, 0.3], [-0.1, 0.3, 0.3]])  # 10^-3 mm^2/s, as in white matter
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]  # any three orthogonal directions
    s0 = rng.uniform(500, 900, (6, 7, 8))
    weighted = [s0 * np.exp(-axis @ tensor @ axis) for axis in axes.T]
    found = load_dwi(*save(tmp_path, [s0 - 10, *weighted, s0 + 10], "0 1000 1000 1000 0"))
    assert np.allclose(found.dwi.data, s0 * np.exp(-np.trace(tensor) / 3), rtol=1e-5)
    assert np.mean(weighted) > 1.1 * found.dwi.data.mean()  # the plain mean would be another image
    assert np.allclose(found.b0.data, s0, rtol=1e-5) and found.b == 1000
    for volume in (found.dwi, found.b0):
        assert np.array_equal(volume.affine, AFFINE) and volume.data.dtype == np.float32
        assert volume.data.flags.c_contiguous and volume.path == tmp_path / "dwi.nii.gz"


def test_a_voxel_without_signal_in_a_direction_is_the_mean_of_the_others_if_they_are_the_half(tmp_path):
    """Negative, as interpolation leaves it, or zero: it has no logarithm. 400 and 900 have the geometric mean 600."""
    directions = [constant(value) for value in (400, 400, 400)]
    for direction, few, one in zip(directions, (-5, 400, 900), (-5, 0, 900), strict=True):
        direction[2, 3, 4], direction[1, 1, 1] = few, one
    dwi = load_dwi(*save(tmp_path, [constant(1000), *directions], "0 1000 1000 1000")).dwi.data
    assert dwi[2, 3, 4] == pytest.approx(600, rel=1e-5) and dwi[1, 1, 1] == 0
    assert dwi[0, 0, 0] == pytest.approx(400, rel=1e-5) and np.isfinite(dwi).all()


def test_series_of_scaled_integers_on_other_axes(tmp_path):
    ramp = np.arange(1, 337, dtype=np.float32).reshape(6, 7, 8)
    path, bval = save(tmp_path, [ramp, 2 * ramp], "1000\n0\n", dtype=np.int16, slope=0.5, inter=3)
    for axes in ("RAS", "ALI"):
        if axes != "RAS":
            nibabel.save(nibabel.load(path).as_reoriented([[1, -1], [0, 1], [2, -1]]), path)  # nibabel scales anew
        assert "".join(nibabel.aff2axcodes(nibabel.load(path).affine)) == axes
        found = load_dwi(path, bval)
        assert np.abs(found.dwi.data - (0.5 * ramp + 3)).max() < 3e-3
        assert np.abs(found.b0.data - (ramp + 3)).max() < 3e-3


@pytest.mark.parametrize(
    ("bvals", "weighted", "unweighted", "b"),
    [
        ([0, 995, 1005, 1000], [1, 2, 3], [0], 1000),
        ([5, 50, 2000, 1000, 700], [3], [0, 1], 1000),  # of several shells the one nearest 1000
        ([0, 800, 800, 1190], [3], [0], 1190),
        ([0, 900, 1000], [2], [0], 1000),  # shells are not mixed
        ([60, 800], [1], [], 800),
        ([0, 799], [], [0], None),
        ([0, 1201], [], [0], None),
        ([0, 0], [], [0, 1], None),
    ],
)
def test_which_volumes_are_b1000_and_which_b0(bvals, weighted, unweighted, b):
    bvals = np.array(bvals, float)
    found = [np.flatnonzero(mask).tolist() for mask in shells(bvals)]
    assert found == [weighted, unweighted]
    assert b is None or bvals[weighted].mean() == b


@pytest.mark.parametrize(
    ("volumes", "bvals", "message"),
    [
        (
            3,
            None,
            r"is 4-D with 3 volumes, but .*dwi.bval with their b-values does not exist.*Put the .bval of dcm2niix",
        ),
        (3, "0 1000", r"dwi.bval has 2 b-values and .*dwi.nii.gz has 3 volumes"),
        (
            3,
            "0 500 2000",
            r"holds no b1000: .*dwi.bval says b = 0 \(1 volume\), 500 \(1 volume\), 2000 \(1 volume\). "
            "One between 800 and 1200",
        ),
        (1, "0", r"holds no b1000: .* says b = 0 \(1 volume\)"),
        *((2, text, "does not hold b-values") for text in ("", "0 b1000", "0 -1000", "0 nan")),
    ],
)
def test_a_series_that_cannot_be_used_is_refused(tmp_path, volumes, bvals, message):
    with pytest.raises(InputError, match=message):
        load_dwi(*save(tmp_path, [constant(5)] * volumes, bvals))


def test_an_empty_volume_is_named(tmp_path):
    with pytest.raises(InputError, match="volume 2, 3 of 4 is zero everywhere"):
        load_dwi(*save(tmp_path, [constant(9), constant(0), constant(0), constant(0)], "0 1000 1000 2500"))


def test_a_trace_image_is_taken_as_it_is(tmp_path):
    path, bval = save(tmp_path, [constant(4)])
    assert load_dwi(path, None).b == 1000
    for text in (None, "1000", "0 1000 1000 1000"):  # the last: one volume taken out of a series, its .bval left
        if text:
            bval.write_text(text)
        found = load_dwi(path, bval)
        assert np.array_equal(found.dwi.data, constant(4)) and found.b0 is None and found.b == 1000


def test_b0_is_the_one_named_then_the_series_own_then_made_from_the_adc(tmp_path):
    save(tmp_path, [constant(70)], name="named")
    save(tmp_path, [constant(33)], name="flair")
    save(tmp_path, [constant(0.5)], name="adc")
    save(tmp_path, [constant(50), constant(20)], "0 1000")
    save(tmp_path, [constant(20), constant(20)], "850 850", name="without")

    def b0(**row):
        row = {"patient": "p", "dwi": "dwi.nii.gz", "flair": "flair.nii.gz"} | row
        return load_scans(Patient(row, tmp_path)).b0.data

    assert np.array_equal(b0(b0="named.nii.gz", adc="adc.nii.gz"), constant(70))
    assert np.array_equal(b0(b0="", adc="adc.nii.gz"), constant(50))
    made = b0(dwi="without.nii.gz", adc="adc.nii.gz")
    assert np.allclose(made, 20 * np.exp(0.85 * 0.5), rtol=1e-5)  # by the series' own b
    assert np.array_equal(b0(dwi="without.nii.gz", dwi_bval="dwi.bval"), constant(20))  # .bval named in the table
    with pytest.raises(InputError, match=r"without.nii.gz holds no b0 \(b <= 50\), and neither b0 nor adc is given"):
        b0(dwi="without.nii.gz")


def test_a_table_may_leave_b0_and_adc_empty_where_a_bval_lies_beside(tmp_path):
    from tss.data.cohort import read_cohort

    table = tmp_path / "cohort.csv"
    table.write_text("patient,dwi,b0,flair,onset_to_mri_min,stroke_side\np,dwi.nii.gz,,f.nii,,\n")
    assert not read_cohort(table)[0].bval.is_file()  # the row fails when its scans are read
    (tmp_path / "dwi.bval").write_text("0 1000")
    assert read_cohort(table)[0].bval == tmp_path / "dwi.bval"


def test_b_values_as_text():
    assert listed(np.array([0, 1000.0, 0, 995.5])) == "0 (2 volumes), 995.5 (1 volume), 1000 (1 volume)"


def test_a_direction_without_signal_does_not_blacken_a_voxel(tmp_path):
    """Real series have such voxels, 0.45 % of a brain, from rounding and ghosts."""
    volumes = [constant(100) for _ in range(4)]
    volumes[1][2, 3, 4] = 0
    for volume in volumes[:3]:
        volume[0, 0, 0] = 0  # most have none: air
    found = load_dwi(*save(tmp_path, [constant(300), *volumes], "0 1000 1000 1000 1000")).dwi
    assert found.data[2, 3, 4] == pytest.approx(100) and found.data[0, 0, 0] == 0 and found.notes == ()


@pytest.mark.parametrize("level", [0.0, 20.0])
def test_a_slice_lost_in_one_direction_is_left_out_of_it_and_said(tmp_path, level):
    rng = np.random.default_rng(0)
    volumes = [rng.uniform(90, 110, (6, 7, 8)) for _ in range(3)]
    volumes[1] *= 0.8  # a direction may be darker throughout
    volumes[1][:, :, 4:6] = level
    b0s = [rng.uniform(290, 310, (6, 7, 8)) for _ in range(2)]
    b0s[1][:, 2] = level
    found = load_dwi(*save(tmp_path, [b0s[0], *volumes, b0s[1]], "0 1000 1000 1000 0"))
    assert np.allclose(found.dwi.data[:, :, 5], np.sqrt(volumes[0] * volumes[2])[:, :, 5], rtol=1e-4)
    assert found.dwi.notes == ("DWI volume 3 has lost its signal in slice 5, 6 of 8 from below: left out there",)
    assert np.allclose(found.b0.data[:, 2], b0s[0][:, 2], rtol=1e-4)
    assert found.b0.notes == ("DWI volume 5 has lost its signal in slice 3 of 7 from the back: left out there",)


def test_a_3d_dwi_is_believed_no_b_that_does_not_fit(tmp_path):
    path, bval = save(tmp_path, [constant(4)], "0 2000 2000")
    with pytest.raises(InputError, match=r"holds no b1000: .*dwi.bval says b = 0 \(1 volume\), 2000 .*column dwi_b"):
        load_dwi(path, bval)
    assert load_dwi(path, bval, 900.0).b == 900  # the table knows better
    save(tmp_path, [constant(4), constant(2)], "0 1000", name="series")
    with pytest.raises(InputError, match="the table says dwi_b = 1200, .* says b = 0 .1 volume., 1000 .1 volume."):
        load_dwi(tmp_path / "series.nii.gz", tmp_path / "series.bval", 1200.0)


def test_b_in_the_table_and_a_bval_that_is_missing(tmp_path):
    save(tmp_path, [constant(20)], name="trace")
    save(tmp_path, [constant(33)], name="flair")
    save(tmp_path, [constant(0.5)], name="adc")
    row = {"patient": "p", "dwi": "trace.nii.gz", "flair": "flair.nii.gz", "adc": "adc.nii.gz", "dwi_b": "800"}
    assert np.allclose(load_scans(Patient(row, tmp_path)).b0.data, 20 * np.exp(0.8 * 0.5), rtol=1e-5)
    with pytest.raises(InputError, match="gone.bval, named in column dwi_bval, does not exist"):
        load_scans(Patient(row | {"dwi_bval": "gone.bval"}, tmp_path))
    sides = {"onset_to_mri_min": "", "stroke_side": ""}
    assert row_problems(row | sides | {"dwi_b": "2000"}) == [
        "dwi_b is '2000'; write the DWI's b in s/mm^2, between 800 and 1200, or leave it empty"
    ]


def test_the_b0_of_a_series_is_not_taken_for_its_b1000(tmp_path):
    """A 3-D file beside "0 1000 1000" may be any of the three; CSF is dark on b1000 alone."""
    b0 = np.random.default_rng(0).uniform(280, 320, (6, 7, 8)).astype(np.float32)
    b0[:, :, :4] *= 3  # CSF
    dwi = b0 * np.where(np.arange(8) < 4, np.exp(-3.0), np.exp(-0.8)).astype(np.float32)
    save(tmp_path, [b0], name="b0")
    save(tmp_path, [constant(33)], name="flair")
    save(tmp_path, [b0 * 1.1], "0 1000 1000", name="again")
    save(tmp_path, [dwi], "0 1000 1000", name="dwi")
    row = {"patient": "p", "dwi": "dwi.nii.gz", "flair": "flair.nii.gz", "b0": "b0.nii.gz"}
    assert np.allclose(load_scans(Patient(row, tmp_path)).dwi.data, dwi)
    with pytest.raises(InputError, match="again.nii.gz is no b1000: its .bval lists b0 too, and CSF is as bright"):
        load_scans(Patient(row | {"dwi": "again.nii.gz"}, tmp_path))
    assert load_scans(Patient(row | {"dwi": "again.nii.gz", "dwi_b": "1000"}, tmp_path))  # the table's word


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_adc_in_every_unit(tmp_path, unit):
    save(tmp_path, [constant(20)])
    save(tmp_path, [constant(33)], name="flair")
    save(tmp_path, [constant(0.63 * unit)], name="adc")
    row = {"patient": "p", "dwi": "dwi.nii.gz", "flair": "flair.nii.gz", "adc": "adc.nii.gz"}
    assert np.allclose(load_scans(Patient(row, tmp_path)).b0.data, 20 * np.exp(0.63), rtol=1e-5)


@needs_real
def test_no_black_specks_in_a_real_series(tmp_path):
    """Twelve directions of b 1500; 1.2 % of the voxels of the head have one without signal."""
    (tmp_path / "bval").write_text((REAL / "canon4d/canon3000_4d.bval").read_text().replace("1500", "1000"))
    found = load_dwi(REAL / "canon4d/canon3000_4d.nii.gz", tmp_path / "bval")
    assert found.dwi.notes == ()  # nothing is lost in it
    brain = brain_extraction.find_brain(found.dwi, found.b0)
    assert np.mean(found.dwi.data[brain] == 0) < 1e-4  # 0.0045 where one empty direction makes a voxel empty


@needs_real
def test_a_real_adc_in_mm2_per_s():
    row = {"patient": "p", "dwi": "ads02_dwi.nii.gz", "flair": "../ads01_hole/ads01_dwi.nii.gz"}
    scans = load_scans(Patient(row | {"adc": "ads02_adc_mm2s.nii.gz"}, REAL / "adc_mm2s"))
    brain = brain_extraction.find_brain(scans.dwi, scans.b0)
    assert np.median(np.log(scans.b0.data[brain] / scans.dwi.data[brain])) == pytest.approx(0.75, abs=0.15)


def test_a_map_appended_to_the_series_as_b0_is_said(tmp_path):
    """Philips appends one; the converter labels it 0 or leaves it out of the .bval, which is refused."""
    shape, affine = heads.DWI_GRID[0], heads.grid(*heads.DWI_GRID)
    dwi, b0 = (heads.sample(name, shape, affine) for name in ("dwi", "b0"))
    adc = np.where(b0 > 50, np.log(np.maximum(b0, 1) / np.maximum(dwi, 1)).clip(0, 3), 0) * 1000
    (tmp_path / "s.bval").write_text("0 0 1000 0")
    heads.save(tmp_path / "s.nii.gz", np.stack([b0, b0 * 1.02, dwi, adc], -1).astype(np.float32), affine)
    (note,) = load_dwi(tmp_path / "s.nii.gz", tmp_path / "s.bval").b0.notes
    assert note.startswith("DWI volumes 1, 2, 4 are given as b0, but volume 4 is unlike the rest")
    heads.save(tmp_path / "s.nii.gz", np.stack([b0, b0 * 1.02, dwi, b0 * 0.97], -1).astype(np.float32), affine)
    assert load_dwi(tmp_path / "s.nii.gz", tmp_path / "s.bval").b0.notes == ()
