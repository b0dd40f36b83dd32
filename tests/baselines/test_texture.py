"""Texture by hand: Haralick's 4 x 4 image, Galloway's runs, patterns of single bits."""

import numpy as np
import pytest

from tss.baselines.texture import (
    DIRECTIONS,
    binary_patterns,
    cooccurrence,
    cooccurrence_features,
    gradient,
    moments,
    quantised,
    run_features,
    run_lengths,
    texture,
)

# Haralick, Shanmugam and Dinstein 1973, Fig. 3. The first index is down the page here, so "0 degrees" is a step in Y.
HARALICK = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 2, 2, 2], [2, 2, 3, 3]])[:, :, None]
EVERYWHERE = np.ones(HARALICK.shape, bool)
PUBLISHED = {
    (0, 1): [[4, 2, 1, 0], [2, 4, 0, 0], [1, 0, 6, 1], [0, 0, 1, 2]],
    (1, 0): [[6, 0, 2, 0], [0, 4, 2, 0], [2, 2, 2, 2], [0, 0, 2, 0]],
    (1, 1): [[2, 1, 3, 0], [1, 2, 1, 0], [3, 1, 0, 2], [0, 0, 2, 0]],
    (-1, 1): [[4, 1, 0, 0], [1, 2, 2, 0], [0, 2, 4, 1], [0, 0, 1, 0]],
}


@pytest.mark.parametrize("direction", PUBLISHED)
def test_cooccurrence_of_haralicks_image(direction):
    assert cooccurrence(HARALICK, EVERYWHERE, [direction], 4).tolist() == PUBLISHED[direction]


def test_cooccurrence_adds_up_directions_and_slices_and_stays_in_the_region():
    both = np.concatenate([HARALICK, HARALICK], 2)
    total = 2 * np.sum([PUBLISHED[direction] for direction in DIRECTIONS], 0)
    assert cooccurrence(both, np.ones(both.shape, bool), count=4).tolist() == total.tolist()
    corner = np.zeros(HARALICK.shape, bool)
    corner[2:, 2:] = True  # 2 2 over 3 3
    assert cooccurrence(HARALICK, corner, [(0, 1)], 4).tolist() == np.diag([0, 0, 2, 2]).tolist()


def test_cooccurrence_features_by_hand():
    # Half of the neighbours are (1, 1), a quarter each (1, 2) and (2, 1): mean 5/4, variance 3/16.
    found = cooccurrence_features(np.array([[2.0, 1.0], [1.0, 0.0]]))
    assert len(found) == 21
    entropy = 0.5 * np.log(2) + 0.5 * np.log(4)
    single = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    by_hand = {
        "energy": 6 / 16, "entropy": entropy, "dissimilarity": 0.5, "contrast": 0.5, "inverse difference": 0.75,
        "correlation": (0.5 / 16 - 0.5 * 3 / 16) / (3 / 16), "homogeneity": 0.75, "autocorrelation": 1.5,
        "cluster shade": 0.5 * (-0.5) ** 3 + 0.5 * 0.5**3, "cluster prominence": 0.5**4, "maximum": 0.5,
        "variance": 3 / 16, "sum average": 2.5, "sum variance": 0.25, "sum entropy": np.log(2),
        "difference variance": 0.25, "difference entropy": np.log(2),
        "information 1": (entropy - 2 * single) / single,
        "information 2": np.sqrt(1 - np.exp(-2 * (2 * single - entropy))),
        "inverse difference normalised": 0.5 + 0.5 / 1.5, "inverse moment normalised": 0.5 + 0.5 / 1.25,
    }  # fmt: skip
    assert found == pytest.approx(by_hand, abs=1e-12)


def test_one_level_only_has_features_too():
    found = cooccurrence_features(np.diag([8.0, 0.0]))
    assert (found["energy"], found["entropy"], found["contrast"], found["correlation"]) == (1, 0, 0, 1)
    assert (found["information 1"], found["information 2"]) == (0, 0)
    assert all(np.isfinite(value) for value in cooccurrence_features(np.zeros((4, 4))).values())  # no neighbours


def test_runs_by_hand():
    image = np.array([[0, 1, 1, 1], [0, 0, 1, 0]])[:, :, None]
    inside = np.ones(image.shape, bool)
    assert run_lengths(image, inside, (0, 1), 2, 4).tolist() == [[2, 1, 0, 0], [1, 0, 1, 0]]
    assert run_lengths(image, inside, (1, 0), 2, 4).tolist() == [[2, 1, 0, 0], [2, 1, 0, 0]]
    assert run_lengths(image, inside, (1, 1), 2, 4).tolist() == [[2, 1, 0, 0], [2, 1, 0, 0]]
    assert run_lengths(image, inside, (-1, 1), 2, 4).tolist() == [[4, 0, 0, 0], [2, 1, 0, 0]]
    inside[0, 2] = False  # splits the run of three
    assert run_lengths(image, inside, (0, 1), 2, 4).tolist() == [[2, 1, 0, 0], [3, 0, 0, 0]]


def test_a_run_longer_than_the_table_counts_as_the_longest():
    image = np.zeros((9, 1, 1), int)
    assert run_lengths(image, image == 0, (1, 0), 1, 4).tolist() == [[0, 0, 0, 1]]


