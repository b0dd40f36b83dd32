"""The ceiling against a simulation of the law, and the law against the figures that it is made from."""

import csv

import numpy as np
import pytest
from scipy import stats

from tss.data.files import write_json
from tss.data.tasks import TASKS
from tss.phantom import onset_law
from tss.phantom.ideal_observer import ceiling, ceilings, realised_auc


def simulate(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Onset times (n,) and latents (n,) drawn from the law."""
    rng = np.random.default_rng(seed)
    minutes = onset_law.onset_at(rng.uniform(size=n))
    return minutes, onset_law.mean_latent(minutes) + onset_law.SPREAD * rng.normal(size=n)


def auc(positive: np.ndarray, score: np.ndarray) -> float:
    ranks = stats.rankdata(score)
    n, m = positive.sum(), (~positive).sum()
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


@pytest.mark.parametrize("task", ["tss<3h", "tss<4.5h"])
def test_integration_agrees_with_simulation_to_three_decimals(task):
    minutes, latent = simulate(2_000_000)
    assert ceilings()[task] == pytest.approx(auc(minutes < TASKS[task], -latent), abs=7e-4)


def test_the_latent_is_the_best_reader():
    """No other reader beats it: the posterior P(t < T | latent), on a grid of times, ranks patients the same way."""
    minutes, latent = simulate(3000)
    times = onset_law.onset_at((np.arange(4000) + 0.5) / 4000)
    likelihood = np.exp(-((latent[:, None] - onset_law.mean_latent(times)) ** 2) / (2 * onset_law.SPREAD**2))
    posterior = likelihood[:, times < 270].sum(1) / likelihood.sum(1)
    assert auc(minutes < 270, posterior) == pytest.approx(auc(minutes < 270, -latent), abs=1e-6)


def test_ceilings_are_named_like_the_tasks_and_fall_with_spread():
    assert list(ceilings()) == list(TASKS)
    assert ceilings()["stroke"] == 1.0
    assert ceilings()["tss<4.5h"] == pytest.approx(0.90, abs=0.005)
    assert ceiling(270, 1e-4) == pytest.approx(1.0, abs=1e-3)
    assert ceiling(270, 0.05) > ceiling(270, 0.1) > ceiling(270, 0.3)


def test_onset_times_follow_table_1():
    minutes, _ = simulate(200_000)
    assert np.percentile(minutes, [25, 50, 75]) == pytest.approx([105, 222, 715], rel=0.02)
    assert onset_law.share_before(onset_law.onset_at(0.6)) == pytest.approx(0.6)
    assert onset_law.onset_at([0, 1]) == pytest.approx([20, 4320])


@pytest.mark.parametrize("minutes, published", [(180, 1.07), (360, 1.18), (480, 1.20)])
def test_mean_flair_ratio_is_the_published_one(minutes, published):
    rng = np.random.default_rng(1)
    ratios = [onset_law.flair_ratio(onset_law.draw_latent(rng, minutes)) for _ in range(20_000)]
    assert np.mean(ratios) == pytest.approx(published, abs=0.003)
    assert min(ratios) >= 1.0


def test_realised_auc_of_a_small_cohort_by_hand(tmp_path):
    """Latents 0.0 and 0.2 before 4.5 h, 0.1 and 0.3 after: three of four pairs are in order."""
    rows = [("a", "60", 0.0), ("b", "200", 0.2), ("c", "300", 0.1), ("d", "900", 0.3), ("e", "", 0.5)]
    with open(tmp_path / "cohort.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["patient", "onset_to_mri_min"])
        writer.writerows(row[:2] for row in rows)
    for name, _, latent in rows:
        write_json(tmp_path / "truth" / f"{name}.json", {"latent": latent})
    best = realised_auc(tmp_path / "cohort.csv")
    assert best == {"stroke": 1.0, "tss<3h": 1.0, "tss<4.5h": 0.75}
