"""The best AUC that can be reached on average on such phantoms, from the law that made them.

In:    the law of tss.phantom.onset_law (density of onset times, normal latent given time); or a cohort's truth files
Out:   ceilings() -> {task: AUC}; realised_auc(cohort.csv) -> {task: AUC of the ideal observer on that cohort}
Paper: - (what Table 2's AUCs are to be compared with on made-up patients)
See:   tests/phantom/test_ideal_observer.py

Time acts on the scans only through one latent, u = mean(t) + spread * normal (tss.phantom.onset_law). The mean grows
with time and the spread does not depend on it, so P(t < T | latent) falls with the latent (monotone likelihood ratio),
and the best reader is the latent itself, seen without noise. Its AUC is
P(latent of a positive < latent of a negative) = E[ Phi((mean(t-) - mean(t+)) / (spread * sqrt(2))) ].
Stroke in a hemisphere (phase 1): every lesion is bright on DWI from the first minutes and no healthy tissue is, so
a reader without noise makes no mistake: 1.

On a few patients the best reader itself lies above or below that: realised_auc() says where.
"""

import csv
import os
from functools import cache
from pathlib import Path

import numpy as np
from scipy import special

from tss.data.files import read_json
from tss.data.tasks import TASKS
from tss.metrics.roc import roc_auc
from tss.phantom import onset_law

PHANTOM_NOTE = "These patients are phantoms: phantom scores are not clinical results."
CEILING_NOTE = "the best AUC that can be reached on average on such patients"
NODES = 2000  # quantiles in the integral; the error is below 1e-5
STROKE_CEILING = 1.0


def ceilings(spread: float = onset_law.SPREAD) -> dict[str, float]:
    """Best reachable AUC for each task of tss.data.tasks.TASKS, by integration over both classes' times."""
    return {task: STROKE_CEILING if limit is None else ceiling(limit, spread) for task, limit in TASKS.items()}


def phantom_note(spread: str | None, task: str) -> str:
    """What a plot or a line with a score has to say, by the column `phantom`; "" for real patients."""
    if not spread:
        return ""
    best = ceilings(float(spread)).get(task)
    return "phantoms, not clinical" + (f"; best possible AUC {best:.3f}" if best else "")


@cache  # a quarter of a second each time, and every training and every picture of phantoms asks
def ceiling(limit_min: float, spread: float = onset_law.SPREAD) -> float:
    """Best AUC for "scanned less than limit_min after onset" with the latent known exactly."""
    share = float(onset_law.share_before(limit_min))
    middles = (np.arange(NODES) + 0.5) / NODES
    early = onset_law.mean_latent(onset_law.onset_at(share * middles), spread)
    late = onset_law.mean_latent(onset_law.onset_at(share + (1 - share) * middles), spread)
    return float(special.ndtr((late[None] - early[:, None]) / (spread * np.sqrt(2))).mean())


def realised_auc(cohort_csv: str | os.PathLike, split: str = "") -> dict[str, float | None]:
    """AUC of the ideal observer on a cohort, or a split of it: the truth files' latents against the table's times.

    Patients without a known time or a truth file are omitted; None where a class is empty.
    """
    folder = Path(cohort_csv).parent
    pairs = []
    with open(cohort_csv, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            truth = folder / "truth" / f"{row['patient']}.json"
            if row["onset_to_mri_min"] and truth.is_file() and split in ("", row.get("split")):
                pairs.append((float(row["onset_to_mri_min"]), read_json(truth)["latent"]))
    minutes, latent = np.array(pairs).reshape(-1, 2).T
    return {
        task: STROKE_CEILING if limit is None else auc_or_none(minutes < limit, -latent)
        for task, limit in TASKS.items()
    }


def auc_or_none(positive: np.ndarray, score: np.ndarray) -> float | None:
    """Return the AUC, or None where a class is empty."""
    return roc_auc(positive, score) if positive.any() and not positive.all() else None
