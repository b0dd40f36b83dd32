"""NIfTI files, read onto canonical axes and checked, and written; resampling from one grid to another.

In:  NIfTI files as scanners and converters leave them: any orientation, oblique, scaled integers.
Out: Volume(data (X, Y, Z) float32 in canonical RAS, affine voxel -> world in mm), and files on the atlas grid.
     X grows to the patient's right, Y to the front, Z to the top.
Paper: 2.1 (reorientation; the atlas resized to 224 x 224 x 26; linear interpolation).
See: tests/data/test_nifti.py
"""

import errno
import math
import os
import zlib
from pathlib import Path
from typing import NamedTuple, cast

import nibabel
import numpy as np
from scipy import ndimage
from scipy.linalg import polar

from tss.data.files import why_unreadable, write_whole
from tss.errors import InputError

VOXEL_MM = (0.2, 30.0)  # our choice: outside this a header is in metres, in micrometres or wrong, not of a head in mm;
# the coarsest --grid, 8 voxels along each axis of the atlas, lies within
TURN = 45.0  # our choice: degrees by which sform and qform may differ; registered to something, they differ by less
SIZE_TOLERANCE = 0.05  # our choice: by how much the voxel's sizes by the affine may differ from the header's own
WORKING_MM = 2.0  # our choice: `shrink` averages finer scans to about this
HIGHEST = 1e12  # our choice: of a voxel's value; sums of its squares are then far from float32's end
LOWEST = 1e-10  # our choice: of the largest voxel; ADC in m^2/s has 1e-9; squares below 1e-22 are 0 in float32
CHUNK = 2**24  # bytes
FEWEST_VOXELS = 5  # our choice: along any axis; fewer are a localiser or a 2-D image
UNREADABLE = (
    nibabel.filebasedimages.ImageFileError,
    nibabel.spatialimages.HeaderDataError,
    OSError,
    EOFError,
    OverflowError,
    TypeError,
    LookupError,
    zlib.error,
    ValueError,
)


class Volume(NamedTuple):
    """A scan: data (X, Y, Z) float32 in canonical RAS order, affine (4, 4) voxel -> world mm, its file, and what is to
    be said of it beside the picture."""

    data: np.ndarray
    affine: np.ndarray
    path: Path | None = None
    notes: tuple[str, ...] = ()


def load(path: str | os.PathLike, mask: bool = False, fewest: int = FEWEST_VOXELS) -> Volume:
    """Read one 3-D NIfTI volume on canonical RAS axes. World positions stay as the file has them.

    A fourth axis of length 1 is dropped. A mask may be zero everywhere. fewest: voxels along any axis.

    Raises InputError: missing, not NIfTI, cut off, not 3-D, no orientation, an unusable affine, NaN, or all zero.
    """
    if (volumes := count_volumes(path, fewest)) > 1:
        raise InputError(
            f"{path} is 4-D with {volumes} volumes; one 3-D volume is needed. "
            "Split the series with fslsplit or fslroi and name the volume you mean."
        )
    series = load_series(path, fewest)
    if not mask and not series.data.any():
        raise InputError(f"{path} is zero everywhere. Export the scan again.")
    return series._replace(data=series.data[..., 0])


def count_volumes(path: str | os.PathLike, fewest: int = FEWEST_VOXELS) -> int:
    """Return how many volumes a 3-D or 4-D NIfTI file holds, by its header alone.

    Raises InputError: missing, not NIfTI, or of another dimension.
    """
    shape = _open(Path(path), fewest).shape
    return shape[3] if len(shape) > 3 else 1


