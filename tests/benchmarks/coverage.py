"""Do the intervals hold what they say? Coverage over simulated studies of every interval that the suite prints.

    python tests/benchmarks/coverage.py                    1,000 studies of the paper's size, some minutes
    python tests/benchmarks/coverage.py --studies 200

Studies have 40 positive and 42 negative patients, unless the line says otherwise, made so that the truth is known: of
scores from two normals, the AUC. Wanted: 93.5 to 96.5 % (1,000 studies: one standard error is 0.7 points). A line ends
with how often the interval lies wholly above, and wholly below, the truth. Then the family error of Holm's correction
where no null hypothesis is true, and where half are; and the promise of PPV and NPV. Calibration's intercept and slope
are printed without intervals, and so are differences between subgroups; the widths that the study planner expects are
compared with those found. Exit code 1 where anything lies outside.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy import special

sys.path.insert(0, str(Path(__file__).parents[2]))

from tss import metrics
from tss.errors import InputError
from tss.evaluation.gradcam_overlap import summarise
from tss.evaluation.readers import matched
from tss.metrics.platt import fit_line, gain_of_line
from tss.metrics.unsure import CONFIDENCE, unsure_band
from tss.phantom import onset_law
from tss.phantom.ideal_observer import chance_interval, share_of_best
from tss.study.planner import expected_interval
from tss.study.published_rows import hanley_mcneil

POSITIVES, NEGATIVES = 40, 42
LOW, HIGH = 0.935, 0.965
READER = np.array([[0.82, 0.18], [0.25, 0.75]])  # of a patient's state: chance of a call 0 and 1
PROMISED = 0.8
Interval = tuple[str, float, tuple[float, float]]  # name, truth, ends
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=500, help="of the bootstrap; the suite takes 2,000")
    parser.add_argument(
        "--slow", type=int, default=300, help="studies of what takes long, the last intervals of the table"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, missed = np.random.default_rng(args.seed), 0
    quick = (aucs, hemispheres, differences, shares, agreement, probabilities, maps)
    for kind in quick:
        missed += coverage(args.studies, lambda kind=kind: kind(rng))
    missed += coverage(args.studies, lambda: bootstraps(rng, args.draws))
    missed += coverage(args.slow, lambda: slow_ones(rng))
    for size, auc in ((82, 0.8), (82, 0.95), (30, 0.8)):
        for equal in (4, 2):
            missed += family_error(rng, args.studies, size, auc, equal)
    for auc, n in ((0.74, 340), (0.74, 68), (0.85, 340), (0.85, 68), (0.95, 340)):
        kept, unsure = promises(rng, args.studies, auc, n)
        missed += kept < CONFIDENCE
        name = f"PPV and NPV {PROMISED:g} kept, AUC {auc}, {n} patients"
        print(f"{name:66s} {100 * kept:5.1f} %, at least {100 * CONFIDENCE:.0f} promised; {100 * unsure:.0f} % unsure")
    for auc in (0.74, 0.85, 0.95):
        widths = [np.diff(metrics.auc_ci(*study(rng, auc))) for _ in range(args.studies)]
        low, high = expected_interval(auc, POSITIVES, NEGATIVES)
        print(f"planner, AUC {auc}: width {high - low:.3f} expected, {np.mean(widths):.3f} on average")
    print(f"{missed} outside")
    return int(missed > 0)


def coverage(studies: int, simulate: Callable[[], Iterator[Interval]]) -> int:
    """Print how often each interval of a study holds the truth; return how many do too seldom or too often."""
    held, above, below = defaultdict[str, list[bool]](list), defaultdict[str, int](int), defaultdict[str, int](int)
    for _ in range(studies):
        for name, truth, (low, high) in simulate():
            held[name].append(low <= truth <= high)
            above[name] += low > truth
            below[name] += high < truth
    for name, inside in held.items():
        n, share = len(inside), float(np.mean(inside))
        error = np.sqrt(share * (1 - share) / n)
        word = "" if LOW <= share <= HIGH else "  OUTSIDE 93.5 to 96.5"
        print(
            f"{name:66s} {100 * share:5.1f} % of {n} (s.e. {100 * error:.1f}), {100 * above[name] / n:.1f} above, "
            f"{100 * below[name] / n:.1f} below{word}",
            flush=True,
        )
    return sum(not LOW <= float(np.mean(inside)) <= HIGH for inside in held.values())


def apart(auc: float) -> float:
    return float(np.sqrt(2) * special.ndtri(auc))


def study(rng, auc: float, positives: int = POSITIVES, negatives: int = NEGATIVES) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and scores."""
    y = np.array([1] * positives + [0] * negatives)
    return y, rng.normal(size=len(y)) + apart(auc) * y


