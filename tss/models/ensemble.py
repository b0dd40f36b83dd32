"""Several networks of one kind as one: the mean of their logits.

In:  hemispheres (N, C, D, H, W).
Out: logits (N,).
Paper: none (our choice: networks of several folds or seeds).
See: tests/evaluation/test_ensemble.py
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """The mean of the members' logits."""

    def __init__(self, members: Iterable[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, hemispheres: Tensor) -> Tensor:
        return torch.stack([member(hemispheres) for member in self.members]).mean(dim=0)


def members_of(network: nn.Module) -> list[nn.Module]:
    """The networks that an ensemble is of; any other network is its own only member."""
    return list(network.members) if isinstance(network, Ensemble) else [network]
