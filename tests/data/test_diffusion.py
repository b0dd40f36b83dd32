"""b1000 and b0 out of a series, against a diffusion tensor worked out by hand; what is refused and with which words."""

import nibabel
import numpy as np
import pytest

from tss.data.cohort import Patient
from tss.data.diffusion import listed, load_dwi, shells
from tss.errors import InputError
from tss.preprocessing.scans import load_scans

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
    for text in (None, "1000", "0 1000 1000 1000"):  # the last: one volume taken out of a series, its .bval left
        if text:
            bval.write_text(text)
        found = load_dwi(path, bval)
        assert np.array_equal(found.dwi.data, constant(4)) and found.b0 is None and found.b == 1000


def test_b0_is_the_one_named_then_the_series_own_then_made_from_the_adc(tmp_path):
    save(tmp_path, [constant(70)], name="named")
    save(tmp_path, [constant(0.5)], name="adc")
    save(tmp_path, [constant(50), constant(20)], "0 1000")
    save(tmp_path, [constant(20), constant(20)], "850 850", name="without")

    def b0(**row):
        row = {"patient": "p", "dwi": "dwi.nii.gz", "flair": "named.nii.gz"} | row
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
    with pytest.raises(InputError, match="neither b0 nor adc is given; .* or a 4-D DWI with its .bval beside it"):
        read_cohort(table)
    (tmp_path / "dwi.bval").write_text("0 1000")
    assert read_cohort(table)[0].bval == tmp_path / "dwi.bval"


def test_b_values_as_text():
    assert listed(np.array([0, 1000.0, 0, 995.5])) == "0 (2 volumes), 995.5 (1 volume), 1000 (1 volume)"
