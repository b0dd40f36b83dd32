"""Features by name, their choice on training patients, the setting on validation patients."""

import numpy as np
import pytest
from scipy import stats
from stroke import SHAPE, VOXEL_MM, made_up_stroke

from tss.baselines import classifiers, lee2020
from tss.baselines.infarct_roi import make_maps, widened
from tss.metrics.roc import roc_auc

INFARCT = np.zeros(SHAPE, bool)
INFARCT[4:8, 8:14, 2:4] = True


def features_of(flair_ratio=1.2, seed=0):
    volumes, infarct = made_up_stroke(INFARCT, flair_ratio, seed)
    return lee2020.infarct_features(make_maps(*volumes, VOXEL_MM), infarct)


def test_features_are_named_and_say_what_they_are_called():
    found = features_of(1.5)
    assert len(found) == 271 and np.isfinite(list(found.values())).all()
    # 3 mm are one step of 4 mm in the slice: a 4 x 6 block becomes 4 x 8 and 2 x 6 more, 44 voxels in 2 slices.
    assert found["size ml"] == pytest.approx(2 * 44 * 0.128)
    assert found["flair ratio mean"] == pytest.approx((48 * 1.5 + 40 * 1) / 88, abs=0.02)
    assert found["flair image over white matter"] == pytest.approx((48 * 1.5 + 40) / 88 / 0.95, abs=0.03)
    assert found["adc ratio mean"] < 0.9 < found["dwi ratio mean"]
    assert features_of(1.0)["flair ratio mean"] == pytest.approx(1, abs=0.02)


def test_white_matter_that_an_infarct_is_compared_with_lies_outside_it():
    """FLAIR is 9 in the widened infarct and 1 elsewhere: the infarct's margin, white matter too, is not counted."""
    volumes, infarct = made_up_stroke(INFARCT)
    maps = make_maps(*volumes, VOXEL_MM)
    region = widened(infarct, 3.0, VOXEL_MM) & maps.brain
    assert (maps.white & region).any()
    maps.images["flair"] = np.where(region, 9.0, 1.0)
    found = lee2020.infarct_features(maps, infarct)
    assert found["flair image over white matter"] == pytest.approx(9.0, abs=1e-9)


def made_up_patients(rng, n, useful=3, noise=1.0):
    """x (n, 40) of which the first `useful` columns tell the classes apart; y (n,)."""
    y = np.arange(n) % 2
    x = rng.normal(size=(n, 40))
    x[:, :useful] = (y - 0.5)[:, None] * 3 + noise * x[:, :useful]
    return 100 + 7 * x, y


def test_features_are_chosen_by_what_tells_training_patients_apart():
    x, y = made_up_patients(np.random.default_rng(0), 60, useful=7)
    assert lee2020.choose_features(x, y).tolist() == [0, 1, 2, 3, 4, 5, 6]
    x, y = made_up_patients(np.random.default_rng(0), 60, useful=2)
    x[:, 39] = 5.0  # a constant is no feature
    five = lee2020.choose_features(x, y)
    assert len(five) == 5 and {0, 1} == set(five[:2]) and 39 not in five


@pytest.mark.parametrize("classifier", lee2020.CLASSIFIERS)
def test_a_classifier_learns_and_is_the_same_for_the_same_seed(classifier, monkeypatch):
    monkeypatch.setattr(classifiers, "TREES", 50)
    rng = np.random.default_rng(1)
    train, val, (x, y) = (made_up_patients(rng, n) for n in (40, 20, 40))
    models = [lee2020.fit_lee(train, val, classifier, seed=5) for _ in range(2)]
    p = [model.probability(x) for model in models]
    assert roc_auc(y, p[0]) > 0.95 and (p[0] == p[1]).all()
    assert p[0].min() >= 0 and p[0].max() <= 1
    assert models[0].val_auc == roc_auc(val[1], models[0].probability(val[0]))


def test_the_setting_is_the_best_on_validation_and_of_equal_ones_the_simplest(monkeypatch):
    train = made_up_patients(np.random.default_rng(2), 20)
    fitted = {0.5: np.array([0.9, 0.1]), 8.0: np.array([0.2, 0.7]), 32.0: np.array([0.1, 0.7])}
    monkeypatch.setattr(lee2020, "STRENGTHS", tuple(fitted))
    monkeypatch.setattr(lee2020, "_predictor", lambda z, y, classifier, setting, seed: lambda x: fitted[setting])
    model = lee2020.fit_lee(train, (train[0][:2], np.array([0, 1])), "linear SVM")
    assert (model.setting, model.val_auc) == (8.0, 1.0)


def test_lees_numbers_and_the_order_of_the_settings():
    """Of equal settings the first is taken, so the simplest stands first: small C, many patients in a leaf."""
    assert lee2020.STRENGTHS == (1 / 32, 1 / 8, 0.5, 2, 8, 32, 128, 512, 2048, 8192, 32768)
    assert lee2020.LEAVES == (10, 5, 1)
    assert (lee2020.ALPHA, lee2020.FEWEST_FEATURES) == (0.2, 5)
    assert (lee2020.RATIO_RANGE, lee2020.IMAGE_RANGE, lee2020.WIDENED_MM) == ((0.25, 4), (0.01, 0.99), 3)


def test_features_are_chosen_by_welchs_test_and_not_by_students():
    """Few patients of wide spread against many of narrow: Student's test would pass columns that Welch's does not."""
    rng = np.random.default_rng(4)
    y = np.repeat([1, 0], [6, 40])
    x = np.where(y[:, None] == 1, rng.normal(1.5, 3, (46, 30)), rng.normal(0, 0.5, (46, 30)))
    x[:, :6] += 5 * y[:, None]
    p = {equal: stats.ttest_ind(x[y == 1], x[y == 0], equal_var=equal).pvalue for equal in (False, True)}
    passed = {equal: np.flatnonzero(values < 0.2 / 30).tolist() for equal, values in p.items()}
    assert len(passed[True]) > len(passed[False]) >= 5
    assert lee2020.choose_features(x, y).tolist() == passed[False]


def test_a_feature_that_is_constant_in_training_does_no_harm():
    x, y = made_up_patients(np.random.default_rng(3), 30, useful=2)
    x[:, 2:] = 5.0
    model = lee2020.fit_lee((x, y), (x, y), "logistic regression")
    assert np.isfinite(model.probability(x)).all() and roc_auc(y, model.probability(x)) > 0.9
