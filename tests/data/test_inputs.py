"""Inputs as they come: each kind of file that a lab has is read to the same values at the same places in the world.

One head throughout, on the grid of each kind; what is expected is the head itself, not another reading of the file.
"""

import heads
import nibabel
import numpy as np
import pytest
from quick_preprocessing import no_pictures

import run_preprocess
from tss.data.cohort import Patient
from tss.preprocessing.scans import load_scans

SHAPE, AFFINE = heads.DWI_GRID[0], heads.grid(*heads.DWI_GRID)
FLAIR_SHAPE, FLAIR_AFFINE = heads.FLAIR_GRID[0], heads.grid(*heads.FLAIR_GRID)
ADC = 0.8  # of all tissue, 10^-3 mm^2/s
TILT = np.array([[0.97, -0.2, 0.14], [0.2, 0.98, 0.0], [-0.14, 0.03, 0.99]])
TILT = np.linalg.qr(TILT)[0] * np.sign(np.diag(np.linalg.qr(TILT)[1]))  # a rotation by about 14 degrees


def store(path, data, affine, axes="RAS", dtype=np.float32, slope=None, inter=0, codes=(1, 1)):
    """Write RAS data with the voxels along `axes`; value = slope * stored + inter; codes of sform and qform."""
    stored = np.round((data - inter) / slope) if slope else data
    assert slope is None or stored.max() <= np.iinfo(dtype).max
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(axes)
    )
    image = nibabel.Nifti1Image(np.asarray(stored, dtype), affine).as_reoriented(turn)
    image.header.set_slope_inter(slope, inter if slope else None)
    place = image.affine.copy()
    for code, put in zip(codes, (image.set_sform, image.set_qform), strict=True):
        put(place if code else None, code)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    header = nibabel.load(path).header
    assert (header["sform_code"], header["qform_code"]) == codes and header.get_data_dtype() == dtype
    return path.name


def oblique(shape, sizes):
    """The grid of heads.grid, turned about the brain's middle."""
    affine = np.diag([*sizes, 1.0])
    affine[:3, :3] = TILT @ affine[:3, :3]
    affine[:3, 3] = np.array([0, -15, 5]) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def write(folder, kind):
    """Write a patient whose files are of this kind. Returns the row and the expected (data, affine) by sequence."""
    way, dwi_axes, ending = {}, "RAS", ".nii.gz"
    shape, affine, flair_shape, flair_affine = SHAPE, AFFINE, FLAIR_SHAPE, FLAIR_AFFINE
    if kind == ".nii":
        ending = ".nii"
    elif kind == "float64":
        way = {"dtype": np.float64}
    elif kind == "int16":
        way = {"dtype": np.int16, "slope": 0.25, "inter": -40}
    elif kind == "uint8":
        way = {"dtype": np.uint8, "slope": 4.5}
    elif kind == "sform only":
        way = {"codes": (1, 0)}
    elif kind == "qform only":
        way = {"codes": (0, 1)}
    elif kind == "oblique":
        affine, flair_affine = oblique(*heads.DWI_GRID), oblique(*heads.FLAIR_GRID)
    elif kind == "sagittal FLAIR":  # slices from left to right, first in the file as dcm2niix leaves them last
        flair_shape, sizes, way = (28, 80, 72), (5.5, 2.6, 2.6), {"axes": "PSR"}
        flair_affine = heads.grid(flair_shape, sizes)
    elif kind == "coronal FLAIR":
        flair_shape, sizes, way = (62, 34, 72), (2.6, 5.5, 2.6), {"axes": "LSA"}
        flair_affine = heads.grid(flair_shape, sizes)
    elif kind == "sagittal DWI":
        shape, dwi_axes = (26, 60, 48), "PSR"
        affine = heads.grid(shape, (6.0, 3.5, 3.5))
    elif kind == "coronal DWI":
        shape, dwi_axes = (48, 34, 46), "LSA"
        affine = heads.grid(shape, (3.5, 6.0, 3.5))
    elif kind == "isotropic FLAIR":
        flair_shape, ending = (96, 120, 92), ".nii"
        flair_affine = heads.grid(flair_shape, (1.5, 1.5, 1.5))
    elif kind == "large field of view":  # the FLAIR shows more than the DWI, and not from the same middle
        flair_shape = (90, 100, 30)
        flair_affine = heads.grid(flair_shape, (2.9, 2.9, 6.8))
        flair_affine[:3, 3] += (10, -14, 12)

    seed = 2 * ALL.index(kind)  # of the noise: two patients are not one scan
    expected = {name: (heads.sample(name, shape, affine, seed=seed), affine) for name in ("dwi", "b0")}
    expected["flair"] = (heads.sample("flair", flair_shape, flair_affine, seed=seed + 1), flair_affine)
    name = kind.replace(" ", "-").replace("^", "").strip(".")
    row = {"patient": name, "onset_to_mri_min": "", "stroke_side": "right", "split": "train"}
    row["flair"] = store(folder / f"{name}_flair{ending}", *expected["flair"], **way)
    way["axes"] = dwi_axes
    (dwi, _), (b0, _) = expected["dwi"], expected["b0"]
    if kind.startswith("ADC"):  # b0 missing; what b0 is expected follows from the ADC
        unit = 1 if "-3" in kind else 1000
        row["adc"] = store(folder / f"{name}_adc{ending}", np.full(shape, ADC * unit, np.float32), affine)
        expected["b0"] = dwi * np.exp(ADC), affine
    if kind.startswith("4-D"):
        halves = [dwi * 1.25, dwi / 1.25]
        volumes, bvals = {
            "4-D": ([b0 + 3, *halves, b0 - 3], "0 1000 1000 5"),
            "4-D without b0": (halves, "800 800"),
            "4-D of one": ([dwi], ""),
        }[kind]
        row["dwi"] = f"{name}_dwi.nii.gz"
        heads.save(folder / row["dwi"], np.stack(volumes, -1), affine)
        if bvals:
            (folder / f"{name}_dwi.bval").write_text(bvals + "\n")
        if kind == "4-D without b0":
            row["adc"] = store(folder / f"{name}_adc{ending}", np.full(shape, ADC, np.float32), affine)
            expected["b0"] = dwi * np.exp(0.8 * ADC), affine
    else:
        row["dwi"] = store(folder / f"{name}_dwi{ending}", dwi, affine, **way)
    if "adc" not in row and kind != "4-D":
        row["b0"] = store(folder / f"{name}_b0{ending}", b0, affine, **way)
    return row, expected


