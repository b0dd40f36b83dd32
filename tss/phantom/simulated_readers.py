"""Simulated readers of the phantom: who sees a DWI-FLAIR mismatch, as accurately as the paper's radiologists.

In:    a patient's latent (tss.phantom.onset_law) and an rng; or the folder of tss.phantom.cohort_phantom and a patient
Out:   {"reader_1": 0 or 1, ...}; 1 = mismatch, so less than 4.5 h; or the infarct's FLAIR ratio on the raw scan
Paper: 2.1 (three neuroradiologists), Table 2 (their sensitivity and specificity), 3 (Fleiss' kappa)
See:   tests/phantom/test_simulated_readers.py

    seen = latent + noise * (sqrt(ALIKE) * g + sqrt(1 - ALIKE) * e),    mismatch if seen < threshold

g is one number for all readers of a patient (what misleads them alike), e each reader's own. The law is solved so that,
over all times, sensitivity and specificity of each reader and the kappa of the three are the paper's. They see the
latent, not the images: they serve to try out what is computed from readings, and say nothing about radiologists.

One more reader looks at the raw FLAIR as it was written: infarct over mirror region. Infarct, midline and movement are
taken from the truth, the brightness from the scan, without bias correction or registration. What is left are the errors
of an eye: bias field, noise, slices that cut the border, and hemispheres that are never quite alike. Their
error of the ratio is 5 % (SD), which limits this reader.
"""

from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage, optimize, special

from tss.data import nifti
from tss.data.files import read_json
from tss.data.nifti import apply_affine
from tss.data.tasks import TASKS
from tss.phantom import onset_law

PUBLISHED = {"reader_1": (0.5476, 0.8500), "reader_2": (0.4286, 0.9250), "reader_3": (0.5714, 0.6500)}  # Table 2
KAPPA = 0.46  # paper 3
# Our choice: a ratio of raw FLAIR below it is a mismatch. On the middle level's 422 patients sensitivity is 0.58 and
# specificity 0.84; a meta-analysis of 28 studies has 0.55 and 0.84 (AAN 2026).
RAW_FLAIR_CUT = 1.04
NODES = 400  # quantiles of each class's times; the error of a share is below 1e-4


class Readers(NamedTuple):
    """The law: names; threshold (readers,) and SD of the noise (readers,) on the latent's scale; the share alike."""

    names: tuple[str, ...]
    threshold: np.ndarray
    noise: np.ndarray
    alike: float


def draw_readings(rng: np.random.Generator, latent: float, spread: float = onset_law.SPREAD) -> dict[str, int]:
    """What each reader says of one patient. They are readers(spread); the patient may be of a clock with another."""
    law = readers(spread)
    g, own = rng.normal(), rng.normal(size=len(law.names))
    seen = latent + law.noise * (np.sqrt(law.alike) * g + np.sqrt(1 - law.alike) * own)
    return {name: int(mismatch) for name, mismatch in zip(law.names, seen < law.threshold, strict=True)}


@lru_cache
def readers(spread: float = onset_law.SPREAD) -> Readers:
    """Solve the law for the paper's figures, where the clock has this spread."""
    solved = [_one_reader(*figures, spread) for figures in PUBLISHED.values()]
    threshold, total = np.array(solved).T
    noise = np.sqrt(total**2 - spread**2)
    alike = optimize.brentq(lambda share: _kappa(threshold, total, noise, share, spread) - KAPPA, 0.0, 1.0)
    return Readers(tuple(PUBLISHED), threshold, noise, alike)


def _one_reader(sensitivity: float, specificity: float, spread: float) -> tuple[float, float]:
    """Threshold, and SD of what is seen at equal time, that give both figures."""
    early, late = _means(spread)

    def threshold(total: float) -> float:
        return optimize.brentq(lambda x: special.ndtr((x - early) / total).mean() - sensitivity, -20, 20)

    total = optimize.brentq(
        lambda total: special.ndtr((late - threshold(total)) / total).mean() - specificity, spread, 20 * spread
    )
    return threshold(total), total


@lru_cache
def _means(spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean latents at NODES times before and after 4.5 h."""
    share = float(onset_law.share_before(TASKS["tss<4.5h"]))
    middles = (np.arange(NODES) + 0.5) / NODES
    return (
        onset_law.mean_latent(onset_law.onset_at(share * middles), spread),
        onset_law.mean_latent(onset_law.onset_at(share + (1 - share) * middles), spread),
    )


def _kappa(threshold: np.ndarray, total: np.ndarray, noise: np.ndarray, alike: float, spread: float) -> float:
    """Fleiss' kappa of the law: agreement of pairs, over all times, against what the share of calls gives by chance."""
    share = float(onset_law.share_before(TASKS["tss<4.5h"]))
    agreement = calls = 0.0
    for weight, means in zip((share, 1 - share), _means(spread), strict=True):
        z = (threshold[:, None] - means) / total[:, None]
        alone = special.ndtr(z)
        calls += weight * alone.mean()
        for a, b in combinations(range(len(total)), 2):
            correlation = (spread**2 + alike * noise[a] * noise[b]) / (total[a] * total[b])
            both = _both_below(z[a], z[b], correlation)
            agreement += weight * (1 - alone[a] - alone[b] + 2 * both).mean() / special.comb(len(total), 2)
    chance = calls**2 + (1 - calls) ** 2
    return float((agreement - chance) / (1 - chance))


def _both_below(a: np.ndarray, b: np.ndarray, correlation: float) -> np.ndarray:
    """P(x < a and y < b) of two correlated standard normals, by Plackett's integral over the correlation (1954)."""
    nodes, weights = np.polynomial.legendre.leggauss(32)
    r = (correlation * (nodes + 1) / 2)[:, None]
    density = np.exp(-(a**2 - 2 * r * a * b + b**2) / (2 * (1 - r**2))) / (2 * np.pi * np.sqrt(1 - r**2))
    return special.ndtr(a) * special.ndtr(b) + correlation / 2 * (weights @ density)


def raw_flair_ratio(folder: Path, patient: str) -> float | None:
    """Return median FLAIR in the infarct / median in its mirror region's healthy brain; None where that is empty."""
    truth = read_json(folder / "truth" / f"{patient}.json")
    flair = nifti.load(folder / "scans" / f"{patient}_flair.nii.gz")
    brain, infarct = (
        nifti.load(folder / "truth" / f"{patient}_{name}.nii.gz", mask=True) for name in ("brain", "lesion")
    )
    to_atlas = np.array(truth["b0_to_atlas"]) @ infarct.affine
    to_flair = np.linalg.inv(np.array(truth["flair_to_b0"]) @ flair.affine) @ infarct.affine  # voxels to voxels

    here = np.argwhere(infarct.data > 0.5).T.astype(float)
    there = apply_affine(np.linalg.inv(to_atlas) @ np.diag([-1, 1, 1, 1]) @ to_atlas, here)
    healthy = (brain.data > 0.5) & (infarct.data <= 0.5)
    there = there[:, ndimage.map_coordinates(healthy.astype(np.uint8), there, order=0) > 0]
    inside, mirror = (
        ndimage.map_coordinates(flair.data, apply_affine(to_flair, place), order=1) for place in (here, there)
    )
    return float(np.median(inside) / np.median(mirror)) if mirror.size and np.median(mirror) > 0 else None
