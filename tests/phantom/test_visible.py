"""The brightness of an infarct on the raw FLAIR: on blocks by hand, and blank where there is nothing to compare."""

import numpy as np
import pytest

from tss.data import nifti
from tss.data.files import write_json
from tss.phantom import visible

AFFINE = np.diag([2.0, 2.0, 6.0, 1.0])
AFFINE[:3, 3] = (-19, -19, -12)  # x of the 20 voxels lies even about the midline
MOVED = np.eye(4)
MOVED[:3, 3] = (4, 0, 0)  # FLAIR -> b0, world mm: the head moved by two voxels between the scans


@pytest.fixture
def block(tmp_path):
    """A brain of 100, an infarct of 130 on the left with one voxel as bright as a vessel; a little is beyond it."""

    def make(infarct=slice(3, 6), mirror=100.0):
        flair = np.full((20, 20, 5), 100.0, np.float32)
        brain, lesion = (np.zeros(flair.shape, np.float32) for _ in range(2))
        brain[2:18, 2:18], lesion[infarct, 8:12, 2] = 1, 1
        flair[14:17, 8:12, 2] = mirror
        flair[3:6, 8:12, 2] = 130
        flair[4, 9, 2] = 900
        nifti.save(tmp_path / "scans" / "p1_flair.nii.gz", np.roll(flair, -2, axis=0), AFFINE)
        for name, mask in (("brain", brain), ("lesion", lesion)):
            nifti.save(tmp_path / "truth" / f"p1_{name}.nii.gz", mask, AFFINE)
        write_json(tmp_path / "truth" / "p1.json", {"b0_to_atlas": np.eye(4).tolist(), "flair_to_b0": MOVED.tolist()})
        return visible.flair_ratio(tmp_path, "p1")

    return make


def test_median_of_the_infarct_over_that_of_its_mirror_region_where_the_head_was(block):
    assert block() == pytest.approx(1.30)
    assert block(mirror=65.0) == pytest.approx(2.0)


def test_the_infarcts_own_voxels_are_no_mirror_and_without_a_mirror_there_is_no_ratio(block):
    assert block(infarct=slice(3, 17)) is None  # as wide on both sides
    assert block(mirror=0.0) is None