def pair(rng, y: np.ndarray, first: float, second: float) -> tuple[np.ndarray, np.ndarray]:
    """Return two scores of the same patients, correlated by 0.49, with these AUCs."""
    one, noise = rng.normal(size=len(y)), rng.normal(size=(2, len(y)))
    a, b = (0.7 * one + np.sqrt(0.51) * noise[i] + apart(auc) * y for i, auc in enumerate((first, second)))
    return a, b


def aucs(rng) -> Iterator[Interval]:
    """AUCs of a table's rows, of subgroups, over all patients, of published rows, and of the ideal observer."""
    for auc in (0.74, 0.85, 0.95, 0.99):
        y, z = study(rng, auc)
        yield f"AUC {auc}", auc, metrics.auc_ci(y, z)
        if auc < 0.99:
            yield f"  plain DeLong, for comparison, {auc}", auc, metrics.delong_ci(y, z)
    for sizes in ((5, 5), (5, 30), (15, 15)):
        for auc in (0.8, 0.95):
            yield f"AUC {auc} of a subgroup, {sizes[0]} + {sizes[1]}", auc, metrics.auc_ci(*study(rng, auc, *sizes))
    y, z = study(rng, 0.85)
    failed = rng.random(len(y)) < 0.1
    p = np.where(failed, np.nan, special.expit(z))
    yield "AUC over all, 10 % failed, as wrong", AS_WRONG, metrics.auc_ci(y, metrics.failures_as_wrong(y, p))
    yield "AUC over all, 10 % failed, at neutral", AT_NEUTRAL, metrics.auc_ci(y, metrics.failures_at_neutral(p))
    for auc in (0.74, 0.9):
        found = round(metrics.roc_auc(*study(rng, auc)), 4)
        yield f"AUC {auc} of a published row, Hanley and McNeil", auc, hanley_mcneil(found, POSITIVES, NEGATIVES)
    early, late = (rng.choice(latents, size) for latents, size in zip(LATENTS, (POSITIVES, NEGATIVES), strict=True))
    y, latent = np.repeat([1, 0], (POSITIVES, NEGATIVES)), np.append(early, late)
    ends = chance_interval("tss<4.5h", 0.17, POSITIVES + NEGATIVES, POSITIVES)
    assert ends
    yield "where the ideal observer's AUC lies, 82 patients", metrics.roc_auc(y, -latent), ends


def latents_of(rng, n: int = 40_000) -> list[np.ndarray]:
    """The ideal observer's view of many patients of TSS-Phantom, scanned before 4.5 h and later."""
    minutes = np.array([onset_law.draw_onset(rng) for _ in range(n)])
    latent = onset_law.mean_latent(minutes, 0.17) + 0.17 * rng.normal(size=n)
    return [latent[minutes < 270], latent[minutes >= 270]]


LATENTS = latents_of(np.random.default_rng(1))
# Pairs of patients: neither failed 0.81. As wrong: a failed positive ranks below all, but ties with none, since a
# failed negative ranks above all. At neutral: the median, which half of the answers exceed; two failures tie.
AS_WRONG = 0.81 * 0.85
_MIDDLE = apart(0.85) * POSITIVES / (POSITIVES + NEGATIVES)
AT_NEUTRAL = (
    0.81 * 0.85 + 0.09 * special.ndtr(_MIDDLE) + 0.09 * special.ndtr(apart(0.85) - _MIDDLE) + 0.01 * 0.5
)  # fmt: skip


def hemispheres(rng) -> Iterator[Interval]:
    """Two hemispheres a patient, one with the stroke, which share half of the spread."""
    y, patients = np.tile([1, 0], 41), np.repeat(np.arange(41), 2)
    level = np.sqrt(0.5) * rng.normal(size=41)[patients]
    for auc in (0.85, 0.95, 0.985):
        z = level + np.sqrt(0.5) * rng.normal(size=82) + apart(auc) * y
        yield (
            f"AUC {auc}, 41 patients' hemispheres",
            true_hemispheres(apart(auc)),
            metrics.auc_ci(y, z, patients=patients),
        )
    first, second = pair(rng, y, 0.85, 0.8)
    test = metrics.delong_test(y, level + np.sqrt(0.5) * first, level + np.sqrt(0.5) * second, patients)
    truth = np.subtract(*(true_hemispheres(apart(auc) * np.sqrt(0.5)) for auc in (0.85, 0.8)))
    yield "difference of two AUCs, 41 patients' hemispheres", float(truth), test.ci


