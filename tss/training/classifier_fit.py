"""The extended recipe's classifier at the start of a phase: fitted to what the network reads under its evidence.

In:  an EvidenceClassifier; a phase's training hemispheres, or their cached features, and labels.
Out: the same network, its classifier a logistic regression on the three means, standardised; in phase 4 the parent's,
     half of it behind the new gates.
Paper: none (decision 18: rates small enough to fine-tune take hundreds of epochs to find three numbers).
See: tests/training/test_classifier_fit.py
"""

import numpy as np
import torch
from torch import Tensor, nn

from tss.models.evidence import EvidenceClassifier
from tss.training.dataset import Rows, Split, at_least_float
from tss.training.device import at_precision

STRENGTH = 1.0  # of the data beside |w|^2 / 2; our choice
MOST_STEPS = 50
AT_ONCE = 8  # hemispheres


@torch.no_grad()
def fit_classifier(network: EvidenceClassifier, learner: nn.Module, train: Split, precision: str) -> None:
    """Start the classifier: fitted to the training hemispheres, or shared between the parent's and the gates'."""
    if network.gate_classifier is not None:
        # A gate starts open nearly evenly, and an evenly gated mean is the mean: the phase starts as the parent's
        # function, and both halves learn.
        network.classifier.weight /= 2
        network.gate_classifier.weight.copy_(network.classifier.weight)
        return
    means = read_all(network, learner, train.hemispheres, precision)
    network.feature_mean.copy_(means.mean(dim=0))
    network.feature_sd.copy_(means.std(dim=0).clamp_min(1e-6))
    weights = logistic_regression(network.standardised(means).double().cpu().numpy(), train.labels.numpy())
    network.classifier.weight.copy_(torch.from_numpy(weights[:-1])[None])
    network.classifier.bias.fill_(weights[-1])


@torch.no_grad()
def read_all(network: EvidenceClassifier, learner: nn.Module, hemispheres: Tensor | Rows, precision: str) -> Tensor:
    """hemispheres (N, C, D, H, W), or what frozen() made of them where `learner` takes that -> means (N, 3)."""
    network.eval()
    device = network.feature_mean.device
    means = []
    for batch in hemispheres.split(AT_ONCE):
        inputs = at_least_float(batch.to(device))
        with at_precision(precision, device):
            means.append(network.read(network.frozen(inputs) if learner is network else inputs).float())
    return torch.cat(means)


def logistic_regression(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x (N, F) standardised, y (N,) 0 or 1 -> weights and bias (F + 1,), by Newton's method.

    Minimises |w|^2 / 2 + STRENGTH * sum of log losses; the bias is free.
    """
    x = np.column_stack([x, np.ones(len(x))])
    free = np.diag([1.0] * (x.shape[1] - 1) + [0.0])
    w = np.zeros(x.shape[1])
    for _ in range(MOST_STEPS):
        p = 1 / (1 + np.exp(-(x @ w)))
        slope = free @ w + STRENGTH * (x.T @ (p - y))
        curvature = free + STRENGTH * (x.T @ (x * (p * (1 - p))[:, None]))
        step = np.linalg.solve(curvature, slope)
        w -= step
        if np.abs(step).max() < 1e-10:
            break
    return w
