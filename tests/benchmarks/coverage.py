"""Do the intervals hold what they say? Coverage over simulated studies of every interval that the suite prints.

    python tests/benchmarks/coverage.py                    1,000 studies of the paper's size, some minutes
    python tests/benchmarks/coverage.py --studies 200

Studies have 40 positive and 42 negative patients, or 41 of either class, with scores drawn from two normals (the AUC is
known), made so that the truth is known. Wanted: 93.5 to 96.5 % (1,000 studies: one standard error is 0.7 points). Also
the family error of Holm's correction where no null hypothesis is false, and the promise of PPV and NPV.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy import special

sys.path.insert(0, str(Path(__file__).parents[2]))

from tss import metrics
from tss.errors import InputError
from tss.metrics.calibration import brier_ci
from tss.metrics.platt import fit_line, gain_of_line
from tss.metrics.unsure import CONFIDENCE, unsure_band

POSITIVES, NEGATIVES = 40, 42
Y = np.array([1] * POSITIVES + [0] * NEGATIVES)
LOW, HIGH = 0.935, 0.965
READER = np.array([[0.82, 0.18], [0.25, 0.75]])  # of a patient's state: chance of a call 0 and 1
PROMISED = 0.8


def apart(auc: float) -> float:
    return float(np.sqrt(2) * special.ndtri(auc))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=500, help="of the bootstrap; the suite takes 2,000")
    parser.add_argument("--gains", type=int, default=500, help="studies of recalibration's gain, which takes longer")
    args = parser.parse_args()
    rng, hits = np.random.default_rng(0), defaultdict(list)
    kappas = true_kappas()
    for study in range(args.studies):
        for name, truth, (low, high) in intervals(rng, args.draws, kappas):
            hits[name].append(low <= truth <= high)
        if study < args.gains:
            hits["recalibration's gain, 60 patients"].append(gain_holds(rng))
    missed = 0
    for name, inside in hits.items():
        coverage = float(np.mean(inside))
        error = np.sqrt(coverage * (1 - coverage) / len(inside))
        missed += not LOW <= coverage <= HIGH
        word = "" if LOW <= coverage <= HIGH else "  OUTSIDE 93.5 to 96.5"
        print(f"{name:52s} {100 * coverage:5.1f} % of {len(inside)} (s.e. {100 * error:.1f}){word}", flush=True)
    family = float(np.mean([holm_error(rng) for _ in range(args.studies)]))
    limit = 0.05 + 2 * np.sqrt(0.05 * 0.95 / args.studies)
    missed += family > limit
    print(f"{'Holm: a false difference among 4 equal models':52s} {100 * family:5.1f} %, limit {100 * limit:.1f}")
    for auc, n in ((0.74, 340), (0.74, 68), (0.85, 340), (0.85, 68), (0.95, 340)):
        kept, unsure = promises(rng, args.studies, auc, n)
        missed += kept < CONFIDENCE
        name = f"PPV and NPV {PROMISED:g} kept, AUC {auc}, {n} patients"
        print(f"{name:52s} {100 * kept:5.1f} %, at least {100 * CONFIDENCE:.0f} promised; {100 * unsure:.0f} % unsure")
    print(f"{missed} outside")
    return int(missed > 0)


def intervals(rng, draws, kappas):
    """Yield name, true value and interval of one simulated study."""
    for auc in (0.74, 0.85, 0.95):
        z = rng.normal(size=len(Y)) + apart(auc) * Y
        yield f"DeLong, AUC {auc}", auc, metrics.delong_ci(Y, z)
        yield f"DeLong on the logit scale, AUC {auc}", auc, metrics.auc_ci(Y, z)
    one, noise = rng.normal(size=len(Y)), rng.normal(size=(2, len(Y)))
    first, second = (0.7 * one + np.sqrt(1 - 0.49) * noise[i] + apart(auc) * Y for i, auc in enumerate((0.8, 0.7)))
    yield "DeLong's paired difference, 0.80 - 0.70", 0.1, metrics.delong_test(Y, first, second).ci
    for share, n in ((0.7, POSITIVES), (0.9, NEGATIVES), (0.75, len(Y))):
        yield f"Wilson, {share} of {n}", share, metrics.wilson(int(rng.binomial(n, share)), n)
    yield from by_patient(rng, draws)
    state = rng.random(len(Y)) < 0.49
    calls = (rng.random((len(Y), 3)) < READER[state.astype(int), 1][:, None]).astype(int)
    yield "Fleiss' kappa, 3 readers, 82 patients", kappas, metrics.fleiss_kappa_ci(calls)
    yield "Cohen's kappa, 2 readers, 82 patients", kappas, metrics.cohen_kappa_ci(calls[:, 0], calls[:, 1])
    true = rng.normal(0, 1.5, len(Y))
    y = (rng.random(len(Y)) < special.expit(true)).astype(int)
    yield "Brier score, calibrated", EXPECTED_BRIER, brier_ci(y, special.expit(true))


def by_patient(rng, draws):
    """Bootstrap by patient: two hemispheres that share the patient's own level, one with the stroke."""
    patients = np.repeat(np.arange(41), 2)
    y = np.tile([1, 0], 41)
    level = rng.normal(size=41)[patients]
    z = np.sqrt(0.5) * level + np.sqrt(0.5) * rng.normal(size=82) + apart(0.85) * y
    yield (
        "bootstrap by patient, AUC 0.85, 41 x 2 hemispheres",
        0.85,
        metrics.bootstrap_ci(lambda lines: metrics.roc_auc(y[lines], z[lines]), patients, rng, draws),
    )
    values = rng.normal(size=60)
    yield (
        "bootstrap of a mean, 60 patients",
        0.0,
        metrics.bootstrap_ci(lambda lines: float(values[lines].mean()), range(60), rng, draws),
    )


