"""The best AUC that can be reached on average on such phantoms, from the law that made them.

In:    the law of tss.phantom.onset_law (density of onset times, normal latent given time); or a cohort's truth files
Out:   ceilings(), practical_ceilings() -> {task: AUC on average}; chance_interval(): where N patients put it;
       realised_auc(cohort.csv) -> {task: AUC on that cohort}; share_of_best(): a method beside the ideal observer
Paper: - (what Table 2's AUCs are to be compared with on made-up patients)
See:   tests/phantom/test_ideal_observer.py

Time acts on the scans only through one latent, u = mean(t) + spread * normal (tss.phantom.onset_law). The mean grows
with time and the spread does not depend on it, so P(t < T | latent) falls with the latent (monotone likelihood ratio),
and the best reader is the latent itself, seen without noise. Its AUC is
P(latent of a positive < latent of a negative) = E[ Phi((mean(t-) - mean(t+)) / (spread * sqrt(2))) ].
Stroke in a hemisphere (phase 1): every lesion is bright on DWI from the first minutes and no healthy tissue is, so
a reader without noise makes no mistake: 1.

Nobody sees the latent. The practical reader sees the infarct's FLAIR ratio with READING_NOISE:
log seen = log ratio(u) + READING_NOISE * normal, and its AUC is E[ Phi((log ratio- - log ratio+) / (noise * sqrt(2))) ]
over the latents of both classes.

Both are means. On a few patients the best reader itself lies above or below: chance_interval() says how far by the law,
realised_auc() where on given patients. Two methods on the same patients share that luck, so that a share of the best
has a narrower interval than its two AUCs: share_of_best().
"""

import csv
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from scipy import special

from tss.data.files import read_json
from tss.data.tasks import TASKS
from tss.metrics.bootstrap import bootstrap_ci
from tss.metrics.roc import roc_auc
from tss.phantom import onset_law

PHANTOM_NOTE = "These patients are phantoms: phantom scores are not clinical results."
CEILING_NOTE = "the AUC that is the best possible on average on such patients"
NODES = 2000  # quantiles in the integral; the error is below 1e-5
STROKE_CEILING = 1.0
READING_NOISE = 0.05  # SD of the log of a ratio that is read from raw scans (tss.phantom.simulated_readers)
COHORTS = 4000  # drawn for an interval; our choice: its ends then move by about 0.002


def ceilings(spread: float = onset_law.SPREAD) -> dict[str, float]:
    """Best reachable AUC for each task of tss.data.tasks.TASKS, by integration over both classes' times."""
    return {task: STROKE_CEILING if limit is None else ceiling(limit, spread) for task, limit in TASKS.items()}


def practical_ceilings(spread: float = onset_law.SPREAD) -> dict[str, float]:
    """AUC of the reader who sees the FLAIR ratio with READING_NOISE, for each task; stroke is not its limit."""
    return {
        task: STROKE_CEILING if limit is None else practical_ceiling(limit, spread) for task, limit in TASKS.items()
    }


def phantom_note(spread: str | None, task: str, n: int = 0, n_positive: int = 0) -> str:
    """What a plot or a line with a score has to say, by the column `phantom`; "" for real patients.

    n, n_positive: of the patients that are scored, for the interval that so many allow.
    """
    if not spread:
        return ""
    best = ceilings(float(spread)).get(task)
    interval = chance_interval(task, float(spread), n, n_positive)
    within = f", with {n} patients {interval[0]:.2f}-{interval[1]:.2f}" if interval and TASKS[task] else ""
    return "phantoms, not clinical" + (f"; best possible AUC on average {best:.3f}{within}" if best else "")


@cache
def chance_interval(task: str, spread: float, n: int, n_positive: int) -> tuple[float, float] | None:
    """Return where the ideal observer's AUC lies on 95 % of such cohorts of n patients; None without both classes."""
    limit = TASKS[task]
    if not 0 < n_positive < n:
        return None
    if limit is None:
        return STROKE_CEILING, STROKE_CEILING
    rng, share = np.random.default_rng(0), float(onset_law.share_before(limit))
    shares = rng.uniform(size=(COHORTS, n))
    shares[:, :n_positive] *= share  # the positives first
    shares[:, n_positive:] = share + (1 - share) * shares[:, n_positive:]
    latent = onset_law.mean_latent(onset_law.onset_at(shares), spread) + spread * rng.normal(size=shares.shape)
    ranks = latent.argsort(1).argsort(1)[:, n_positive:].sum(1)  # of the negatives, from 0
    negatives = n - n_positive
    aucs = (ranks - negatives * (negatives - 1) / 2) / (n_positive * negatives)
    low, high = np.quantile(aucs, [0.025, 0.975])
    return float(low), float(high)


