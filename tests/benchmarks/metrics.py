"""The suite's statistics beside those of others: largest difference on random inputs with ties, and times.

    python tests/benchmarks/metrics.py                          some seconds
    python tests/benchmarks/metrics.py --delong compare_auc_delong_xu.py --asah aSAH.RData

Needs an environment of its own with scikit-learn, statsmodels, irrCAC (Gwet's interval of Fleiss' kappa), dcurves and,
for --asah, rdata. Two things to download: the published DeLong code (github.com/yandexdataschool/roc_comparison) and
the data of pROC (github.com/xrobin/pROC, data/aSAH.RData), whose own tests publish what R gets for them.
Exit code 1 if any difference is above 1e-9.
"""

import argparse
import importlib.util
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tss.metrics import agreement, calibration, roc

LIMIT = 1e-9
TURNS = 7  # of ours and of others, where times are compared
Z = 1.959963984540054  # half a 95 % interval in standard errors
# pROC, tests/testthat/test-roc.test.R and helper-roc-expected.R: z, p and the ends of the difference's interval.
PROC = {
    ("wfns", "s100b"): (2.20898359144091, 0.0271757822291882, 0.0104061769564846, 0.174214419249478),
    ("ndka", "s100b"): (-1.39077002573558, 0.164295175223054, -0.2876917446341914, 0.0488706064228094),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=300, help="random inputs for each comparison")
    parser.add_argument("--delong", metavar="FILE", help="the published code")
    parser.add_argument("--asah", metavar="FILE", help="the data of pROC")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{'function':32s} {'beside':44s} {'inputs':>6s}  largest difference")
    worst = 0.0
    for name, peer, differences in comparisons(args):
        worst = max(worst, *differences)
        print(f"{name:32s} {peer:44s} {len(differences):6d}  {max(differences):.1e}", flush=True)
    time_beside_others(args)
    print(f"largest of all {worst:.1e}: {'within' if worst <= LIMIT else 'ABOVE'} {LIMIT:.0e}")
    return int(worst > LIMIT)


def comparisons(args: argparse.Namespace) -> Iterator[tuple[str, str, list[float]]]:
    """Yield our function, the peer, and the difference on each input."""
    from dcurves import dca
    from irrCAC.raw import CAC
    from pandas import DataFrame
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import brier_score_loss, cohen_kappa_score, roc_auc_score
    from statsmodels.stats import contingency_tables, inter_rater, multitest, proportion

    scored = [scores(seed) for seed in range(args.cases)]
    rated = [ratings(seed) for seed in range(args.cases)]
    yield "roc_auc", "sklearn roc_auc_score", [abs(roc.roc_auc(y, p) - roc_auc_score(y, p)) for y, p, _ in scored]
    if args.delong:
        published = load(args.delong)
        yield (
            "delong_ci",
            "published code",
            [ends(roc.delong_ci(y, p), *published_ci(published, y, p)) for y, p, _ in scored],
        )
        yield (
            "delong_test, p-value",
            "published code",
            [
                abs(roc.delong_test(y, p, q).pvalue - 10 ** float(published.delong_roc_test(y, p, q)[0, 0]))
                for y, p, q in scored
            ],
        )
    if args.asah:
        yield "delong_test, z, p and interval", "R's pROC on its aSAH, by its own tests", asah(args.asah)
    yield (
        "mcnemar",
        "statsmodels mcnemar(exact=True)",
        [
            abs(
                agreement.mcnemar(y, a, b).pvalue
                - contingency_tables.mcnemar(crossed(a == y, b == y), exact=True).pvalue
            )
            for y, a, b in ((y, (p > 0.5).astype(int), (q > 0.5).astype(int)) for y, p, q in scored)
        ],
    )
    yield (
        "holm",
        "statsmodels multipletests('holm')",
        [
            float(np.abs(roc.holm(p[:9] ** 4) - multitest.multipletests(p[:9] ** 4, method="holm")[1]).max())
            for _, p, _ in scored
        ],
    )
    yield (
        "wilson",
        "statsmodels proportion_confint('wilson')",
        [
            ends(roc.wilson(y.sum(), len(y)), *proportion.proportion_confint(y.sum(), len(y), method="wilson"))
            for y, _, _ in scored
        ],
    )
    yield (
        "fleiss_kappa",
        "statsmodels fleiss_kappa",
        [abs(agreement.fleiss_kappa(r) - inter_rater.fleiss_kappa(inter_rater.aggregate_raters(r)[0])) for r in rated],
    )
    yield (
        "fleiss_kappa_ci",
        "irrCAC fleiss, its standard error",
        [
            ends(
                agreement.fleiss_kappa_ci(r),
                *around(agreement.fleiss_kappa(r), CAC(DataFrame(r), digits=16).fleiss()["est"]["se"]),
            )
            for r in rated
        ],
    )
    yield (
        "cohen_kappa",
        "sklearn cohen_kappa_score",
        [abs(agreement.cohen_kappa(r[:, 0], r[:, 1]) - cohen_kappa_score(r[:, 0], r[:, 1])) for r in rated],
    )
    yield (
        "cohen_kappa_ci",
        "statsmodels cohens_kappa",
        [
            ends(agreement.cohen_kappa_ci(r[:, 0], r[:, 1]), *(clip(end) for end in cohen_ends(inter_rater, r)))
            for r in rated
        ],
    )
    yield (
        "brier",
        "sklearn brier_score_loss",
        [abs(calibration.brier(y, p) - brier_score_loss(y, p)) for y, p, _ in scored],
    )
    yield (
        "calibration_curve",
        "sklearn calibration_curve('quantile')",
        [
            float(
                np.abs(
                    np.array(
                        [
                            [point.observed for point in calibration.calibration_curve(y, p)],
                            [point.predicted for point in calibration.calibration_curve(y, p)],
                        ]
                    )
                    - np.array(calibration_curve(y, p, n_bins=calibration.GROUPS, strategy="quantile"))
                ).max()
            )
            for y, p, _ in scored
        ],
    )
    yield (
        "decision_curve",
        "dcurves dca",
        [
            float(
                np.abs(
                    np.array([[point.net_benefit, point.treat_all] for point in calibration.decision_curve(y, p)])
                    - dcurves_points(dca, DataFrame({"y": y, "p": p}))
                ).max()
            )
            for y, p, _ in scored[:20]
        ],
    )