def test_run_features_by_hand():
    # 2 runs of one 1, one of two 1s, one of one 2, one of three 2s: 5 runs in 8 voxels.
    found = run_features(np.array([[2.0, 1.0, 0.0], [1.0, 0.0, 1.0]]), 8)
    by_hand = {
        "short": (3 + 1 / 4 + 1 / 9) / 5, "long": (3 + 4 + 9) / 5, "level unevenness": (9 + 4) / 5,
        "length unevenness": (9 + 1 + 1) / 5, "percentage": 5 / 8, "low": (3 + 2 / 4) / 5, "high": (3 + 2 * 4) / 5,
        "short low": (2 + 1 / 4 + 1 / 4 + 1 / 36) / 5, "short high": (2 + 1 / 4 + 4 + 4 / 9) / 5,
        "long low": (2 + 4 + 1 / 4 + 9 / 4) / 5, "long high": (2 + 4 + 4 + 36) / 5,
    }  # fmt: skip
    assert found == pytest.approx(by_hand, abs=1e-12)


def patterns_at_centre(image):
    return int(binary_patterns(np.array(image, float)[:, :, None])[1, 1, 0])


def test_patterns_by_hand():
    assert patterns_at_centre([[0, 0, 0], [0, 5, 0], [0, 0, 0]]) == 0  # every point is darker
    assert patterns_at_centre([[5, 5, 5], [5, 5, 5], [5, 5, 5]]) == 255  # none is
    assert patterns_at_centre([[0, 0, 0], [0, 5, 9], [0, 0, 0]]) == 1  # the diagonal points stay under 5: one bit
    assert patterns_at_centre([[0, 9, 0], [0, 5, 0], [0, 9, 0]]) == 0b10001  # two opposite ones
    # Right, below, and the point between them on the circle: three bits in a row.
    assert patterns_at_centre([[0, 0, 0], [0, 5, 9], [0, 9, 9]]) == 0b111


def test_a_turned_or_brightened_slice_has_the_same_patterns():
    image = np.random.default_rng(0).random((8, 8, 2))
    assert (np.rot90(binary_patterns(image)) == binary_patterns(np.rot90(image))).all()
    assert (binary_patterns(3 * image + 1) == binary_patterns(image)).all()


def test_moments_by_hand():
    assert moments(np.array([1.0, 2.0, 3.0])) == pytest.approx(
        {"mean": 2, "sd": np.sqrt(2 / 3), "skewness": 0, "kurtosis": 1.5}
    )
    assert moments(np.array([0.0, 0, 0, 4]))["skewness"] == pytest.approx(2 / np.sqrt(3))
    assert moments(np.full(5, 1.1, np.float32)) == pytest.approx({"mean": 1.1, "sd": 0, "skewness": 0, "kurtosis": 0})


def test_levels_and_gradient_by_hand():
    assert quantised(np.array([-9.0, 0, 0.99, 1, 31.5, 32, 99]), 0, 32).tolist() == [0, 0, 0, 1, 31, 31, 31]
    assert quantised(np.array([1.0, 1.0]), 1, 1).tolist() == [0, 0]
    x, y = np.mgrid[:4, :4]
    assert gradient((6 * x + 4 * y)[:, :, None].astype(float), np.array([2.0, 1.0, 9.0])) == pytest.approx(5)


def test_all_features_have_names_and_are_finite():
    rng = np.random.default_rng(1)
    image = rng.random((9, 9, 2))
    region = np.zeros(image.shape, bool)
    region[2:7, 2:7, 0] = True
    found = texture(image, quantised(image, 0, 1), region, np.ones(3))
    assert len(found) == 44 and np.isfinite(list(found.values())).all()
    lonely = np.zeros(image.shape, bool)
    lonely[4, 4, 0] = True
    assert np.isfinite(list(texture(image, quantised(image, 0, 1), lonely, np.ones(3)).values())).all()


def test_lees_levels_and_the_four_directions():
    assert DIRECTIONS == ((1, 0), (1, 1), (0, 1), (-1, 1))
    levels = np.zeros((40, 2, 1), int)
    assert cooccurrence(levels, levels == 0).shape == (32, 32)
    runs = run_lengths(levels, levels == 0, (1, 0))
    assert runs.shape == (32, 32) and runs[0, 31] == 2  # two rows of 40 count as 32


def test_all_four_directions_are_in_the_texture():
    """Stripes along x, y and both diagonals have long runs in one direction each, so their means over four agree."""
    x, y = np.mgrid[:12, :12]
    region = np.ones((12, 12, 1), bool)
    stripes = [(x % 2)[:, :, None], (y % 2)[:, :, None], ((x + y) // 2 % 2)[:, :, None], ((x - y) // 2 % 2)[:, :, None]]
    found = [texture(one.astype(float), one, region, np.ones(3)) for one in stripes]
    for name in ("runs long", "runs short", "co-occurrence contrast"):
        values = [numbers[name] for numbers in found]
        assert values[0] == pytest.approx(values[1]) and values[2] == pytest.approx(values[3]), name
