"""The generating law of the phantom: when patients are scanned, and what time does to the FLAIR signal.

In:    an rng; probabilities, minutes
Out:   onset-to-MRI times in minutes, FLAIR lesion/mirror ratios; the law's density and mean for tss.ceiling
Paper: 2.1 and Table 1 (median 222 min, quartiles 105 and 715); the tissue clock is Petkova 2010 and Legge 2017
See:   tests/test_ceiling.py
"""

import numpy as np

# Table 1's quartiles; the ends are our choice (first scan after 20 min, last after three days).
ONSET_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
ONSET_MIN = (20.0, 105.0, 222.0, 715.0, 4320.0)

# Mean FLAIR ratio: 1.07 at 3 h (Petkova 2010), 1.18 at 6 h and 1.20 at 8 h (Legge 2017), then our choice: a slow
# rise through the first days (Lansberg 2001 reports the rise, not these figures).
CLOCK_MIN = (0.0, 180.0, 360.0, 480.0, 1440.0, 4320.0)
CLOCK_RATIO = (1.0, 1.07, 1.18, 1.20, 1.32, 1.45)

# SD of log ratio between patients of equal time: our choice, so that the best reader of the latent reaches
# an AUC of about 0.90 for TSS < 4.5 h.
SPREAD = 0.062


def onset_at(share) -> np.ndarray:
    """Quantile law: minutes below which `share` (0..1) of the patients lie; log-linear between the knots."""
    return np.exp(np.interp(share, ONSET_SHARES, np.log(ONSET_MIN)))


def share_before(minutes) -> np.ndarray:
    """Distribution law, inverse of onset_at."""
    return np.interp(np.log(minutes), np.log(ONSET_MIN), ONSET_SHARES)


def mean_log_ratio(minutes) -> np.ndarray:
    """Mean of the latent, log(FLAIR lesion / mirror), at `minutes` after onset; grows strictly."""
    return np.interp(minutes, CLOCK_MIN, np.log(CLOCK_RATIO))


def draw_onset(rng: np.random.Generator) -> float:
    """Minutes from onset to MRI."""
    return float(onset_at(rng.uniform()))


def draw_log_ratio(rng: np.random.Generator, minutes: float, spread: float = SPREAD) -> float:
    """One patient's latent: normal about the mean of its time. All that time does to a scan goes through it."""
    return float(mean_log_ratio(minutes) + spread * rng.normal())