def true_hemispheres(distance: float) -> float:
    """The AUC of different patients' hemispheres and, one pair in 41, of one patient's, who share half the spread."""
    return float((40 * special.ndtr(distance / np.sqrt(2)) + special.ndtr(distance)) / 41)


def differences(rng) -> Iterator[Interval]:
    """Paired differences of AUCs."""
    for sizes in ((POSITIVES, NEGATIVES), (15, 15)):
        y = study(rng, 0.5, *sizes)[0]
        for first, second in ((0.8, 0.7), (0.8, 0.8), (0.95, 0.9)):
            name = f"difference of AUCs, {first} - {second}, {sizes[0]} + {sizes[1]}"
            yield name, first - second, metrics.delong_test(y, *pair(rng, y, first, second)).ci


def shares(rng) -> Iterator[Interval]:
    """Sensitivity, specificity, accuracy, PPV and NPV; observed shares of the calibration curve; readers' shares."""
    for share, n in ((0.7, POSITIVES), (0.9, NEGATIVES), (0.75, POSITIVES + NEGATIVES), (0.55, POSITIVES)):
        yield f"share {share} of {n}, Wilson", share, metrics.wilson(int(rng.binomial(n, share)), n)
    cut = apart(0.85) / 2
    y = (rng.random(82) < 0.49).astype(int)
    called, kept = rng.normal(size=82) + 2 * cut * y >= cut, special.ndtr(cut)
    positive = 0.49 * kept / (0.49 * kept + 0.51 * (1 - kept))
    yield f"PPV {positive:.2f}, Wilson", positive, metrics.wilson(int(y[called].sum()), int(called.sum()))
    negative = 0.51 * kept / (0.51 * kept + 0.49 * (1 - kept))
    yield f"NPV {negative:.2f}, Wilson", negative, metrics.wilson(int((1 - y[~called]).sum()), int((~called).sum()))
    p = special.expit(rng.normal(0, 1.5, 82))
    for point in metrics.calibration_curve((rng.random(82) < p).astype(int), p):
        yield "calibration curve, a fifth of 82", point.predicted, point.observed_ci


def agreement(rng) -> Iterator[Interval]:
    """Kappas of readers."""
    state = rng.random(82) < 0.49
    calls = (rng.random((82, 3)) < READER[state.astype(int), 1][:, None]).astype(int)
    kappa = true_kappa()
    yield f"Fleiss' kappa {kappa:.2f}, 3 readers, 82 patients", kappa, metrics.fleiss_kappa_ci(calls)
    yield f"Cohen's kappa {kappa:.2f}, 2 readers, 82 patients", kappa, metrics.cohen_kappa_ci(calls[:, 0], calls[:, 1])


def true_kappa() -> float:
    """Kappa of two such readers in all patients there could be; it is Fleiss' too, since they are alike."""
    positive = 0.51 * READER[0, 1] + 0.49 * READER[1, 1]
    agree = 0.51 * (READER[0] ** 2).sum() + 0.49 * (READER[1] ** 2).sum()
    chance = positive**2 + (1 - positive) ** 2
    return float((agree - chance) / (1 - chance))


def probabilities(rng) -> Iterator[Interval]:
    """Brier scores: of probabilities that are right, and of those that are too sure."""
    true = rng.normal(0, 1.5, 82)
    y = (rng.random(82) < special.expit(true)).astype(int)
    for name, stretch in (("right", 1.0), ("twice too sure", 2.0)):
        expected = expected_brier(stretch * 1.5 * NODES)
        yield f"Brier score {expected:.3f}, {name}", expected, metrics.brier_ci(y, special.expit(stretch * true))


def expected_brier(z: np.ndarray) -> float:
    """Brier score of the logits z at NODES for all patients, whose true logit is 1.5 * NODES."""
    p, q = special.expit(1.5 * NODES), special.expit(z)
    return float(WEIGHTS @ (p * (1 - q) ** 2 + (1 - p) * q**2))


def bootstraps(rng, draws: int) -> Iterator[Interval]:
    """What has no formula: a reader's operating point, a share of the best AUC."""
    y, z = study(rng, 0.85)
    reading = (0.6 * (z - apart(0.85) * y) + 0.8 * rng.normal(size=len(y)) + 1.2 * y > 1.04).astype(int)
    specificity, sensitivity = special.ndtr(1.04), special.ndtr(1.2 - 1.04)
    model = special.ndtr(apart(0.85) - special.ndtri(specificity))
    yield (
        f"sensitivity at a reader's specificity, {model:.2f} - {sensitivity:.2f}",
        float(model - sensitivity),
        metrics.bootstrap_ci(lambda some: apart_from(y[some], z[some], reading[some]), np.arange(len(y)), rng, draws),
    )


