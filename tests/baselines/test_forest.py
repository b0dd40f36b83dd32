"""Splits by hand; a forest learns what no single line can."""

import numpy as np

from tss.baselines import forest
from tss.metrics.roc import roc_auc


def test_best_split_by_hand():
    x = np.array([[0.0, 1.0], [1.0, 4.0], [2.0, 2.0], [3.0, 3.0]])
    assert forest.best_split(x, np.array([0, 0, 1, 1.0]), 1) == (0, 1.5)
    assert forest.best_split(x, np.array([0, 1, 0, 0.0]), 1) == (1, 3.5)
    # One patient alone is too small a leaf: two and two, where feature 1 leaves a pure half and feature 0 does not.
    assert forest.best_split(x, np.array([0, 1, 0, 0.0]), 2) == (0, 1.5)
    assert forest.best_split(np.ones((4, 2)), np.array([0, 1, 0, 1.0]), 1) is None


def test_a_leaf_never_has_fewer_patients_than_asked_for():
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 3)), rng.integers(0, 2, 40)
    share = forest.probability(forest.fit(x, y, rng, 1, 40), x)
    assert len(set(share)) == 1  # no split at all: everybody is in one leaf


def test_shares_are_averaged_over_trees():
    leaf = forest.Branch(None, 0, None, None, 0.0)
    tree = forest.Branch(0, 1.5, leaf, leaf._replace(share=1.0), 0.5)
    assert forest.probability([tree, leaf], np.array([[1.0], [1.5], [2.0]])).tolist() == [0, 0.5, 0.5]


def test_a_forest_learns_an_exclusive_or_and_is_the_same_for_the_same_seed():
    rng = np.random.default_rng(1)
    x, new = rng.uniform(-1, 1, (200, 2)), rng.uniform(-1, 1, (200, 2))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    grown = [forest.probability(forest.fit(x, y, np.random.default_rng(seed), 40, 1), new) for seed in (3, 3, 4)]
    assert roc_auc(new[:, 0] * new[:, 1] > 0, grown[0]) > 0.95
    assert (grown[0] == grown[1]).all() and (grown[0] != grown[2]).any()
    assert grown[0].min() >= 0 and grown[0].max() <= 1


def test_equal_values_are_never_parted():
    x = np.array([[1.0], [1.0], [np.nextafter(1.0, 2)]])
    feature, threshold = forest.best_split(x, np.array([0, 0, 1.0]), 1)
    assert (x[:, feature] < threshold).tolist() == [True, True, False]
