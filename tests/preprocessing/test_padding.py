"""What of a grid is padding: where it is known, and never where zeros mean something else."""

import numpy as np
from heads import upright
from scipy.spatial.transform import Rotation

from tss.data.nifti import resample
from tss.preprocessing.padding import find_padding


def turned(*degrees: float) -> np.ndarray:
    world = np.eye(4)
    world[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return world


def test_the_empty_corners_of_a_head_turned_upright_are_padding(patient):
    world = turned(15, 10, 20)
    dwi, b0 = (upright(patient[name], world) for name in ("dwi", "b0"))
    everywhere = patient["dwi"]._replace(data=np.ones(patient["dwi"].data.shape, np.float32))
    truth = resample(everywhere, dwi.data.shape, dwi.affine, world) == 0
    assert truth.mean() > 0.3
    assert (find_padding(dwi, b0) != truth).mean() < 0.002


def test_a_scan_as_it_came_has_none_even_where_it_has_zeros(patient):
    dwi, b0 = patient["dwi"], patient["b0"]
    assert not find_padding(dwi, b0).any()
    rng = np.random.default_rng(0)
    specks = rng.uniform(size=dwi.data.shape) < 0.05  # of air that rounds to 0
    specks[20:40, 20:40, 8:12] = True  # a void of a sequence, within the head
    assert not find_padding(*(scan._replace(data=np.where(specks, 0, scan.data)) for scan in (dwi, b0))).any()
    beside = np.arange(dwi.data.shape[0])[:, None, None] < 10  # zero on one of the two only: it was measured
    assert not find_padding(dwi, b0._replace(data=np.where(beside, 0, b0.data))).any()
    assert not find_padding(dwi._replace(data=np.where(beside, 0, dwi.data)), b0).any()
    assert find_padding(*(scan._replace(data=np.where(beside, 0, scan.data)) for scan in (dwi, b0))).any()


def test_where_air_was_set_to_zero_or_the_skull_removed_zeros_are_no_padding(patient):
    dwi, b0 = patient["dwi"], patient["b0"]
    air = dwi.data < 0.1 * np.percentile(dwi.data, 99)
    for zero in (air, ~patient["brain"]):
        assert not find_padding(*(scan._replace(data=np.where(zero, 0, scan.data)) for scan in (dwi, b0))).any()
