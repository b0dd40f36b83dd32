"""The generating law of the phantom: when patients are scanned, and what time does to the FLAIR signal.

In:    an rng; minutes; shares of patients
Out:   onset-to-MRI times in minutes, each patient's latent, the FLAIR lesion/mirror ratio that it stands for
Paper: 2.1 and Table 1 (median 222 min, quartiles 105 and 715); the tissue clock is Petkova 2010 and Legge 2017
See:   tests/phantom/test_ideal_observer.py

    latent u ~ Normal(mean_latent(t), SPREAD),    log FLAIR ratio = FLOOR * log(1 + exp(u / FLOOR))

The second step keeps acute lesions from being darker than healthy tissue; it is monotone, so u and the ratio say
the same about time. mean_latent is solved so that the mean ratio is CLOCK_RATIO at each time.
"""

from functools import lru_cache

import numpy as np
from scipy import special

# Table 1's quartiles; the ends are our choice (first scan after 20 min, last after three days).
ONSET_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
ONSET_MIN = (20.0, 105.0, 222.0, 715.0, 4320.0)

# Mean FLAIR ratio. Published are cut-offs, 1.07 for 3 h (Petkova 2010), 1.18 for 6 h and 1.20 for 8 h (Legge 2017);
# that they are the means at these times is our choice. So are the ends: hardly anything at first, then a slow rise
# through the first days (Lansberg 2001 reports the rise, no figures).
CLOCK_MIN = (20.0, 180.0, 360.0, 480.0, 1440.0, 4320.0)
CLOCK_RATIO = (1.025, 1.07, 1.18, 1.20, 1.32, 1.45)

# Biological spread of the latent between patients of equal time: our choice, so that a reader who knows the
# latent reaches an AUC of 0.90 for TSS < 4.5 h.
SPREAD = 0.115
FLOOR = 0.03  # width of the bend that keeps ratios above 1; our choice


def onset_at(share) -> np.ndarray:
    """Quantile law: minutes below which `share` (0..1) of the patients lie; log-linear between the knots."""
    return np.exp(np.interp(share, ONSET_SHARES, np.log(ONSET_MIN)))


def share_before(minutes) -> np.ndarray:
    """Distribution law, inverse of onset_at."""
    return np.interp(np.log(minutes), np.log(ONSET_MIN), ONSET_SHARES)


def flair_ratio(latent) -> np.ndarray:
    """FLAIR signal, lesion / mirror, that a latent stands for; above 1."""
    return np.exp(FLOOR * np.logaddexp(0, np.asarray(latent) / FLOOR))


def mean_latent(minutes, spread: float = SPREAD) -> np.ndarray:
    """Mean of the latent `minutes` after onset; grows strictly with time."""
    return np.interp(minutes, CLOCK_MIN, _latent_knots(spread))


@lru_cache
def _latent_knots(spread: float) -> np.ndarray:
    """The latent's means at CLOCK_MIN for which the mean ratios are CLOCK_RATIO."""
    normal = special.ndtri((np.arange(1000) + 0.5) / 1000)
    means = np.linspace(-1.0, 1.0, 2001)
    ratios = flair_ratio(means[:, None] + spread * normal).mean(1)
    return np.interp(CLOCK_RATIO, ratios, means)


def draw_onset(rng: np.random.Generator) -> float:
    """Minutes from onset to MRI, whole as in a table."""
    return float(np.round(onset_at(rng.uniform())))


def draw_latent(rng: np.random.Generator, minutes: float, spread: float = SPREAD) -> float:
    """One patient's latent. All that time does to a scan goes through it."""
    return float(mean_latent(minutes, spread) + spread * rng.normal())
