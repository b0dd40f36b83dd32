"""The ceiling against a simulation of the law, and the law against the figures that it is made from."""

import csv

import numpy as np
import pytest
from scipy import stats

from tss.data.files import write_json
from tss.data.tasks import TASKS
from tss.phantom import onset_law
from tss.phantom.ideal_observer import (
    READING_NOISE,
    ceiling,
    ceilings,
    chance_interval,
    phantom_note,
    practical_auc,
    practical_ceilings,
    realised_auc,
    share_of_best,
)


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


@pytest.mark.parametrize("task", ["tss<3h", "tss<4.5h"])
def test_the_practical_reader_agrees_with_simulation_and_is_below_the_ideal_one(task):
    minutes, latent = simulate(2_000_000)
    noise = READING_NOISE * np.random.default_rng(1).normal(size=latent.size)
    seen = np.log(onset_law.flair_ratio(latent)) + noise
    assert practical_ceilings()[task] == pytest.approx(auc(minutes < TASKS[task], -seen), abs=7e-4)
    assert practical_ceilings()[task] < ceilings()[task] - 0.01
    assert practical_ceilings()["stroke"] == 1.0


def test_the_interval_of_n_patients_is_what_cohorts_of_the_law_show():
    """82 patients, 45 positive, by rejection from whole cohorts; it narrows with n and holds the ceiling."""
    minutes, latent = simulate(1_000_000)
    early, late = latent[minutes < 270], latent[minutes >= 270]
    draws = [
        auc(np.arange(82) < 45, -np.r_[early[45 * i : 45 * i + 45], late[37 * i : 37 * i + 37]]) for i in range(4000)
    ]
    low, high = chance_interval("tss<4.5h", onset_law.SPREAD, 82, 45)
    assert (low, high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.005)
    assert low < ceilings()["tss<4.5h"] < high
    narrower = chance_interval("tss<4.5h", onset_law.SPREAD, 422, 231)
    assert low < narrower[0] < narrower[1] < high
    assert chance_interval("tss<4.5h", onset_law.SPREAD, 3, 3) is None
    assert chance_interval("stroke", onset_law.SPREAD, 82, 45) == (1, 1)


def test_what_is_said_of_phantoms_has_the_interval():
    assert phantom_note("", "tss<4.5h", 82, 45) == ""
    low, high = chance_interval("tss<4.5h", 0.17, 82, 45)
    said = f"phantoms, not clinical; best possible AUC on average 0.854, with 82 patients {low:.2f}-{high:.2f}"
    assert phantom_note("0.17", "tss<4.5h", 82, 45) == said
    assert phantom_note("0.17", "stroke", 82, 45) == "phantoms, not clinical; best possible AUC on average 1.000"


def test_a_share_of_the_best_pairs_both_on_the_same_patients():
    """The method is the latent with a little noise: both AUCs vary widely, their ratio hardly."""
    minutes, latent = simulate(82, seed=3)
    y, rng = minutes < 270, np.random.default_rng(4)
    share, (low, high) = share_of_best(y, latent, [-latent])
    assert share == low == high == 1
    runs = [-latent + 0.02 * rng.normal(size=82) for _ in range(2)]
    share, (low, high) = share_of_best(y, latent, runs)
    assert share == pytest.approx(np.mean([auc(y, run) for run in runs]) / auc(y, -latent))
    wide = np.subtract(*chance_interval("tss<4.5h", onset_law.SPREAD, 82, int(y.sum()))[::-1])
    assert low < share < high and high - low < wide / 2


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
    practical = realised_auc(tmp_path / "cohort.csv", practical=True)
    assert practical["tss<4.5h"] == practical_auc(np.array([0.0, 0.2]), np.array([0.1, 0.3]))
    assert 0.5 < practical["tss<4.5h"] < 0.75 and practical["stroke"] == 1.0