def load_series(path: str | os.PathLike, fewest: int = FEWEST_VOXELS) -> Volume:
    """Read a 3-D or 4-D NIfTI file as a Volume whose data is (X, Y, Z, N), on canonical RAS axes.

    Raises InputError: as `load`, except for the number of volumes and for zeros.
    """
    path = Path(path)
    image = _open(path, fewest)
    notes = _check_orientation(image, path)
    try:
        _check_size(image)
        data = np.asarray(image.dataobj)
    except UNREADABLE as error:
        raise InputError(f"{path} is cut off or damaged ({_first_line(error)}). Copy it again.") from error
    if data.dtype.kind not in "fiub":
        raise InputError(
            f"{path} holds {data.dtype} voxels (colour or complex). One number a voxel is needed: name the scan itself."
        )
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused below
        data = data.reshape(*data.shape[:3], -1).astype(np.float32)
    if not np.isfinite(data).all():
        raise InputError(
            f"{path} has {np.count_nonzero(~np.isfinite(data))} voxels that are NaN or infinite. "
            "Set them to 0 (for example: fslmaths IN -nan OUT) or export the scan again."
        )
    if (highest := np.abs(data).max()) > HIGHEST or 0 < highest < LOWEST:
        raise InputError(f"{path} has voxels up to {highest:.1g}: no scanner's. Its scale is wrong; export it again.")
    canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(data, image.affine))
    return Volume(
        np.ascontiguousarray(canonical.dataobj, dtype=np.float32), canonical.affine.astype(np.float64), path, notes
    )


def _open(path: Path, fewest: int) -> nibabel.spatialimages.SpatialImage:
    if why := why_unreadable(path):
        missing = why in (os.strerror(errno.ENOENT), os.strerror(errno.ENOTDIR))
        if missing and path.is_symlink():
            raise InputError(
                f"{path} is a link to {os.readlink(path)}, which is not there. "
                "Get its content (datalad get, git annex get)."
            )
        if missing:
            raise InputError(f"{path} does not exist. Check the path (those in cohort.csv are relative to that file).")
        raise InputError(f"{path} cannot be read: {why}. Check who may read its folder, and name a scan's own file.")
    try:
        image = cast(nibabel.spatialimages.SpatialImage, nibabel.load(path))
        image.header.get_zooms()
    except UNREADABLE as error:
        raise InputError(
            f"{path} is not a NIfTI file, or is cut off ({_first_line(error)}). Convert or copy it again."
        ) from error
    _check_shape(image.shape, path, fewest)
    return image


def _check_size(image: nibabel.spatialimages.SpatialImage) -> None:
    """Raise ValueError where a file holds less than its header says, before that much memory is asked for.

    Zipped files are read to their end once, so that their checksum is compared too: nibabel stops at the last voxel.
    """
    file = image.file_map.get("image", next(iter(image.file_map.values())))
    name, start = os.fspath(file.filename or ""), getattr(image.dataobj, "offset", 0)
    needed = int(start) + math.prod(image.shape) * image.get_data_dtype().itemsize
    held = os.path.getsize(name)
    if name.endswith((".gz", ".bz2", ".zst")):
        held = 0
        with nibabel.openers.ImageOpener(name) as unzipped:
            while (part := len(unzipped.read(CHUNK))) and held <= needed + CHUNK:
                held += part
    if held < needed:
        raise ValueError(f"{needed} bytes by its header, {held} in the file")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_shape(shape: tuple[int, ...], path: Path, fewest: int) -> None:
    if len(shape) < 3 or any(length != 1 for length in shape[4:]):
        raise InputError(f"{path} is {len(shape)}-D, shape {shape}; name a 3-D volume, or a 4-D series of DWI.")
    if min(shape[:3]) < fewest:
        raise InputError(
            f"{path} has shape {shape}: fewer than {fewest} voxels along one axis is not a head. Name the whole volume."
        )