def scores(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True classes and two scores in 0..1, with few to many ties, both classes twice at least."""
    rng = np.random.default_rng(seed)
    n, steps = rng.integers(12, 200), rng.choice([5, 20, 1000])
    y = rng.permutation(np.append([0, 0, 1, 1], rng.integers(0, 2, n)))
    p, q = (np.clip(np.round((0.3 * y + rng.uniform(0, 0.7, len(y))) * steps) / steps, 0, 1) for _ in range(2))
    return y, p, q


def ratings(seed: int) -> np.ndarray:
    """(subjects, raters) of 2 to 4 labels by 2 to 5 raters who agree more than by chance, each label given once."""
    rng = np.random.default_rng(seed)
    labels, raters = rng.integers(2, 5), rng.integers(2, 6)
    truth = np.append(np.arange(labels), rng.integers(0, labels, rng.integers(10, 120)))
    given = np.where(
        rng.uniform(size=(len(truth), raters)) < 0.6, truth[:, None], rng.integers(0, labels, (len(truth), raters))
    )
    given[:labels] = truth[:labels, None]
    return given


def crossed(right_a: np.ndarray, right_b: np.ndarray) -> list[list[int]]:
    return [
        [int((right_a & right_b).sum()), int((right_a & ~right_b).sum())],
        [int((~right_a & right_b).sum()), int((~right_a & ~right_b).sum())],
    ]


def around(value: float, error: float) -> tuple[float, float]:
    return clip(value - Z * error), clip(value + Z * error)


def clip(value: float) -> float:
    return min(1.0, max(-1.0, value))


def ends(ours: tuple[float, float], low: float, high: float) -> float:
    return max(abs(ours[0] - low), abs(ours[1] - high))


def cohen_ends(inter_rater, given: np.ndarray) -> tuple[float, float]:
    labels = given.max() + 1
    table = np.zeros((labels, labels))
    np.add.at(table, (given[:, 0], given[:, 1]), 1)
    result = inter_rater.cohens_kappa(table)
    return result.kappa_low, result.kappa_upp


def dcurves_points(dca, table) -> np.ndarray:
    """Net benefit of "p" and of treating everybody at our thresholds, (thresholds, 2)."""
    curve = dca(data=table, outcome="y", modelnames=["p"], thresholds=np.array(calibration.THRESHOLDS))
    return np.stack(
        [curve[curve["model"] == model].sort_values("threshold")["net_benefit"].to_numpy() for model in ("p", "all")], 1
    )


def load(path: str):
    spec = importlib.util.spec_from_file_location("published_delong", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def published_ci(published, y: np.ndarray, p: np.ndarray) -> tuple[float, float]:
    auc, variance = published.delong_roc_variance(y, p)
    return max(0.0, auc - Z * float(variance) ** 0.5), min(1.0, auc + Z * float(variance) ** 0.5)


def asah(path: str) -> list[float]:
    import rdata

    table = rdata.read_rda(path)["aSAH"]
    y = (table["outcome"] == "Poor").to_numpy().astype(int)
    differences = []
    for (first, second), (z, pvalue, low, high) in PROC.items():
        ours = roc.delong_test(y, *(table[name].astype(float).to_numpy() for name in (first, second)))
        differences += [abs(ours.z - z), abs(ours.pvalue - pvalue), ends(ours.ci, low, high)]
    return differences


def time_beside_others(args: argparse.Namespace) -> None:
    """Print how many times as long others take, in turn in one process: the median of the turns and their range."""
    from sklearn.metrics import brier_score_loss, roc_auc_score

    rng = np.random.default_rng(0)
    pairs = [
        ("roc_auc", roc.roc_auc, "sklearn", roc_auc_score),
        ("brier", calibration.brier, "sklearn", brier_score_loss),
    ]
    if args.delong:
        published = load(args.delong)
        pairs.append(
            (
                "delong_test",
                lambda y, p: roc.delong_test(y, p, 1 - p),
                "published code",
                lambda y, p: published.delong_roc_test(y, p, 1 - p),
            )
        )
    for n in (82, 10_000, 1_000_000):  # 82: test patients in the paper
        y, p = rng.integers(0, 2, n), rng.uniform(size=n)
        for name, ours, peer, theirs in pairs:
            turns = [(seconds(ours, y, p), seconds(theirs, y, p)) for _ in range(TURNS)]
            ratios = sorted(b / a for a, b in turns)
            print(
                f"{name} on {n:9,d} cases: {1000 * min(a for a, _ in turns):.3f} ms; {peer} "
                f"{ratios[TURNS // 2]:.2f} x as long [{ratios[0]:.2f}-{ratios[-1]:.2f}]"
            )


def seconds(function, y: np.ndarray, p: np.ndarray) -> float:
    """Seconds of process time, a call; small inputs are called often enough to be measured."""
    calls = max(1, 20_000 // len(y))
    started = time.process_time()
    for _ in range(calls):
        function(y, p)
    return (time.process_time() - started) / calls


if __name__ == "__main__":
    sys.exit(main())
