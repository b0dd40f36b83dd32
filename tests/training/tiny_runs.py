"""Trainings of a second on tiny_data: what the tests of them share."""

import pytest
import torch

from tss.training.checkpoint import load_checkpoint

FIRST = {"2d": 1, "3d": 0}  # a model's first phase
KINDS = pytest.mark.parametrize("kind", ["2d", "3d"])
RECIPES = pytest.mark.parametrize("recipe", ["paper", "extended"])
FAST = {"epochs": 2, "lr": 3e-3, "final_lr": 5e-2}  # the paper's rates are for 100 epochs of 272 patients


def weights_equal(one, other):
    one, other = load_checkpoint(one)["state_dict"], load_checkpoint(other)["state_dict"]
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
