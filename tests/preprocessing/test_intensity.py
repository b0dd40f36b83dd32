"""Intensities: the bias field goes and the lesion stays; healthy brains become alike; nothing is clipped."""

import numpy as np
import pytest

from tss.data import hemispheres
from tss.preprocessing import intensity

rng = np.random.default_rng(3)
SHAPE = (60, 70, 24)
X, Y, Z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
BRAIN = X**2 + Y**2 + Z**2 < 0.9
LESION = (X - 0.4) ** 2 + (Y + 0.1) ** 2 + Z**2 < 0.09
MIRROR = LESION[::-1]


def tissue(lesion: float = 1.0) -> np.ndarray:
    """Grey and white matter in waves between 82 and 102, a lesion of so many times that."""
    values = 92 + 10 * np.sin(9 * X) * np.cos(8 * Y) * np.cos(4 * Z)
    values = values * np.where(LESION, lesion, 1)
    return (values + rng.normal(0, 2, SHAPE)).astype(np.float32)


def field(strength: float) -> np.ndarray:
    return np.exp(strength * (0.7 * X - 0.5 * Y + 0.4 * Z * Y + 0.5 * X**2)).astype(np.float32)


@pytest.mark.parametrize("strength", [0.15, 0.3, 0.6])
def test_bias_field_is_taken_out(strength):
    clean = tissue()
    corrected = intensity.correct_bias(clean * field(strength), BRAIN)
    left = np.log(corrected / clean)[BRAIN]
    before = np.log(field(strength))[BRAIN]
    assert left.std() < 0.2 * before.std()
    assert corrected[BRAIN].mean() == pytest.approx((clean * field(strength))[BRAIN].mean(), rel=1e-5)


def test_bias_correction_keeps_the_lesion():
    raw = tissue(lesion=2.0)
    corrected = intensity.correct_bias(raw, BRAIN)
    kept = corrected[LESION].mean() / corrected[MIRROR].mean() / (raw[LESION].mean() / raw[MIRROR].mean())
    assert kept == pytest.approx(1, abs=0.03)


def test_bias_correction_divides_smoothly_outside_the_mask():
    raw = tissue() * field(0.3)
    ratio = raw / intensity.correct_bias(raw, BRAIN)
    assert np.isfinite(ratio).all() and np.abs(np.diff(ratio, axis=0)).max() < 0.05


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_bias_correction_takes_masks_as_nifti_has_them(kind):
    volume, mask = np.random.default_rng(0).uniform(50, 100, (16, 16, 8)), np.zeros((16, 16, 8), bool)
    mask[3:13, 3:13, 1:7] = True
    np.testing.assert_array_equal(
        intensity.correct_bias(volume, mask.astype(kind)), intensity.correct_bias(volume, mask)
    )


def test_bias_correction_without_a_brain():
    with pytest.raises(ValueError, match="no brain"):
        intensity.correct_bias(tissue(), BRAIN & False)
    with pytest.raises(ValueError, match="no brain"):
        intensity.correct_bias(np.zeros(SHAPE, np.float32), BRAIN)


def test_bias_correction_leaves_alone_what_it_cannot_tell():
    """A scattered mask fills no block of voxels, a handful of voxels says nothing of a field: no guess, no error."""
    scattered = np.kron(BRAIN, np.ones((4, 4, 1), bool)) & (np.random.default_rng(6).random((240, 280, 24)) < 0.01)
    wide = np.kron(tissue(), np.ones((4, 4, 1), np.float32))
    assert np.array_equal(intensity.correct_bias(wide, scattered), wide)
    few = np.zeros(SHAPE, bool)
    few[30:32, 30:32, 12] = True
    assert np.array_equal(intensity.correct_bias(tissue() * 0 + 5, few), np.full(SHAPE, 5, np.float32))


def test_landmarks_ignore_a_lesion_of_a_fifth_of_the_brain():
    large = BRAIN & (X > 0.25) & (Y < 0.3)
    assert 0.15 < large.sum() / BRAIN.sum() < 0.25
    healthy = intensity.find_landmarks(tissue(), BRAIN)
    ill = intensity.find_landmarks(np.where(large, 2.5 * tissue(), tissue()).astype(np.float32), BRAIN)
    assert (np.diff(healthy) > 0).all()
    assert ill[3] == pytest.approx(healthy[3], rel=0.02)
    assert ill[-1] == pytest.approx(healthy[-1], rel=0.04)


