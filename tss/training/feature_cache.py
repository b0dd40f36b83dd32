"""The features of the frozen layers, cached: within a phase their output for a hemisphere never changes.

In:  a Classifier, logits = after_frozen(frozen(x)); the hemispheres of a phase (N, C, D, H, W).
Out: what the frozen layers make of each hemisphere, and the rest of the network, which takes it.
Paper: 2.3 (which layers are frozen); caching is ours, and changes the outcome of no step.
See: tests/training/test_feature_cache.py
"""

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from tss.models.classifier import Classifier
from tss.training.dataset import Split, at_least_float
from tss.training.device import at_precision, free_memory

# Small, since the frozen layers' maps are the largest of all; but not 1, for which torch on the CPU takes another
# convolution than for a batch, slower and rounded differently.
AT_ONCE = 2
SHARE = 0.5  # our choice: of the free memory; the rest is for training and for other users of the machine


class AfterFrozen(nn.Module):
    """The network behind its frozen layers: takes their features in place of hemispheres."""

    def __init__(self, network: Classifier):
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> Tensor:
        return self.network.after_frozen(features)


def cache_features(
    network: Classifier, splits: Sequence[Split], device: torch.device, precision: str, say: Callable[[str], None]
) -> tuple[nn.Module, list[Split]]:
    """Replace hemispheres by their features; returns what is left to train, and the splits.

    Where memory does not suffice, features are computed on demand, and that is said.
    """
    hemispheres = sum(len(split.hemispheres) for split in splits)
    one = frozen_features(network, splits[0].hemispheres[:AT_ONCE], device, precision)[0]
    size = hemispheres * one.nbytes
    place = next(
        (place for place in dict.fromkeys((device, torch.device("cpu"))) if size <= SHARE * free_memory(place)), None
    )
    text = f"{size / 2**30:.2f} GiB of {str(one.dtype).removeprefix('torch.')}, {tuple(one.shape)} per hemisphere"
    if place is None:
        say(
            f"the features of the frozen layers ({text}) do not fit into half of the free memory "
            f"({free_memory(torch.device('cpu')) / 2**30:.2f} GiB): computed again in each step, same outcome"
        )
        return AfterFrozen(network), [
            # It has all that batches() and predict() ask of a tensor: len, ndim, rows and split.
            split._replace(hemispheres=cast(Tensor, LazyFeatures(network, split.hemispheres, device, precision)))
            for split in splits
        ]
    say(f"the features of the frozen layers are computed once: {text}, kept on {place}")
    kept = []
    for split in splits:
        # In the memory format in which the layers give them: convolutions round differently in another.
        features = torch.empty_strided(
            (len(split.hemispheres), *one.shape), (one.numel(), *one.stride()), dtype=one.dtype, device=place
        )
        for end in range(AT_ONCE, len(features) + AT_ONCE, AT_ONCE):
            end = min(end, len(features))
            rows = slice(max(0, end - AT_ONCE), end)  # of an odd number the last but one is computed twice
            features[rows] = frozen_features(network, split.hemispheres[rows], device, precision)
        kept.append(split._replace(hemispheres=features))
    return AfterFrozen(network), kept


class LazyFeatures:
    """In place of cached features: computes those of the hemispheres that are asked for."""

    def __init__(self, network: Classifier, hemispheres: Tensor, device: torch.device, precision: str):
        self.network, self.hemispheres, self.device, self.precision = network, hemispheres, device, precision
        self.ndim = hemispheres.ndim

    def __len__(self) -> int:
        return len(self.hemispheres)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        chosen = self.hemispheres[rows]
        batch = chosen.expand(AT_ONCE, *chosen.shape[1:]) if len(chosen) == 1 else chosen  # see AT_ONCE
        return frozen_features(self.network, batch, self.device, self.precision)[: len(chosen)]

    def split(self, size: int) -> Iterator[Tensor]:
        return (self[start : start + size] for start in range(0, len(self), size))


@torch.no_grad()
def frozen_features(network: Classifier, hemispheres: Tensor, device: torch.device, precision: str) -> Tensor:
    """hemispheres: (N, C, D, H, W) -> features (N, ...)."""
    with at_precision(precision, device):
        return network.frozen(at_least_float(hemispheres.to(device)))
