"""Reading on canonical axes, refusing what is no scan, resampling against values worked out by hand, the grid."""

import re

import nibabel
import numpy as np
import pytest

from tss.data import nifti
from tss.data.nifti import Volume
from tss.errors import InputError

SIZES = np.array([1.5, 2.0, 5.0])


def written(path, data, affine=None, dtype=np.float32):
    image = nibabel.Nifti1Image(np.asarray(data, dtype), np.diag([*SIZES, 1]) if affine is None else affine)
    nibabel.save(image, path)
    return path


def ramp(shape=(8, 9, 6)):
    return np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize("axes", ["RAS", "LAS", "LPS", "PSR", "SAL"])
def test_a_voxel_keeps_its_place_in_the_world_whatever_the_stored_axes(tmp_path, axes):
    canonical = nibabel.Nifti1Image(ramp(), np.array([[1.5, 0, 0, -9], [0, 2, 0, 4], [0, 0, 5, 7], [0, 0, 0, 1.0]]))
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(axes)
    )
    nibabel.save(canonical.as_reoriented(turn), tmp_path / "a.nii.gz")
    volume = nifti.load(tmp_path / "a.nii.gz")
    assert np.array_equal(volume.data, ramp())
    assert np.allclose(volume.affine, canonical.affine)
    assert volume.data.dtype == np.float32 and volume.data.flags.c_contiguous and volume.path == tmp_path / "a.nii.gz"


@pytest.mark.parametrize(("factor", "said"), [(1e-14, "4e-12"), (1e11, "4e+13")])
def test_a_scale_that_no_scanner_has(tmp_path, factor, said):
    """Squares of such values are 0 or infinite in float32, and what is computed from them is not a number."""
    with pytest.raises(InputError, match=f"voxels up to {re.escape(said)}: no scanner's. Its scale is wrong"):
        nifti.load(written(tmp_path / "a.nii", factor * ramp()))
    assert nifti.load(written(tmp_path / "adc.nii", 1e-11 * ramp())).data.max() > 0  # m^2/s


def test_scaled_integers_and_a_single_fourth_dimension(tmp_path):
    image = nibabel.Nifti1Image(ramp()[..., None].astype(np.int16), np.diag([*SIZES, 1]))
    image.header.set_slope_inter(0.5, 10)
    image.to_filename(tmp_path / "a.nii")
    stored = nibabel.load(tmp_path / "a.nii")
    assert stored.get_data_dtype() == np.int16 and stored.dataobj.slope == 0.5
    data = nifti.load(tmp_path / "a.nii").data
    assert data.shape == (8, 9, 6) and np.array_equal(data, 0.5 * ramp() + 10)