ALL = [
    "plain",
    ".nii",
    "float64",
    "int16",
    "uint8",
    "sform only",
    "qform only",
    "oblique",
    "sagittal FLAIR",
    "coronal FLAIR",
    "sagittal DWI",
    "coronal DWI",
    "isotropic FLAIR",
    "large field of view",
    "ADC 10^-3",
    "ADC 10^-6",
    "4-D",
    "4-D without b0",
    "4-D of one",
]


@pytest.mark.parametrize("kind", ALL)
def test_values_and_places_are_those_of_the_head(tmp_path, kind):
    row, expected = write(tmp_path, kind)
    scans = load_scans(Patient(row, tmp_path))._asdict()
    rounding = {"int16": 0.126, "uint8": 2.26}.get(kind, 0)  # half a step of the stored integers
    for name, (data, affine) in expected.items():
        assert scans[name].data.shape == data.shape and scans[name].data.dtype == np.float32
        assert np.abs(scans[name].affine - affine).max() < 2e-4, name  # headers hold float32, qforms a quaternion
        assert np.abs(scans[name].data - data).max() <= rounding + 2e-4 * data.max(), name
        assert scans[name].data.flags.c_contiguous


@pytest.mark.slow
def test_whatever_the_files_the_hemispheres_are_the_same(tmp_path, known_affines, monkeypatch):
    """Through run_preprocess.py; heads lie as the atlas does, so that registration need not be waited for."""
    no_pictures(monkeypatch)
    kinds = ["plain", "oblique", "sagittal FLAIR", "coronal FLAIR", "sagittal DWI", "coronal DWI", "4-D"]
    rows = [write(tmp_path, kind)[0] for kind in kinds]
    columns = ("patient", "dwi", "b0", "flair", "onset_to_mri_min", "stroke_side", "split")
    table = heads.write_table(tmp_path, [{column: row.get(column, "") for column in columns} for row in rows])
    out, atlas = tmp_path / "data", heads.write_atlas(tmp_path / "atlas.nii.gz")
    assert (
        run_preprocess.main(
            [str(table), "--out", str(out), "--atlas", str(atlas), "--tools", "builtin", "--grid", "16", "16", "8"]
        )
        == 0
    )
    plain, *others = [np.load(out / "hemispheres" / f"{row['patient']}.npy").astype(float) for row in rows]
    for kind, other in zip(kinds[1:], others, strict=True):
        for channel in (0, 2):  # DWI and FLAIR show the lesion, so that a swapped side would be seen
            alike, mirrored = (correlation(other[:, channel], plain[order, channel]) for order in ([0, 1], [1, 0]))
            assert alike > 0.8 and alike > mirrored + 0.02, (kind, channel)


def correlation(one, other):
    both = (one > 0) & (other > 0)
    return np.corrcoef(one[both], other[both])[0, 1]