@cache  # a quarter of a second each time, and every training and every picture of phantoms asks
def ceiling(limit_min: float, spread: float = onset_law.SPREAD) -> float:
    """Best AUC for "scanned less than limit_min after onset" with the latent known exactly."""
    share = float(onset_law.share_before(limit_min))
    middles = (np.arange(NODES) + 0.5) / NODES
    early = onset_law.mean_latent(onset_law.onset_at(share * middles), spread)
    late = onset_law.mean_latent(onset_law.onset_at(share + (1 - share) * middles), spread)
    return float(special.ndtr((late[None] - early[:, None]) / (spread * np.sqrt(2))).mean())


@cache
def practical_ceiling(limit_min: float, spread: float = onset_law.SPREAD) -> float:
    """AUC of the practical reader for "scanned less than limit_min after onset", on average."""
    share = float(onset_law.share_before(limit_min))
    middles = (np.arange(NODES) + 0.5) / NODES
    latents = np.linspace(-1 - 5 * spread, 2 + 5 * spread, NODES)
    early, late = (
        np.interp(middles, special.ndtr((latents[:, None] - means) / spread).mean(1), latents)  # quantiles
        for means in (
            onset_law.mean_latent(onset_law.onset_at(times), spread)
            for times in (share * middles, share + (1 - share) * middles)
        )
    )
    return practical_auc(early, late)


def practical_auc(early: np.ndarray, late: np.ndarray) -> float:
    """AUC of the practical reader on positives (n,) and negatives (m,) with these latents, over its noise."""
    log_early, log_late = (np.log(onset_law.flair_ratio(latent)) for latent in (early, late))
    return float(special.ndtr((log_late - log_early[:, None]) / (READING_NOISE * np.sqrt(2))).mean())


def realised_auc(cohort_csv: str | os.PathLike, split: str = "", practical: bool = False) -> dict[str, float | None]:
    """AUC of the ideal observer on a cohort, or a split of it: the truth files' latents against the table's times.

    practical: of the practical reader instead, on average over its noise. Patients without a known time or a truth file
    are omitted; None where a class is empty.
    """
    folder = Path(cohort_csv).parent
    pairs = []
    with open(cohort_csv, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            truth = folder / "truth" / f"{row['patient']}.json"
            if row["onset_to_mri_min"] and truth.is_file() and split in ("", row.get("split")):
                pairs.append((float(row["onset_to_mri_min"]), read_json(truth)["latent"]))
    minutes, latent = np.array(pairs).reshape(-1, 2).T
    found: dict[str, float | None] = {}
    for task, limit in TASKS.items():
        if limit is None:
            found[task] = STROKE_CEILING
        elif practical and (minutes < limit).any() and (minutes >= limit).any():
            found[task] = practical_auc(latent[minutes < limit], latent[minutes >= limit])
        else:
            found[task] = auc_or_none(minutes < limit, -latent)
    return found


def share_of_best(y: np.ndarray, latent: np.ndarray, scores: Sequence[np.ndarray]) -> tuple[float, tuple[float, float]]:
    """Return a method's AUC over the ideal observer's on the same patients, and its 95 % interval.

    Patients are drawn anew, the same for both, so that what makes a draw easy or hard for both cancels.

    y, latent: (N,) of the patients. scores: (N,) of each run of the method, such as seeds; their mean AUC counts.
    """

    def share(chosen: np.ndarray) -> float:
        ours = float(np.mean([roc_auc(y[chosen], run[chosen]) for run in scores]))
        return ours / roc_auc(y[chosen], -latent[chosen])

    everybody = np.arange(len(y))
    return share(everybody), bootstrap_ci(share, everybody, np.random.default_rng(0))


def auc_or_none(positive: np.ndarray, score: np.ndarray) -> float | None:
    """Return the AUC, or None where a class is empty."""
    return roc_auc(positive, score) if positive.any() and not positive.all() else None
