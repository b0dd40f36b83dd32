"""Lee 2020: texture of the infarct, a few features chosen on training patients, and a classical classifier.

In:  Maps of a patient and the infarct; then features x (N, 271) and classes y (N,) of training and validation patients.
Out: 271 named features a patient; a Model that gives probabilities (N,).
Paper: 3, Table 2 and discussion (Lee et al. 2020, Stroke 51:860, applied to the paper's own cohort).
See: tests/baselines/test_lee2020.py

For ADC, DWI and FLAIR, in the image and in its ratio to the mirrored voxel: 44 features of tss.baselines.texture and
the mean over white matter's; and the infarct's size: 3 x 2 x 45 + 1 (Lee's 273 count the size three times). Written
from the method's description and a reading of its published code. What differs:
- infarct and white matter are those of tss.baselines.infarct_roi, texture is that of tss.baselines.texture;
- the settings of a classifier (C of Lee's grid, patients in a leaf) and the threshold are chosen on validation
  patients; Lee fits both to the training patients' own predictions;
- the hinge loss is squared and logistic regression has a penalty (tss.baselines.classifiers), so both have a C;
- patients without an infarct are not rows of zeros, and small infarcts are not excluded
  (tss.evaluation.older_methods counts them);
- FLAIR ratios below 0.45 are kept, where Lee's code sets them to 0.25.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

from tss.baselines import classifiers
from tss.baselines.infarct_roi import LEAST_SIGNAL, Maps, widened
from tss.baselines.texture import quantised, texture
from tss.metrics.roc import roc_auc

WIDENED_MM = 3.0  # our choice: Lee dilates the infarct by 2 voxels of about 1.5 mm
RATIO_RANGE = (0.25, 4.0)  # Lee 2020
IMAGE_RANGE = (0.01, 0.99)  # Lee 2020: quantiles in the region
ALPHA = 0.2  # Lee 2020: of Welch's test, divided among all features
FEWEST_FEATURES = 5  # Lee 2020
STRENGTHS = tuple(2.0**power for power in range(-5, 16, 2))  # Lee 2020: C of the SVM; here of both linear ones
LEAVES = (10, 5, 1)  # our choice: fewest patients in a leaf; Lee: 1
CLASSIFIERS = ("logistic regression", "linear SVM", "random forest")


def infarct_features(maps: Maps, infarct: np.ndarray) -> dict[str, float]:
    """Return the 271 features of one patient, by name, all finite.

    infarct: (X, Y, Z) bool, not empty.
    """
    region = widened(infarct, WIDENED_MM, maps.voxel_mm) & maps.brain
    box = tuple(slice(max(0, where.min() - 2), where.max() + 3) for where in np.nonzero(region))
    white = maps.white & ~region
    found = {"size ml": float(np.count_nonzero(region) * np.prod(maps.voxel_mm) / 1000)}
    for name in maps.images:
        inside = maps.images[name][region]
        ranges = {"image": np.quantile(inside, IMAGE_RANGE), "ratio": RATIO_RANGE}
        for kind, map_ in (("image", maps.images[name]), ("ratio", maps.ratios[name])):
            if kind == "ratio":
                map_ = np.clip(map_, *RATIO_RANGE)
            part = map_[box]
            numbers = texture(part, quantised(part, *ranges[kind]), region[box], maps.voxel_mm)
            healthy = float(map_[white].mean()) if white.any() else 1.0
            numbers["over white matter"] = numbers["mean"] / max(healthy, LEAST_SIGNAL)
            found |= {f"{name} {kind} {feature}": value for feature, value in numbers.items()}
    return found


class Model(NamedTuple):
    """A fitted classifier with the features that it uses."""

    columns: np.ndarray  # which of the features
    mean: np.ndarray  # of these features in the training patients
    spread: np.ndarray
    predict: Callable[[np.ndarray], np.ndarray]  # z-scored features (N, columns) -> (N,) in 0..1
    setting: float  # C, or the fewest patients in a leaf
    val_auc: float

    def probability(self, x: np.ndarray) -> np.ndarray:
        return self.predict((x[:, self.columns] - self.mean) / self.spread)


def choose_features(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the columns of x (N, F) that tell the classes apart: Welch's test, ALPHA / F; the best five at least."""
    y = np.asarray(y) == 1
    groups = [number for group in (x[y], x[~y]) for number in (group.mean(0), group.std(0, ddof=1), len(group))]
    with np.errstate(all="ignore"):  # features that are constant have no t
        p = stats.ttest_ind_from_stats(*groups, equal_var=False).pvalue
    p = np.where(np.isfinite(p) & (x.std(0) > 0), p, 1.0)
    passed = np.flatnonzero(p < ALPHA / x.shape[1])
    return passed if len(passed) >= FEWEST_FEATURES else np.argsort(p, kind="stable")[:FEWEST_FEATURES]


def fit_lee(
    train: tuple[np.ndarray, np.ndarray], val: tuple[np.ndarray, np.ndarray], classifier: str, seed: int = 0
) -> Model:
    """Fit one of CLASSIFIERS to training patients, with the setting that has the best AUC on validation patients.

    Of equal ones the simplest is taken. The same seed gives the same model.

    train, val: x (N, F) and y (N,), both classes in each.
    """
    x, y = train
    columns = choose_features(x, y)
    mean, spread = x[:, columns].mean(0), x[:, columns].std(0)
    spread = np.where(spread > 0, spread, 1.0)
    z = (x[:, columns] - mean) / spread
    settings: tuple[float, ...] = LEAVES if classifier == "random forest" else STRENGTHS
    models = [Model(columns, mean, spread, _predictor(z, y, classifier, c, seed), c, 0.0) for c in settings]
    models = [model._replace(val_auc=roc_auc(val[1], model.probability(val[0]))) for model in models]
    return max(models, key=lambda model: model.val_auc)


def _predictor(
    z: np.ndarray, y: np.ndarray, classifier: str, setting: float, seed: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Fit one of CLASSIFIERS to z-scored features (N, columns) and return its probability function."""
    if classifier == "random forest":
        return classifiers.fit_forest(z, y, np.random.default_rng(seed), classifiers.TREES, int(setting)).probability
    if classifier == "logistic regression":
        return classifiers.fit_linear(z, y, "logistic", setting).probability
    line = classifiers.fit_linear(z, y, "hinge", setting)
    curve = classifiers.fit_curve(line.margin(z), y)  # LIBSVM's probabilities too come from a curve through the margins
    return lambda x: curve.probability(line.margin(x))
