"""The fitted start: logistic regression by hand and by its slope, and phase 4's two halves."""

import numpy as np
import pytest
import torch

from tss.models.evidence import EvidenceSliceClassifier
from tss.training.classifier_fit import fit_classifier, logistic_regression, read_all
from tss.training.dataset import Split

SHAPE, HEALTHY = (4, 32, 16), (1 / 4, 1 / 8, 1 / 3)


def made(attention=False):
    torch.manual_seed(0)
    return EvidenceSliceClassifier(4, SHAPE, HEALTHY, False, attention).eval()


def split_of(n=20):
    torch.manual_seed(1)
    labels = (torch.arange(n) % 3 == 0).float()
    x = torch.rand(n, 3, *SHAPE) * 0.2 + 0.1
    x[:, 2] += 0.1 * labels.view(-1, 1, 1, 1) * torch.rand(n, 1, 1, 1)  # FLAIR says something
    return Split([], x.half(), labels)


def test_logistic_regression_by_hand_where_one_feature_is_all():
    """y has the sign of x = -1 or 1 in 3 of 4: the optimum solves w = 8 (3/4 - sigmoid(w))."""
    x = np.array([[-1.0]] * 4 + [[1.0]] * 4)
    y = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    w, b = logistic_regression(x, y)
    assert w == pytest.approx(8 * (0.75 - 1 / (1 + np.exp(-w))), abs=1e-8) and b == pytest.approx(0, abs=1e-8)
    assert w == pytest.approx(0.68362, abs=1e-5)


def test_the_slope_is_zero_at_what_is_found():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    y = (x[:, 2] + rng.normal(size=40) > 0.3).astype(float)
    w = logistic_regression(x, y)
    p = 1 / (1 + np.exp(-(x @ w[:3] + w[3])))
    assert np.abs(w[:3] + x.T @ (p - y)).max() < 1e-8 and abs((p - y).sum()) < 1e-8


def test_the_classifier_is_fitted_to_what_is_read_in_sds():
    network, train = made(), split_of()
    fit_classifier(network, network, train, "fp32")
    means = read_all(network, network, train.hemispheres, "fp32")
    assert torch.allclose(network.feature_mean, means.mean(0)) and torch.allclose(network.feature_sd, means.std(0))
    z = ((means - means.mean(0)) / means.std(0)).double().numpy()
    expected = logistic_regression(z, train.labels.numpy())
    assert network.classifier.weight[0].tolist() == pytest.approx(expected[:3].tolist(), rel=1e-4)
    assert network.classifier.bias.item() == pytest.approx(expected[3], rel=1e-4)
    with torch.no_grad():
        logits = network(train.hemispheres.float())
    assert logits[train.labels == 1].mean() > logits[train.labels == 0].mean()


def test_cached_features_give_the_same_start():
    one, other, train = made(), made(), split_of()
    fit_classifier(one, one, train, "fp32")
    with torch.no_grad():
        features = other.frozen(train.hemispheres.float())
    fit_classifier(other, torch.nn.Identity(), train._replace(hemispheres=features), "fp32")
    assert torch.allclose(one.classifier.weight, other.classifier.weight, rtol=1e-4)


def test_with_new_gates_the_parents_columns_are_shared_out():
    network = made(attention=True)
    before = network.classifier.weight.clone()
    fit_classifier(network, network, split_of(), "fp32")
    assert torch.equal(network.classifier.weight, before / 2)
    assert torch.equal(network.gate_classifier.weight, before / 2)