def test_matching_brings_scanners_together_and_keeps_ratios():
    reference = intensity.find_landmarks(tissue(), BRAIN)
    other = 7.3 * tissue(lesion=2.4) ** 1.1  # another gain, a little more contrast
    matched = intensity.match(other, BRAIN, intensity.find_landmarks(other, BRAIN), reference)
    again = intensity.match(tissue(), BRAIN, reference, reference)
    assert np.median(matched[BRAIN & ~LESION]) == pytest.approx(np.median(again[BRAIN]), rel=0.03)
    assert not matched[~BRAIN].any()
    before, after = (v[LESION].mean() / v[MIRROR].mean() for v in (other, matched))
    assert after / before == pytest.approx(1, abs=0.09)  # MOST_STRETCH on either side


@pytest.mark.parametrize("times", [1.3, 1.5])
def test_landmarks_with_a_faint_lesion_of_a_tenth(times):
    """1.3 and 1.5 times as bright as its surroundings it lies in the histogram's shoulder, not beyond it."""
    faint = BRAIN & (X > 0.3) & (Y < 0) & (Z > -0.5)
    assert 0.08 < faint.sum() / BRAIN.sum() < 0.13
    values = tissue()
    healthy = intensity.find_landmarks(values, BRAIN)
    ill = intensity.find_landmarks(np.where(faint, times * values, values).astype(np.float32), BRAIN)
    assert ill[3] == pytest.approx(healthy[3], rel=0.02) and ill[-1] == pytest.approx(healthy[-1], rel=0.06)


def test_landmarks_are_the_percentiles_of_what_lies_near_the_median():
    """Of 1 to 1001, and fifty voxels of 1700 that lie 3.2 robust SD above the median: a lesion, which is cut off."""
    volume = np.concatenate([np.arange(1, 1002), np.full(50, 1700)]).astype(np.float32).reshape(1, 1, -1)
    landmarks = intensity.find_landmarks(volume, np.ones(volume.shape, bool))
    assert landmarks.tolist() == [51, 101, 251, 501, 751, 901, 951]


def test_matching_by_hand():
    """Gains of the landmarks are held within 2 % of the median's, and go on beyond the first and the last."""
    own, reference = np.array([50.0, 60, 80, 100, 110, 120, 125]), np.array([20.0, 30, 81, 100, 111, 190, 200])
    line = np.array([25.0, 50, 80, 100, 105, 110, 125, 200], np.float32).reshape(1, 1, -1)
    matched = intensity.match(line, np.ones(line.shape, bool), own, reference).ravel()
    assert matched == pytest.approx([0.245, 0.49, 0.81, 1, 1.055, 1.11, 1.275, 2.04], abs=1e-6)


def test_a_field_of_third_order_is_taken_out_too():
    clean = tissue()
    field = np.exp(0.4 * (5 * X**3 - 3 * X) / 2).astype(np.float32)
    left = np.log(intensity.correct_bias(clean * field, BRAIN) / clean)[BRAIN]
    assert left.std() < 0.3 * np.log(field)[BRAIN].std()


def test_matching_is_increasing_and_changes_no_gain_by_more_than_promised():
    own, reference = np.array([50.0, 60, 80, 100, 110, 120, 125]), np.array([20.0, 30, 70, 100, 150, 190, 200])
    line = np.linspace(1, 400, 800).reshape(8, 10, 10).astype(np.float32)
    matched = intensity.match(line, np.ones(line.shape, bool), own, reference).ravel()
    assert (np.diff(matched) > 0).all()
    gain = matched / (line.ravel() / 100)
    assert 1 - intensity.MOST_STRETCH - 1e-6 <= gain.min() and gain.max() <= 1 + intensity.MOST_STRETCH + 1e-6


def test_unit_scale_leaves_room_for_lesions():
    assert min(hemispheres.CEILING.values()) >= 3  # lesions reach 3 medians on DWI and 2 on FLAIR
    top = hemispheres.CEILING["dwi"]
    unit = hemispheres.to_unit(np.array([0.0, 1.0, 0.9 * top, 100.0], np.float32), "dwi")
    assert unit.tolist() == pytest.approx([0, 1 / top, 0.9, 1])