def _check_orientation(image: nibabel.spatialimages.SpatialImage, path: Path) -> tuple[str, ...]:
    """Refuse a header that does not say where left and right are. Returns notes on what is doubtful in it."""
    affine, again = image.affine, "Convert it again from DICOM, to NIfTI"
    if not isinstance(image, nibabel.Nifti1Pair):  # also of NIfTI-2 and of single files
        raise InputError(
            f"{path} is no NIfTI file but {type(image).__name__.removesuffix('Image')}: such a header may not say "
            f"which side is left. {again} (dcm2niix)."
        )
    if affine is None or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise InputError(
            f"{path} has an unusable affine (sform/qform {np.round(affine, 3).tolist()}). Its "
            "position in space is unknown: convert it again from DICOM."
        )
    codes = [int(image.header[name]) for name in ("sform_code", "qform_code")]
    if max(codes) <= 0:
        raise InputError(
            f"{path} does not state its orientation (sform_code = {codes[0]}, qform_code = {codes[1]}), so left and "
            f"right are unknown. {again}."
        )
    if min(codes) > 0:
        apart, mirrored = _apart(image)
        if mirrored or apart > TURN:
            how = "one is the other's mirror image" if mirrored else f"they are turned by {apart:.0f} degrees"
            raise InputError(f"{path}: sform and qform contradict each other about left and right, {how}. {again}.")
    sizes = voxel_sizes(affine)
    if sizes.min() < VOXEL_MM[0] or sizes.max() > VOXEL_MM[1]:
        raise InputError(
            f"{path} has voxels of {_by(sizes)} mm. A head scan has "
            f"{VOXEL_MM[0]} to {VOXEL_MM[1]} mm: its affine is wrong or not in mm. Convert it again from DICOM."
        )
    zooms = np.array(image.header.get_zooms()[:3], float)
    if np.abs(sizes / np.maximum(zooms, 1e-6) - 1).max() > SIZE_TOLERANCE:
        return (
            f"{path.name} has voxels of {_by(sizes)} mm by its affine and of {_by(zooms)} mm by its header: "
            "check its size and place",
        )
    return ()


def _apart(image: nibabel.Nifti1Pair) -> tuple[float, bool]:
    """Return by how many degrees sform and qform are turned against each other, and whether one mirrors the other."""
    try:
        turns = [polar(form[:3, :3])[0] for form in (image.get_sform(), image.get_qform())]
    except (ValueError, nibabel.spatialimages.HeaderDataError):  # a qform that is none; the sform counts
        return 0.0, False
    between = turns[0] @ turns[1].T
    angle = np.degrees(np.arccos(np.clip((np.trace(between) - 1) / 2, -1, 1)))
    return float(angle), bool(np.linalg.det(between) < 0)


def _by(sizes: np.ndarray) -> str:
    return " x ".join(f"{size:.3g}" for size in sizes)


def voxel_sizes(affine: np.ndarray) -> np.ndarray:
    """Return the voxel's edge lengths (3,) in mm."""
    return np.linalg.norm(affine[:3, :3], axis=0)