def apart_from(y: np.ndarray, z: np.ndarray, reading: np.ndarray) -> float:
    model, reader = matched(y, z, reading)
    return model - reader


def slow_ones(rng) -> Iterator[Interval]:
    """What is computed by thousands of draws or fits."""
    y = study(rng, 0.5)[0]
    latent, z = pair(rng, y, 0.85, 0.8)
    yield "share of the ideal observer's AUC, 0.80 / 0.85", 0.8 / 0.85, share_of_best(y, -latent, [z])[1]
    for n, shift, slope in ((60, 1.5, False), (60, 1.5, True), (20, 1.5, False), (200, 0.5, False), (60, 0.0, False)):
        yield from gains(rng, n, shift, slope)


def maps(rng) -> Iterator[Interval]:
    """Grad-CAM on lesions, own and others': shares, and how far above chance; 20 patients and 60."""
    for n in (20, 60):
        yield from maps_of(rng, n)


def maps_of(rng, n: int) -> Iterator[Interval]:
    logit = sum(rng.normal(0, 0.5, size) for size in ((n, 1), (1, n), (n, n))) - 1.5 + 1.5 * np.eye(n)
    inside = special.expit(logit)
    found = summarise(np.stack([inside, inside > 0.5, inside > 0.6], axis=2), 0)
    spread = np.sqrt(0.75)
    own, other = (float(WEIGHTS @ special.expit(mean + spread * NODES)) for mean in (0.0, -1.5))
    over = float(special.ndtr(0)), float(special.ndtr(-1.5 / spread))
    assert found.share_in_lesion.ci and found.share_in_lesion.above_chance and found.overlap_over_half.above_chance
    assert found.share_in_lesion.above_chance.ci and found.overlap_over_half.above_chance.ci
    assert found.overlap_over_half.ci
    yield f"share of the map in the lesion, {n} patients", own, found.share_in_lesion.ci
    yield f"  the same above chance, {n}", own - other, found.share_in_lesion.above_chance.ci
    yield f"maps over half in the lesion, {n}", over[0], found.overlap_over_half.ci
    yield f"  the same above chance, {n} ", over[0] - over[1], found.overlap_over_half.above_chance.ci


def gains(rng, n: int, shift: float, slope: bool) -> Iterator[Interval]:
    """What the line fitted to these patients gains for all others of a site that shifts the logits, and stretches them
    where a slope is fitted."""
    true, stretch = rng.normal(0, 1.5, n), 1.4 if slope else 1.0
    y, z = (rng.random(n) < special.expit(true)).astype(int), shift + stretch * true
    try:
        ends = gain_of_line(y, z, slope).ci
    except InputError:
        return
    everybody = shift + stretch * 1.5 * NODES
    gain = expected_brier(everybody) - expected_brier(fit_line(y, z, slope).of(everybody))
    words = "intercept and slope" if slope else "intercept"
    yield f"recalibration's gain, {words}, {n} patients, shift {shift}", gain, ends


def family_error(rng, studies: int, size: int, auc: float, equal: int) -> int:
    """Print how often Holm's correction calls a difference among equally good models one; return 1 if too often.

    Of four models `equal` are equally good, the others better, each by another distance.
    """
    y, found = np.array([1] * (size // 2) + [0] * (size - size // 2)), []
    distances = [apart(auc)] * equal + [apart(auc) + 1.0 + i for i in range(4 - equal)]
    for _ in range(studies):
        shared = rng.normal(size=size)
        models = [0.7 * shared + np.sqrt(0.51) * rng.normal(size=size) + distance * y for distance in distances]
        pairs = [(i, j) for i in range(4) for j in range(i)]
        corrected = metrics.holm([metrics.delong_test(y, models[i], models[j]).pvalue for i, j in pairs])
        found.append(any(p <= 0.05 for p, (i, j) in zip(corrected, pairs, strict=True) if i < equal and j < equal))
    family, limit = float(np.mean(found)), 0.05 + 2 * np.sqrt(0.05 * 0.95 / studies)
    name = f"Holm: a false difference, {equal} of 4 models equal, AUC {auc}, {size}"
    print(
        f"{name:66s} {100 * family:5.1f} %, limit {100 * limit:.1f}{'  OUTSIDE' if family > limit else ''}", flush=True
    )
    return int(family > limit)


def promises(rng, studies: int, auc: float, n: int) -> tuple[float, float]:
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
