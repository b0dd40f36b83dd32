"""Grad-CAM: which places in a hemisphere moved the network's output, and how far to trust the picture.

In:  a classifier in eval mode and one hemisphere (C, D, H, W) = (channel, slice z, row y, column x), in [0, 1].
Out: a map (D, H, W) in [0, 1] on the input's own grid, all its slices on one scale, 0 outside the brain; and its
     worth. For the extended recipe: the evidence itself.
Paper: 3, Fig. 9 ("the penultimate convolutional layer"); Selvaraju 2019, equations 1 and 2.
See: tests/evaluation/test_gradcam.py
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from tss.models.evidence import EvidenceClassifier

ROUNDING = 1e-6  # our choice: a peak this small beside the terms it sums is float32 noise, not evidence


class Target(NamedTuple):
    """The layer to explain, and where its cells lie: cell i of an axis is centred on input voxel first + i * step.

    A cell that was pooled from the voxels i * step to i * step + 2 * first has fewer at the end of the volume.
    """

    layer: str
    step: tuple[float, float, float]  # (z, y, x)
    first: tuple[float, float, float]  # (z, y, x)


# 2D: layer3, the last stage but one, which we take "penultimate" to mean: 14 x 7 cells a slice at the paper's grid,
# where layer4 has 7 x 4, and the one layer that both the classifier's features and phase 4's gate pass through. In
# one small phantom run (phase 1, half the paper's grid, 48 patients, most of them trained on) the heat in the lesion's
# slice was 1.7 times as dense on the lesion as on the brain with layer3, 1.1 times with layer4.
# ResNet's convolutions of stride 2 are centred on voxel 0, so cell i looks at voxel 16 i. Resizing the map as a
# picture would put it at 16 i + 7.5, half a cell away from what it saw.
#
# 3D: down3, again the last stage but one, at a quarter of the input's resolution where down4 has an eighth; it is the
# stage that the second gate looks at. Poolings by 2 put cell i in the middle of the voxels 4 i to 4 i + 3. What phase
# 4's first gate lets through from down2 does not pass here.
TARGETS = {
    "2d": Target("backbone.layer3", step=(1, 16, 16), first=(0, 0, 0)),
    "3d": Target("encoder.down3", step=(4, 4, 4), first=(1.5, 1.5, 1.5)),
}


def map_of(model: nn.Module, hemisphere: torch.Tensor, target: Target, sign: int = 1) -> np.ndarray:
    """Return where a network has looked, (D, H, W) in [0, 1]: the evidence where it has such, else the Grad-CAM.

    The evidence is always for stroke, whatever `sign`: the TSS phases read there, whatever they find.
    """
    if not isinstance(model, EvidenceClassifier):
        return grad_cam(model, hemisphere, target, sign)
    with torch.no_grad():
        return model.looks_at(hemisphere[None])[0][0].float().cpu().numpy()


def grad_cam(model: nn.Module, hemisphere: torch.Tensor, target: Target, sign: int = 1) -> np.ndarray:
    """Return the Grad-CAM of `explained`, without what it is worth."""
    return explained(model, hemisphere, target, sign)[0]


def explained(model: nn.Module, hemisphere: torch.Tensor, target: Target, sign: int = 1) -> tuple[np.ndarray, float]:
    """Return where the evidence for (sign=1) or against (sign=-1) the positive class lies, and its worth.

        weight_c = mean over the layer's cells of d(sign * logit) / d A_c
        map      = max(0, sum_c weight_c A_c), divided by its largest value in the brain
        worth    = sum over cells of max(0, sum_c weight_c A_c), to first order what the logit owes to the map

    There is one output, so evidence against the positive class is the same map of minus the logit. What argues for
    the other side is cut off in either map: a cold place is not a healthy place. In the 2D model the gradient contains
    the slice's own weight, so that one slice can be compared with another.

    model: maps (1, C, D, H, W) to logits (1,); in eval mode, frozen or not.
    hemisphere: (C, D, H, W) on the model's device.
    target: the layer; its output is (D, channels, h, w), each slice on its own, or (1, channels, d, h, w).

    Returns (D, H, W) float32 in [0, 1], 0 outside the brain (where no channel has a value), all zero where nothing
    argues for that sign, which is a result to report; and the worth, in logits.

    Raises ValueError: the model is in training mode, where BatchNorm would answer for another function.
    """
    if model.training:
        raise ValueError("Grad-CAM explains the model in eval mode: call model.eval() first.")
    with torch.enable_grad(), recorded(model.get_submodule(target.layer)) as outputs:
        # The input asks for a gradient because a frozen backbone has no parameter that does.
        logit = model(hemisphere[None].detach().requires_grad_(True))  # (1,)
        activation = outputs[-1]
        (gradient,) = torch.autograd.grad(sign * logit.sum(), activation)
    activation, gradient = activation.detach().double(), gradient.double()
    spatial = tuple(range(2, activation.ndim))
    terms = gradient.mean(dim=spatial, keepdim=True) * activation
    cells = terms.sum(dim=1).clamp(min=0).cpu().numpy()  # (D, h, w), or (1, d, h, w)
    cells = cells.reshape(-1, *cells.shape[-2:])
    if cells.max() <= ROUNDING * float(terms.abs().max()):
        return np.zeros(hemisphere.shape[1:], dtype=np.float32), 0.0
    heat = to_input_grid(cells, hemisphere.shape[1:], target) * (hemisphere != 0).any(dim=0).cpu().numpy()
    return (heat / (heat.max() or 1.0)).astype(np.float32), float(cells.sum())


@contextmanager
def recorded(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect a module's outputs while the block runs. The hook is gone afterwards, even after an error."""
    outputs: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


def to_input_grid(cells: np.ndarray, shape: Sequence[int], target: Target) -> np.ndarray:
    """Interpolate (d, h, w) linearly to (D, H, W) voxels; beyond the outermost cells' centres their value holds."""
    weights = []
    for length, count, step, first in zip(shape, cells.shape, target.step, target.first, strict=True):
        start = np.arange(count) * step
        centres = (start + np.minimum(start + 2 * first, length - 1)) / 2
        position = np.interp(np.arange(length), centres, np.arange(count))
        weights.append(np.maximum(0, 1 - np.abs(position[:, None] - np.arange(count))))  # (length, count)
    return np.einsum("Dd,Hh,Ww,dhw->DHW", *weights, cells, optimize=True)