def true_kappas() -> float:
    """Kappa of two such readers in all patients there could be; it is Fleiss' too, since they are alike."""
    positive = 0.51 * READER[0, 1] + 0.49 * READER[1, 1]
    agree = 0.51 * (READER[0] ** 2).sum() + 0.49 * (READER[1] ** 2).sum()
    chance = positive**2 + (1 - positive) ** 2
    return float((agree - chance) / (1 - chance))


NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
P = special.expit(1.5 * NODES)
EXPECTED_BRIER = float(WEIGHTS / WEIGHTS.sum() @ (P * (1 - P)))


def gain_holds(rng) -> bool:
    """Does the interval hold what the line fitted to these 60 patients gains for all others of the site?"""

    def site(n):
        true = rng.normal(0, 1.5, n)
        return (rng.random(n) < special.expit(true)).astype(int), true + 1.5

    y, z = site(60)
    try:
        low, high = gain_of_line(y, z, False).ci
    except InputError:
        return True
    others, logits = site(20_000)
    new = fit_line(y, z, False).of(logits)
    gain = metrics.brier(others, special.expit(logits)) - metrics.brier(others, special.expit(new))
    return low <= gain <= high


def holm_error(rng) -> bool:
    """Is any of the six differences among four equally good models called one?"""
    shared = rng.normal(size=len(Y))
    models = [0.7 * shared + np.sqrt(0.51) * rng.normal(size=len(Y)) + apart(0.8) * Y for _ in range(4)]
    pvalues = [metrics.delong_test(Y, models[i], models[j]).pvalue for i in range(4) for j in range(i)]
    return min(metrics.holm(pvalues)) <= 0.05


def promises(rng, studies, auc, n) -> tuple[float, float]:
    """Return in what share of studies PPV and NPV are both kept, and the mean share of unsure patients."""
    distance, positive, kept, unsure = apart(auc), 0.46, [], []
    for _ in range(studies):
        y = rng.random(n) < positive
        band = unsure_band(y, rng.normal(size=n) + distance * y, PROMISED, distance / 2)
        upper = np.inf if band.upper is None else band.upper
        lower = -np.inf if band.lower is None else band.lower
        tp, fp = positive * special.ndtr(distance - upper), (1 - positive) * special.ndtr(-upper)
        tn, fn = (1 - positive) * special.ndtr(lower), positive * special.ndtr(lower - distance)
        kept.append(tp >= PROMISED * (tp + fp) and tn >= PROMISED * (tn + fn))
        unsure.append(1 - tp - fp - tn - fn)
    return float(np.mean(kept)), float(np.mean(unsure))


if __name__ == "__main__":
    sys.exit(main())
