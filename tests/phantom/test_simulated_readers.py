"""The simulated readers against a simulation of their law, and against the paper's figures."""

import numpy as np
import pytest

from tss.metrics import fleiss_kappa
from tss.phantom import onset_law, simulated_readers

N = 40_000


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
