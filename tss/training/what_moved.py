"""What a phase has done to a network, part by part: how far it moved, and what the attention is worth.

In:  a network after a phase, its tensors from before the first step, a way to predict validation's hemispheres.
Out: plain numbers, for the screen and settings.json: relative distances; the range of the slice weights; the gates'
     share of the logit's spread; validation AUC with each part of the attention taken out.
Paper: - (2.2 says what slice weights and gates are for: this says whether they do it; decision 17)
See: tests/training/test_what_moved.py

A part that was never trained looks like one that has learned: the network runs, its AUC is that of the rest. So every
phase says it. Nothing here trains; whatever is taken out is put back.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tss.metrics import roc_auc
from tss.models.attention import AttentionGate

# Part -> how the names of its parameters begin. A part that a network does not have is left out.
PARTS = {
    "conv1 and layer1": ("backbone.conv1.", "backbone.bn1.", "backbone.layer1."),
    "layer2": ("backbone.layer2.",),
    "layer3": ("backbone.layer3.",),
    "layer4": ("backbone.layer4.",),
    "down1 and down2": ("encoder.down1.", "encoder.down2."),
    "down3": ("encoder.down3.",),
    "down4": ("encoder.down4.",),
    "evidence": ("evidence.",),
    "evidence's reading": ("log_sharpness", "least", "clearness"),
    "classifier": ("classifier.",),
    "slice weights": ("slice_logits",),
    "gates": ("gate.", "gate2.", "gate3."),
    "gates' columns": ("gate_classifier.",),
}


def how_far(network: nn.Module, before: dict[str, Tensor]) -> dict[str, float | None]:
    """Return part -> |w - w0| / |w0| over all its parameters, frozen ones too; None where it left zero.

    before: a state_dict from before the first step. Statistics of BatchNorm are no parameters and do not count.
    """
    moved: dict[str, float | None] = {}
    for part, beginnings in PARTS.items():
        now = {name: tensor.detach() for name, tensor in network.named_parameters() if name.startswith(beginnings)}
        if now:
            way = length(tensor.double() - before[name].to(tensor.device).double() for name, tensor in now.items())
            norm = length(before[name].double() for name in now)
            moved[part] = way / norm if norm else None if way else 0.0
    return moved


def length(tensors: Iterable[Tensor]) -> float:
    """The Euclidean length of all values together."""
    return sum(tensor.square().sum().item() for tensor in tensors) ** 0.5


def what_moved(
    network: Any, before: dict[str, Tensor], predict: Callable[[], np.ndarray], labels: np.ndarray
) -> dict[str, Any]:
    """Return all that this module says of a network.

    predict: gives validation's logits (N,) with the network as it is at that moment; labels: (N,) 0 or 1.
    Returns:
        moved: part -> relative distance; auc: "as it is", and with each part of the attention taken out;
        slice_weights: [lowest, highest]; gates_share: of the logit's spread (phase 4).
    """
    logits = predict()
    aucs = {"as it is": roc_auc(labels, logits)}
    found: dict[str, Any] = {"moved": how_far(network, before), "auc": aucs}
    if hasattr(network, "slice_logits"):
        weights = network.slice_weights().detach()
        found["slice_weights"] = [weights.min().item(), weights.max().item()]
        with equal_slice_weights(network):
            aucs["equal slice weights"] = roc_auc(labels, predict())
    if getattr(network, "gate_classifier", None) is not None:
        with without_gates(network):
            rest = predict()
        # The logit is a sum, so that what is missing now is what the gates gave. Its mean changes no AUC.
        found["gates_share"] = float(np.std(logits - rest) / (np.std(logits) or 1.0))
        aucs["without gates"] = roc_auc(labels, rest)
        with open_gates(network):
            aucs["gates open evenly"] = roc_auc(labels, predict())
    return found


def in_words(found: dict[str, Any]) -> list[str]:
    """The lines that a phase prints of it."""
    ways = (f"{part} {'from zero' if way is None else format(way, '.1e')}" for part, way in found["moved"].items())
    lines = [f"moved by, of its norm: {', '.join(ways)}"]
    if "slice_weights" in found:
        lines.append("slice weights {:.4f} to {:.4f}".format(*found["slice_weights"]))
    if "gates_share" in found:
        lines.append(f"the gates carry {found['gates_share']:.3f} of the logit's spread (SD over SD)")
    lines.append("val auc " + ", ".join(f"{auc:.4f} {how}" for how, auc in found["auc"].items()))
    return lines


@contextmanager
def replaced(tensor: Tensor, value: Tensor) -> Iterator[None]:
    """Put another value into a parameter for a while; afterwards it has its own bits again."""
    own = tensor.detach().clone()
    try:
        with torch.no_grad():
            tensor.copy_(value)
        yield
    finally:
        with torch.no_grad():
            tensor.copy_(own)


def equal_slice_weights(network: Any) -> AbstractContextManager[None]:
    """Every slice counts as much as the mean slice did."""
    return replaced(network.slice_logits, torch.logit(network.slice_weights().detach().mean()))


def without_gates(network: Any) -> AbstractContextManager[None]:
    """Nothing of what is gated reaches the logit."""
    weight = network.gate_classifier.weight
    return replaced(weight, torch.zeros_like(weight))


@contextmanager
def open_gates(network: nn.Module) -> Iterator[None]:
    """Each gate is open everywhere as far as on average over the place: what is left is pooling without attention."""

    def evenly(gate: nn.Module, inputs: tuple[Tensor, Tensor], outputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        opening = outputs[1].mean(dim=tuple(range(2, outputs[1].ndim)), keepdim=True).expand_as(outputs[1])
        return opening * inputs[0], opening

    hooks = [module.register_forward_hook(evenly) for module in network.modules() if isinstance(module, AttentionGate)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