def broken(tmp_path, kind):
    path = tmp_path / "bad.nii.gz"
    if kind == "missing":
        return path
    if kind == "text":
        path = tmp_path / "bad.nii"
        path.write_text("this is no scan\n" * 50)
    elif kind == "truncated":
        written(path, np.random.default_rng(0).normal(size=(20, 20, 20)))
        path.write_bytes(path.read_bytes()[:4000])
    elif kind == "2-D":
        written(path, ramp((8, 9)))
    elif kind == "4-D":
        written(path, ramp((8, 9, 6, 3)))
    elif kind == "NaN":
        written(path, np.where(ramp() == 7, np.nan, ramp()))
    elif kind == "zero":
        written(path, np.zeros((8, 9, 6)))
    elif kind == "affine":
        path = tmp_path / "bad.nii"
        written(path, ramp())
        raw = bytearray(path.read_bytes())
        raw[280:328] = bytes(48)  # srow_x, srow_y, srow_z
        path.write_bytes(raw)
    elif kind == "no orientation":
        image = nibabel.Nifti1Image(ramp(), None)
        image.header["sform_code"] = image.header["qform_code"] = 0
        nibabel.save(image, path)
    elif kind == "mirrored":
        image = nibabel.Nifti1Image(ramp(), np.diag([2.0, 2, 2, 1]))
        image.set_qform(np.diag([-2.0, 2, 2, 1]), code=1)
        image.set_sform(np.diag([2.0, 2, 2, 1]), code=2)
        nibabel.save(image, path)
    elif kind in ("turned about", "tipped over"):  # the axes' signs are right, and left is right all the same
        other = (
            np.diag([-2.0, -2, 2, 1])
            if kind == "turned about"
            else np.array([[0, 0, 2, 0], [0, 2, 0, 0], [-2, 0, 0, 0], [0, 0, 0, 1.0]])
        )
        image = nibabel.Nifti1Image(ramp(), np.diag([2.0, 2, 2, 1]))
        image.set_qform(other, code=1)
        image.set_sform(np.diag([2.0, 2, 2, 1]), code=1)
        nibabel.save(image, path)
    elif kind in ("Analyze", "SPM Analyze", "MGH"):
        path = tmp_path / ("bad.mgz" if kind == "MGH" else "bad.img")
        maker = {"Analyze": nibabel.AnalyzeImage, "SPM Analyze": nibabel.Spm99AnalyzeImage, "MGH": nibabel.MGHImage}[
            kind
        ]
        nibabel.save(maker(ramp(), np.diag([2.0, 2, 2, 1])), path)
    elif kind == "pair without codes":
        path = tmp_path / "bad.img"
        image = nibabel.Nifti1Pair(ramp(), None)
        image.header["sform_code"] = image.header["qform_code"] = 0
        nibabel.save(image, path)
    elif kind == "tiny voxels":
        written(path, ramp(), np.diag([0.05, 0.05, 0.1, 1]))
    elif kind == "localiser":
        written(path, ramp((8, 9, 3)))
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "does not exist"),
        ("text", "not a NIfTI file"),
        ("truncated", "cut off"),
        ("2-D", "is 2-D"),
        ("4-D", "is 4-D.*fslsplit"),
        ("NaN", "1 voxels that are NaN"),
        ("zero", "zero everywhere"),
        ("affine", "unusable affine"),
        ("no orientation", "left and right are unknown"),
        ("mirrored", "contradict each other about left and right"),
        ("turned about", "contradict each other about left and right, they are turned by 180 degrees"),
        ("tipped over", "they are turned by 90 degrees"),
        ("Analyze", "is no NIfTI file but Spm2Analyze: such a header may not say which side is left"),
        ("SPM Analyze", "is no NIfTI file but Spm2Analyze"),
        ("MGH", "is no NIfTI file but MGH"),
        ("pair without codes", "sform_code = 0, qform_code = 0.*left and right are unknown"),
        ("tiny voxels", "not in mm"),
        ("localiser", "fewer than 5 voxels"),
    ],
)
def test_what_is_no_scan_is_refused_with_its_name(tmp_path, kind, message):
    path = broken(tmp_path, kind)
    with pytest.raises(InputError, match=message) as caught:
        nifti.load(path)
    assert str(path) in str(caught.value)


def test_a_pair_that_says_how_it_lies_is_read_and_a_small_turn_is_no_contradiction(tmp_path):
    image = nibabel.Nifti1Pair(ramp(), np.diag([-1.5, 2, 5, 1]))
    nibabel.save(image, tmp_path / "a.img")
    assert np.array_equal(nifti.load(tmp_path / "a.hdr").data, ramp()[::-1])
    image = nibabel.Nifti1Image(ramp(), np.diag([1.5, 2, 5, 1]))
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]]
    image.set_qform(turn @ np.diag([1.5, 2, 5, 1]), code=1)
    image.set_sform(np.diag([1.5, 2, 5, 1]), code=4)
    nibabel.save(image, tmp_path / "b.nii")
    assert nifti.load(tmp_path / "b.nii").notes == ()


