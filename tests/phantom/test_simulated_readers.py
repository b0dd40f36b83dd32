"""Simulated readers against a simulation of their law and the paper's figures; the ratio on the raw FLAIR, by hand."""

import numpy as np
import pytest

from tss.data import nifti
from tss.data.files import write_json
from tss.metrics import fleiss_kappa
from tss.phantom import onset_law, simulated_readers

N = 40_000
AFFINE = np.diag([2.0, 2.0, 6.0, 1.0])
AFFINE[:3, 3] = (-19, -19, -12)  # x of the 20 voxels lies even about the midline
MOVED = np.eye(4)
MOVED[:3, 3] = (4, 0, 0)  # FLAIR -> b0, world mm: the head moved by two voxels between the scans


@pytest.fixture(scope="module")
def drawn():
    """Times (N,) and readings (N, 3), as the phantom draws them."""
    rng = np.random.default_rng(0)
    minutes = onset_law.onset_at(rng.uniform(size=N))
    latent = onset_law.mean_latent(minutes) + onset_law.SPREAD * rng.normal(size=N)
    return minutes, np.array([list(simulated_readers.draw_readings(rng, u).values()) for u in latent])


def test_sensitivity_specificity_and_kappa_are_the_papers(drawn):
    minutes, readings = drawn
    early = minutes < 270
    for column, (sensitivity, specificity) in zip(readings.T, simulated_readers.PUBLISHED.values(), strict=True):
        assert column[early].mean() == pytest.approx(sensitivity, abs=0.01)  # three standard errors
        assert 1 - column[~early].mean() == pytest.approx(specificity, abs=0.01)
    assert fleiss_kappa(readings) == pytest.approx(0.46, abs=0.01)


def test_readers_err_alike_and_read_worse_than_the_latent():
    law = simulated_readers.readers()
    assert 0 < law.alike < 1 and (law.noise > 0).all()
    assert (
        simulated_readers._kappa(law.threshold, np.hypot(law.noise, onset_law.SPREAD), law.noise, 0.0, onset_law.SPREAD)
        < 0.46
    )


def test_the_pairs_integral_is_the_two_dimensional_normal():
    x, y = np.random.default_rng(1).multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 400_000).T
    assert simulated_readers._both_below(np.array([0.3]), np.array([-0.5]), 0.6)[0] == pytest.approx(
        ((x < 0.3) & (y < -0.5)).mean(), abs=0.003
    )
    # At zero the orthant probability is known: 1/4 + arcsin(r) / (2 pi).
    assert simulated_readers._both_below(np.zeros(1), np.zeros(1), 0.5)[0] == pytest.approx(1 / 3, abs=1e-9)


def test_same_rng_same_readings():
    again = [
        [simulated_readers.draw_readings(rng, 0.0) for _ in range(20)] for rng in map(np.random.default_rng, (4, 4, 5))
    ]
    assert again[0] == again[1] != again[2]
    assert list(simulated_readers.draw_readings(np.random.default_rng(4), -9.0).values()) == [1, 1, 1]


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
        return simulated_readers.raw_flair_ratio(tmp_path, "p1")

    return make


def test_median_of_the_infarct_over_that_of_its_mirror_region_where_the_head_was(block):
    assert block() == pytest.approx(1.30)
    assert block(mirror=65.0) == pytest.approx(2.0)


def test_the_infarcts_own_voxels_are_no_mirror_and_without_a_mirror_there_is_no_ratio(block):
    assert block(infarct=slice(3, 17)) is None  # as wide on both sides
    assert block(mirror=0.0) is None
