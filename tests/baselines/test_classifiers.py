"""Linear ones at two patients, where the minimum is known; splits by hand; a forest learns what no single line can."""

import numpy as np
import pytest

from tss.baselines import classifiers
from tss.metrics.roc import roc_auc

X, Y = np.array([[-1.0], [1.0]]), np.array([0, 1])


@pytest.mark.parametrize("strength", [0.1, 1, 50])
def test_squared_hinge_by_hand(strength):
    line = classifiers.fit_linear(X, Y, "hinge", strength)  # w^2/2 + 2 C (1 - w)^2 is least at w = 4 C / (1 + 4 C)
    assert line.weights == pytest.approx([4 * strength / (1 + 4 * strength)], abs=1e-6)
    assert line.bias == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("strength", [0.1, 1, 50])
def test_logistic_regression_by_hand(strength):
    (weight,), bias = classifiers.fit_linear(X, Y, "logistic", strength)
    assert weight == pytest.approx(2 * strength / (1 + np.exp(weight)), rel=1e-5)  # the slope is zero there
    assert bias == pytest.approx(0, abs=1e-6)
    assert classifiers.fit_linear(X, Y, "logistic", strength).probability(X) == pytest.approx(
        [1 / (1 + np.exp(weight)), 1 / (1 + np.exp(-weight))]
    )


def test_bias_alone_gives_the_share_of_positives():
    line = classifiers.fit_linear(np.zeros((4, 1)), np.array([1, 0, 0, 0]), "logistic", 1.0)
    assert line.probability(np.zeros((1, 1))) == pytest.approx([0.25], abs=1e-5)


def test_a_curve_keeps_the_order_even_where_the_data_say_otherwise():
    scores = np.array([5.0, 7.0, 9.0, 11.0])
    rising = classifiers.fit_curve(scores, np.array([0, 0, 1, 1])).probability(scores)
    assert (np.diff(rising) > 0).all() and rising[1] < 0.5 < rising[2]
    assert rising + rising[::-1] == pytest.approx(1, abs=1e-5)  # symmetric data, symmetric curve
    falling = classifiers.fit_curve(scores, np.array([1, 1, 0, 0])).probability(scores)
    assert (np.diff(falling) > 0).all() and falling == pytest.approx(0.5, abs=0.01)
    assert classifiers.fit_curve(np.full(4, 3.0), np.array([1, 0, 0, 0])).probability([3.0]) == pytest.approx(
        [0.25], abs=1e-5
    )


def test_best_split_by_hand():
    x = np.array([[0.0, 1.0], [1.0, 4.0], [2.0, 2.0], [3.0, 3.0]])
    assert classifiers.best_split(x, np.array([0, 0, 1, 1.0]), 1) == (0, 1.5)
    assert classifiers.best_split(x, np.array([0, 1, 0, 0.0]), 1) == (1, 3.5)
    # One patient alone is too small a leaf: two and two, where feature 1 leaves a pure half and feature 0 does not.
    assert classifiers.best_split(x, np.array([0, 1, 0, 0.0]), 2) == (0, 1.5)
    assert classifiers.best_split(np.ones((4, 2)), np.array([0, 1, 0, 1.0]), 1) is None


def test_a_leaf_never_has_fewer_patients_than_asked_for():
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 3)), rng.integers(0, 2, 40)
    share = classifiers.fit_forest(x, y, rng, 1, 40).probability(x)
    assert len(set(share)) == 1  # no split at all: everybody is in one leaf


def test_shares_are_averaged_over_trees():
    leaf = classifiers.Branch(None, 0, None, None, 0.0)
    tree = classifiers.Branch(0, 1.5, leaf, leaf._replace(share=1.0), 0.5)
    assert classifiers.Forest([tree, leaf]).probability(np.array([[1.0], [1.5], [2.0]])).tolist() == [0, 0.5, 0.5]


class Draws:
    """In place of a random generator: says what was drawn, and draws the same each time."""

    def __init__(self):
        self.asked = []

    def integers(self, high, size):
        self.asked.append(("patients", high, size))
        return np.array([0, 0, 1, 2, 3, 3, 3, 5])

    def permutation(self, count):
        self.asked.append(("features", count))
        return np.arange(count)[::-1]


def test_a_tree_grows_on_a_resample_and_a_branch_on_a_few_features():
    """The classes are told apart by feature 0, and patient 7 alone is unlike: neither is drawn."""
    y = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    x = np.zeros((8, 9))
    x[:, 0], x[:, 8], x[:, 7] = y, [0, 1, 2, 3, 4, 5, 6, 7], 0
    rng = Draws()
    forest = classifiers.fit_forest(x, y, rng, 1, 1)
    assert rng.asked[:2] == [("patients", 8, 8), ("features", 9)]
    (tree,) = forest.trees
    assert (tree.feature, tree.threshold, tree.share) == (8, 2.5, 0.5)  # of 8, 7 and 6, the square root of nine
    assert forest.probability(x).tolist() == [0, 0, 0, 1, 1, 1, 1, 1]


def test_a_split_leaves_each_side_its_patients():
    x, y = np.arange(6.0)[:, None], np.array([1, 0, 0, 0, 0, 0.0])
    assert [classifiers.best_split(x, y, leaf) for leaf in (1, 2, 3, 4)] == [(0, 0.5), (0, 1.5), (0, 2.5), None]


def test_small_weights_are_wanted():
    """|w|^2 / 2 beside the losses: two useful features that are equal share the weight."""
    line = classifiers.fit_linear(np.array([[-1.0, -1.0], [1.0, 1.0]]), Y, "hinge", 1.0)
    assert line.weights == pytest.approx([4 / 9, 4 / 9], abs=1e-5)  # w^2 + 2 (1 - 2 w)^2 is least there


def test_a_forest_learns_an_exclusive_or_and_is_the_same_for_the_same_seed():
    rng = np.random.default_rng(1)
    x, new = rng.uniform(-1, 1, (200, 2)), rng.uniform(-1, 1, (200, 2))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    grown = [classifiers.fit_forest(x, y, np.random.default_rng(seed), 40, 1).probability(new) for seed in (3, 3, 4)]
    assert roc_auc(new[:, 0] * new[:, 1] > 0, grown[0]) > 0.95
    assert (grown[0] == grown[1]).all() and (grown[0] != grown[2]).any()
    assert grown[0].min() >= 0 and grown[0].max() <= 1


def test_equal_values_are_never_parted():
    x = np.array([[1.0], [1.0], [np.nextafter(1.0, 2)]])
    feature, threshold = classifiers.best_split(x, np.array([0, 0, 1.0]), 1)
    assert (x[:, feature] < threshold).tolist() == [True, True, False]