def test_sizes_that_header_and_affine_give_differently_are_said(tmp_path):
    """An identity sform over voxels of 0.94 x 0.94 x 5 mm, as scripts leave that write arrays with np.eye(4)."""
    image = nibabel.Nifti1Image(ramp(), np.eye(4))
    image.header["pixdim"][1:4] = 0.94, 0.94, 5
    nibabel.save(image, tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[80:92] = np.array([0.94, 0.94, 5], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    assert nifti.load(tmp_path / "a.nii").notes == (
        "a.nii has voxels of 1 x 1 x 1 mm by its affine and of 0.94 x 0.94 x 5 mm by its header: check its size "
        "and place",
    )


def test_save_keeps_affine_values_and_kind(tmp_path):
    affine = np.array([[0.8, 0, 0, -90], [0, 1, 0, -120], [0, 0, 7, -70], [0, 0, 0, 1.0]])
    nifti.save(tmp_path / "a.nii.gz", ramp().astype(np.float64), affine)
    nifti.save(tmp_path / "m.nii.gz", ramp() > 5, affine)
    assert np.array_equal(nifti.load(tmp_path / "a.nii.gz").data, ramp())
    assert np.allclose(nifti.load(tmp_path / "a.nii.gz").affine, affine)
    assert nibabel.load(tmp_path / "m.nii.gz").get_data_dtype() == np.uint8
    assert nibabel.load(tmp_path / "a.nii.gz").header["sform_code"] > 0


def test_the_same_volume_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        nifti.save(tmp_path / name / "a.nii.gz", ramp(), np.eye(4))
    assert (tmp_path / "one" / "a.nii.gz").read_bytes() == (tmp_path / "two" / "a.nii.gz").read_bytes()


def test_resampling_a_linear_ramp_is_exact():
    index = np.indices((10, 10, 10))
    data = (2 * index[0] + 3 * index[1] - index[2]).astype(np.float32)
    target = np.eye(4)
    target[:3, 3] = (2.25, 3.5, 4.75)
    sampled = nifti.resample(Volume(data, np.eye(4)), (3, 3, 3), target)
    at = np.indices((3, 3, 3))
    assert np.allclose(sampled, 2 * (at[0] + 2.25) + 3 * (at[1] + 3.5) - (at[2] + 4.75), atol=1e-4)


def test_world_affine_moves_the_scan():
    data = np.zeros((10, 10, 10), np.float32)
    data[3, 4, 5] = 1
    shift = np.eye(4)
    shift[:3, 3] = (2, -1, 3)  # mm of the scan's world -> mm of the target's
    sampled = nifti.resample(Volume(data, np.eye(4)), (10, 10, 10), np.eye(4), shift)
    assert np.argwhere(sampled > 0.5).tolist() == [[5, 3, 8]]


def test_outside_the_field_of_view_is_zero_and_the_last_slice_reaches_to_its_face():
    data = np.full((4, 4, 4), 5, np.float32)
    target = np.diag([0.25, 1, 1, 1.0])
    target[0, 3] = -1
    line = nifti.resample(Volume(data, np.eye(4)), (24, 4, 4), target)[:, 2, 2]
    position = -1 + 0.25 * np.arange(24)
    assert np.array_equal(line, np.where((position >= -0.5) & (position <= 3.5), 5, 0))


def test_grid_covers_the_atlas_with_the_midline_between_its_middle_columns():
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = (-90, -126, -72)  # the MNI152 atlas at 2 mm, 91 x 109 x 91
    grid = nifti.atlas_grid(Volume(np.ones((91, 109, 91), np.float32), affine), (224, 224, 26))
    between = grid @ [111.5, 0, 0, 1]
    assert between[0] == pytest.approx(0)
    low, high = (grid @ [-0.5, -0.5, -0.5, 1])[:3], (grid @ [223.5, 223.5, 25.5, 1])[:3]
    assert low.tolist() == pytest.approx([-91, -127, -73]) and high.tolist() == pytest.approx([91, 91, 109])


@pytest.mark.parametrize(("first", "wide"), [(-69, 100), (-99, 100), (-99, 85)])
def test_an_atlas_that_reaches_further_on_one_side_is_divided_about_the_midline(first, wide):
    """85, 100 or 92 columns of 2 mm: to -70 and 100, to -100 and 100, to -100 and 84. The wider half counts twice."""
    columns = {(-69, 100): 85, (-99, 100): 100, (-99, 85): 92}[first, wide]
    affine = np.diag([2.0, 3, 4, 1])
    affine[:3, 3] = (first, -50, -20)  # centres of the first voxels
    grid = nifti.atlas_grid(Volume(np.ones((columns, 40, 30), np.float32), affine), (50, 60, 12))
    assert np.diag(grid).tolist() == pytest.approx([4, 2, 10, 1])  # 200, 120 and 120 mm
    assert grid[:3, 3].tolist() == pytest.approx([-98, -50.5, -17])  # from -100, -51.5 and -22, and half a voxel


@pytest.mark.parametrize(
    ("affine", "shape", "message"),
    [
        (np.diag([2.0, 2, 2, 1]), (223, 224, 26), "must be even"),
        (np.array([[2, 0.3, 0, -90], [-0.3, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1.0]]), (224, 224, 26), "oblique"),
        (np.diag([2.0, 2, 2, 1]), (224, 224, 26), "midline at 0"),
    ],
)
def test_a_grid_without_midline_is_refused(affine, shape, message):
    if affine[0, 3] == 0 and shape[0] % 2 == 0:
        affine[0, 3] = 10
    with pytest.raises(InputError, match=message):
        nifti.atlas_grid(Volume(np.ones((91, 109, 91), np.float32), affine), shape)


def test_shrinking_keeps_world_positions():
    index = np.indices((9, 8, 5)).astype(np.float32)
    small = nifti.shrink(Volume(index[0], np.diag([1.0, 1, 5, 1])))
    assert small.data.shape == (4, 4, 5)
    assert (small.affine @ [1, 0, 0, 1])[0] == pytest.approx(small.data[1, 0, 0])  # world x = value, before and after


def test_the_coarsest_grid_is_usable_everywhere_and_one_that_is_not_is_refused_at_once(tmp_path):
    atlas = Volume(
        np.ones((91, 109, 91), np.float32),
        np.diag([2.0, 2, 2, 1]) + [[0, 0, 0, -90], [0, 0, 0, -126], [0, 0, 0, -72], [0] * 4],
    )
    for shape in ((64, 64, 9), (8, 8, 8)):  # slices of 20.2 mm; voxels of up to 27 mm
        grid = nifti.atlas_grid(atlas, shape)
        nifti.save(tmp_path / "a.nii.gz", np.ones(shape), grid)
        assert np.allclose(nifti.load(tmp_path / "a.nii.gz").affine, grid)
    with pytest.raises(InputError, match=r"--grid 64 64 5: .* voxels of .* x 36.4 mm; 0.2 to 30.0 mm are possible"):
        nifti.atlas_grid(atlas, (64, 64, 5))
    with pytest.raises(InputError, match="--grid 2000 64 9"):
        nifti.atlas_grid(atlas, (2000, 64, 9))


def test_axes_of_length_one_at_the_end_are_none_and_a_link_to_nothing_is_named(tmp_path):
    for shape in ((8, 9, 6, 1), (8, 9, 6, 1, 1)):
        nibabel.save(nibabel.Nifti1Image(ramp().reshape(shape), np.diag([*SIZES, 1])), tmp_path / "a.nii")
        assert np.array_equal(nifti.load(tmp_path / "a.nii").data, ramp())
    nibabel.save(nibabel.Nifti1Image(np.ones((8, 9, 6, 1, 3), np.float32), np.diag([*SIZES, 1])), tmp_path / "a.nii")
    with pytest.raises(InputError, match="is 5-D"):
        nifti.load(tmp_path / "a.nii")
    (tmp_path / "annexed.nii.gz").symlink_to(".git/annex/objects/x")
    with pytest.raises(InputError, match="is a link to .git/annex/objects/x, which is not there. Get its content"):
        nifti.load(tmp_path / "annexed.nii.gz")
