"""The split at the midline: which side is which, what is mirrored, and that nothing is lost."""

import numpy as np
import pytest

from tss.data.hemispheres import join, split, to_unit


def test_left_comes_first_and_the_right_is_mirrored():
    volume = np.arange(6, dtype=float)[:, None, None] * np.ones((6, 2, 3))  # value = column x; x grows to the right
    left, right = split(volume)
    assert left.shape == (3, 2, 3)  # (D, H, W)
    assert left[0, 0].tolist() == [0, 1, 2]
    assert right[0, 0].tolist() == [5, 4, 3]  # midline last in both


def test_axes_are_slice_row_column():
    volume = np.zeros((1, 4, 5, 6))
    volume[0, 1, 2, 3] = 7  # channel 0, x 1, y 2, z 3
    assert split(volume)[0, 0, 3, 2, 1] == 7


def test_join_undoes_split():
    volumes = np.random.default_rng(0).normal(size=(3, 8, 5, 4))
    assert split(volumes).shape == (2, 3, 4, 5, 4)
    assert np.array_equal(join(split(volumes)), volumes)


def test_odd_width_is_refused():
    with pytest.raises(ValueError, match="5 columns"):
        split(np.zeros((5, 4, 4)))


def test_one_is_4_8_and_3_medians_and_what_is_beyond_is_clipped():
    """Decision 24: the networks' inputs, and the healthy levels that the extended recipe knows, depend on it."""
    volume = np.array([-1.0, 0.0, 1.0, 3.0, 4.0, 8.0, 9.0], np.float32)
    expected = {
        "dwi": [0, 0, 1 / 4, 3 / 4, 1, 1, 1],
        "t2w": [0, 0, 1 / 8, 3 / 8, 1 / 2, 1, 1],
        "flair": [0, 0, 1 / 3, 1, 1, 1, 1],
    }
    for channel, values in expected.items():
        assert to_unit(volume, channel) == pytest.approx(values, abs=1e-6)
