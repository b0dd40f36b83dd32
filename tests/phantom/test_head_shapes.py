"""Shapes, noise and files of the phantom by hand, without a head."""

import nibabel
import numpy as np
import pytest

from tss.phantom import scanner, shapes
from tss.phantom.infarct import territory


def at(*points):
    return tuple(np.array(points, np.float32).T)


def test_the_distance_to_a_sphere_is_exact():
    found = shapes.ellipsoid(at((1, 2, 13), (3, 2, 3), (9, 2, 3)), (1, 2, 3), (5, 5, 5))
    assert found == pytest.approx([5, -3, 3], abs=1e-4)


def test_an_ellipsoid_is_turned_by_yaw_about_z_and_by_pitch_about_x():
    """Its long half axis of 30 lies along x; turned by 90 degrees along y; one along y is pitched to z."""
    ends = at((30, 0, 0), (0, 30, 0), (0, 0, 30))
    for radii, pitch, yaw, on in (((30, 10, 10), 0, 0, 0), ((30, 10, 10), 0, 90, 1), ((10, 30, 10), 90, 0, 2)):
        found = shapes.ellipsoid(ends, (0, 0, 0), radii, pitch, yaw)
        assert found[on] == pytest.approx(0, abs=1e-3) and (np.delete(found, on) > 15).all()
    up = shapes.ellipsoid(at((0, 20, 20), (0, 20, -20)), (0, 0, 0), (5, 30, 5), pitch=45)
    assert up[0] < 0 < up[1]  # the front goes up
    left = shapes.ellipsoid(at((20, 20, 0), (20, -20, 0)), (0, 0, 0), (30, 5, 5), yaw=45)
    assert left[0] < 0 < left[1]  # the right goes to the front


def test_a_tube_becomes_thinner_along_its_way():
    axis = [(0, 0, 0, 10), (40, 0, 0, 2)]
    found = shapes.tube(at((0, 10, 0), (20, 6, 0), (40, 0, 2), (20, 0, 9), (50, 0, 0)), axis)
    assert found == pytest.approx([0, 0, 0, 3, 8], abs=1e-5)


def test_corners_are_filled_and_a_border_is_half_a_voxel():
    distances = np.float32([3, 3, 3]), np.float32([3, 5, 30])
    assert shapes.union(distances).tolist() == [3, 3, 3]
    assert shapes.union(distances, blend=4).tolist() == [2, 2.75, 3]  # 3 - 4^2 / 16, 3 - 2^2 / 16
    assert shapes.share(np.float32([-2, -0.3125, 0, 0.3125, 2])).tolist() == [1, 0.75, 0.5, 0.25, 0]


def test_the_right_half_is_mirrored_at_the_midline():
    right = shapes.grid_points()[0].ravel()
    assert right[0] == 0.625 and right[-1] == 89.375  # voxels of 1.25 mm
    assert shapes.mirror(np.arange(3)).tolist() == [2, 1, 0, 0, 1, 2]


def test_noise_is_ricean():
    """Without signal the mean is sigma sqrt(pi / 2); with much of it, the square's mean is signal^2 + 2 sigma^2."""
    rng = np.random.default_rng(0)
    air, bright = (scanner.add_noise(rng, np.full(200_000, level, np.float32), 2.0) for level in (0, 20))
    assert air.mean() == pytest.approx(2 * np.sqrt(np.pi / 2), rel=0.01)
    assert np.square(bright, dtype=float).mean() == pytest.approx(400 + 8, rel=0.003)
    assert bright.std() == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAL", "PSR"])
def test_a_scan_has_its_voxels_in_the_world_however_they_are_stored(tmp_path, axes):
    data = np.zeros((5, 6, 7), np.float32)
    data[1, 2, 3] = 100
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = (-10, -20, -30)
    scanner.save_scan(tmp_path / "a.nii.gz", data, affine, axes, np.int16, 0.5)
    image = nibabel.load(tmp_path / "a.nii.gz")
    assert "".join(nibabel.aff2axcodes(image.affine)) == axes
    (place,) = np.argwhere(image.get_fdata() == 100)
    assert (image.affine @ [*place, 1])[:3].tolist() == [-8, -14, -18]
    assert np.asarray(image.dataobj.get_unscaled()).max() == 200


def test_territories_by_hand():
    """A place beside each border, at 20 mm from the midline where nothing else is said."""

    class Head:
        depth, ventricle = np.full(1, 8.0), np.full(1, 8.0)
        cerebellum, stem = np.full(1, -1.0), np.zeros(1)

    def inside(artery, x, y, z, **more):
        head = type("Other", (Head,), {name: np.full(1, value) for name, value in more.items()})
        return bool(territory(head, artery, np.full(1, x), np.full(1, y), np.full(1, z))[0])

    assert inside("lenticulostriate", 20, 0, 0) and not inside("lenticulostriate", 37, 0, 0)
    assert not inside("lenticulostriate", 20, 0, 0, depth=3.0)
    assert inside("pca", 20, -46, 0) and not inside("pca", 20, -40, 0)  # -48 + 20 / 5 = -44
    assert inside("aca", 20, 0, 30) and not inside("aca", 25, 0, 30) and not inside("aca", 20, -50, 30)
    assert inside("mca stem", 20, 0, 0) and not inside("mca stem", 13, 0, 0) and not inside("mca stem", 20, -63, 0)
    assert inside("pica", 20, -60, -40, cerebellum=1.0) and not inside("mca stem", 20, 0, 0, cerebellum=1.0)