def apply_affine(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Carry points (3, ...) by a (4, 4) affine: voxel -> world mm, or world mm -> world mm."""
    moved = affine[:3, :3] @ points.reshape(3, -1)
    return moved.reshape(points.shape) + affine[:3, 3].reshape(3, *[1] * (points.ndim - 1))


def save(path: str | os.PathLike, data: np.ndarray, affine: np.ndarray) -> None:
    """Write (X, Y, Z) data as NIfTI, whole: masks as uint8, everything else as float32."""
    kept = np.uint8 if data.dtype in (np.bool_, np.uint8) else np.float32
    image = nibabel.Nifti1Image(data.astype(kept), affine)
    image.set_sform(affine, code="aligned")
    image.set_qform(affine, code="aligned")
    write_whole(path, lambda beside: nibabel.save(image, beside))


def resample(
    volume: Volume, shape: tuple[int, ...], affine: np.ndarray, world: np.ndarray | None = None, order: int = 1
) -> np.ndarray:
    """Sample a volume once at the voxel centres of another grid.

    All affines on the way are composed first, so that a scan is interpolated only once (decision 11).

    volume: the scan (X, Y, Z).
    shape, affine: the grid to fill, voxel -> world mm of the target space.
    world: (4, 4) world mm of the scan -> world mm of the target space; None means the same world.
    order: 1 = linear (paper 2.1), 0 = nearest (masks).

    Returns (X, Y, Z) float32 of `shape`, 0 outside the scan's field of view.
    """
    to_source_world = np.eye(4) if world is None else np.linalg.inv(world)
    matrix = np.linalg.inv(volume.affine) @ to_source_world @ affine
    sampled = ndimage.affine_transform(
        volume.data,
        matrix[:3, :3],
        matrix[:3, 3],
        output_shape=tuple(shape),
        order=order,
        mode="nearest",
        prefilter=False,
        output=np.float32,
    )
    # "nearest" extends the last slice to its outer face, half a slice beyond its centre; past it there is no scan.
    x, y, z = (np.arange(length, dtype=np.float32) for length in shape)
    for axis, length in enumerate(volume.data.shape):
        a, b, c, offset = matrix[axis].astype(np.float32)
        position = (a * x)[:, None, None] + (b * y)[:, None] + (c * z + offset)
        sampled[(position < -0.5) | (position > length - 0.5)] = 0
    return sampled


def atlas_grid(atlas: Volume, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the affine of the grid that divides the atlas' field of view into `shape` voxels (paper 2.1).

    The midsagittal plane, x = 0 in MNI space, falls exactly between columns X/2 - 1 and X/2.

    Raises InputError: X is odd, voxels are too small or too large, or the atlas is oblique or does not span x = 0.
    """
    name = atlas.path or "the atlas"
    if shape[0] % 2:
        raise InputError(f"--grid {' '.join(map(str, shape))}: the first number must be even, two equal hemispheres.")
    steps = atlas.affine[:3, :3]
    if np.abs(steps - np.diag(np.diag(steps))).max() > 1e-3 * np.abs(steps).max():
        raise InputError(
            f"{name} is oblique. An atlas has its axes along left-right, back-front and bottom-top. Give such a one."
        )
    sizes = voxel_sizes(atlas.affine)
    low = atlas.affine[:3, 3] - sizes / 2
    high = low + sizes * atlas.data.shape
    if not low[0] < 0 < high[0]:
        raise InputError(
            f"{name} lies between x = {low[0]:.0f} and {high[0]:.0f} mm; MNI space has its "
            "midline at 0. Give an atlas in MNI space."
        )
    half_width = max(-low[0], high[0])
    low[0], high[0] = -half_width, half_width
    spacing = (high - low) / shape
    if spacing.min() < VOXEL_MM[0] or spacing.max() > VOXEL_MM[1]:
        raise InputError(
            f"--grid {' '.join(map(str, shape))}: {name} divided so has voxels of {_by(spacing)} mm; "
            f"{VOXEL_MM[0]} to {VOXEL_MM[1]} mm are possible. Give other numbers."
        )
    grid = np.diag([*spacing, 1.0])
    grid[:3, 3] = low + spacing / 2
    return grid


def shrink(volume: Volume) -> Volume:
    """Average blocks of voxels until none is much finer than WORKING_MM."""
    factor = np.maximum(1, np.round(WORKING_MM / voxel_sizes(volume.affine))).astype(int)
    affine = volume.affine @ np.diag([*factor, 1.0])
    affine[:3, 3] = apply_affine(volume.affine, (factor - 1) / 2)
    return Volume(np.ascontiguousarray(block_means(volume.data, factor), np.float32), affine)


def block_means(data: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Return the means of blocks of (3,) voxels; what is left over at the ends of the axes belongs to none."""
    shape = np.array(data.shape) // factor
    cut = data[tuple(slice(0, n) for n in shape * factor)]
    return cut.reshape(shape[0], factor[0], shape[1], factor[1], shape[2], factor[2]).mean((1, 3, 5))
