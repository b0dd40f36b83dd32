"""The distortions of Models Genesis: what each may change, by value, and that a seed decides everything."""

import numpy as np
import pytest

from tss.training import genesis

SHAPE = (3, 13, 40, 20)


@pytest.fixture
def volume():
    return np.random.default_rng(1000).random(SHAPE, dtype=np.float32)


def changed_share(volume, distorted):
    return (volume != distorted).mean(axis=(1, 2, 3))  # (C,)


@pytest.mark.parametrize(
    "step",
    [genesis.distort, genesis.bend_intensities, genesis.shuffle_locally, genesis.paint_inside, genesis.paint_outside],
)
def test_same_seed_same_result_and_the_input_is_left_alone(volume, step):
    before = volume.copy()
    first, again = (step(volume, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, step(volume, np.random.default_rng(8)))
    assert np.array_equal(volume, before)
    assert first.shape == SHAPE and first.dtype == np.float32
    assert 0 <= first.min() and first.max() <= 1


def test_a_bent_intensity_is_a_monotonic_function_of_the_old_one_for_each_channel(volume):
    falling = []
    for seed in range(20):
        bent = genesis.bend_intensities(volume, np.random.default_rng(seed))
        for old, new in zip(volume, bent, strict=True):
            step = np.diff(new.ravel()[np.argsort(old, axis=None)])
            assert (step >= 0).all() or (step <= 0).all()
            falling.append((step <= 0).all())
    assert 15 <= sum(falling) <= 45  # half of 60; binomial, 4 standard deviations


def test_the_curve_is_the_bezier_curve(monkeypatch):
    """Control points (0.25, 0.25) and (0.5, 0.5) lie on the diagonal: the curve is y = x."""

    class Fixed:
        def random(self, n=None):
            return np.array([0.25, 0.5]) if n else 0.9

    ramp = np.linspace(0, 1, 60, dtype=np.float32).reshape(1, 3, 4, 5)
    assert genesis.bend_intensities(ramp, Fixed()) == pytest.approx(ramp, abs=1 / genesis.LEVELS)


def test_shuffling_moves_voxels_within_their_windows_in_all_channels_alike(volume):
    places = np.broadcast_to(np.arange(volume[0].size, dtype=np.float32).reshape(1, *SHAPE[1:]), SHAPE)
    moved = genesis.shuffle_locally(places, np.random.default_rng(3))
    assert np.array_equal(np.sort(moved, axis=None), np.sort(places, axis=None))
    assert np.array_equal(moved[0], moved[1]) and np.array_equal(moved[0], moved[2])
    assert 0.1 < (moved != places).mean() < 0.6
    came_from = np.stack(np.unravel_index(moved[0].astype(int), SHAPE[1:]))
    distance = np.abs(came_from - np.indices(SHAPE[1:])).max(axis=(1, 2, 3))
    assert (distance < np.maximum(1, np.array(SHAPE[1:]) // genesis.LARGEST_WINDOW)).all()


def test_painting_inside_and_outside_leave_the_rest_untouched(volume):
    inside = [changed_share(volume, genesis.paint_inside(volume, np.random.default_rng(s))) for s in range(30)]
    outside = [changed_share(volume, genesis.paint_outside(volume, np.random.default_rng(s))) for s in range(30)]
    for shares in (*inside, *outside):
        assert np.ptp(shares) < 1e-3  # the same boxes in all channels
    assert max(s.max() for s in inside) < 5 / 3**3
    assert min(s.min() for s in outside) > 0.15
    assert max(s.max() for s in outside) < 1 - 0.9 * (3 / 7) ** 3  # a box of 3/7 at least is left


def test_one_to_five_boxes_each_but_the_first_by_a_chance_of_19_in_20():
    rng = np.random.default_rng(0)
    counts = np.bincount([len(genesis.random_boxes((9, 9, 9), (0.2, 0.3), rng)) for _ in range(4000)], minlength=6)
    shares = [0, 0.05, 0.05 * 0.95, 0.05 * 0.95**2, 0.05 * 0.95**3, 0.95**4]
    assert counts / 4000 == pytest.approx(shares, abs=0.02)


def test_every_distortion_takes_part_at_its_rate(volume, monkeypatch):
    calls = {"bend_intensities": 0, "shuffle_locally": 0, "paint_inside": 0, "paint_outside": 0}
    for name in calls:

        def count(volume, rng, name=name):
            calls[name] += 1
            return volume

        monkeypatch.setattr(genesis, name, count)
    rng = np.random.default_rng(0)
    for _ in range(1000):
        genesis.distort(volume, rng)
    for name, rate in {
        "bend_intensities": 0.9,
        "shuffle_locally": 0.5,
        "paint_inside": 0.18,
        "paint_outside": 0.72,
    }.items():
        assert calls[name] == pytest.approx(1000 * rate, abs=65)
