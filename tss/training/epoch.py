"""One epoch of training, prediction, the optimizer and the loss: what all phases share.

In:  a network; batches (hemispheres (N, C, D, H, W), targets) on the device.
Out: the mean loss of an epoch; logits (N,) float64, on the CPU.
Paper: 2.4 (loss, optimizer, batch size).
See: tests/training/test_epoch.py
"""

import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from adabound import AdaBound
from torch import Tensor, nn
from torch.nn import functional as F

from tss.errors import InputError
from tss.training.dataset import Rows, at_least_float
from tss.training.device import at_precision, without_onednn_bf16

LOSS = F.binary_cross_entropy_with_logits  # paper 2.4; on logits, since it is stable there (decision 3)


def build_optimizer(
    network: nn.Module, lr: float, final_lr: float, own_rates: Sequence[tuple[str, float, float]] = ()
) -> AdaBound:
    """AdaBound (paper 2.4) over the parameters that are trained, with the package's defaults otherwise.

    own_rates: how parameters' names begin, and their lr and final lr in place of the others'.
    Always a new one for a phase: the package fixes its base rates on construction and never steps a group that is
    added later.

    Raises InputError: the package does not run with this torch.
    """
    # adabound 0.0.5 calls add_() and addcmul_() with deprecated signatures, which torch still accepts.
    warnings.filterwarnings("ignore", message=r"This overload of add\w* is deprecated", category=UserWarning)
    try:
        trial = nn.Parameter(torch.zeros(1))
        trial.grad = torch.ones(1)
        AdaBound([trial]).step()
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                own = (rates for begin, *rates in own_rates if name.startswith(begin))
                first, last = next(own, (lr, final_lr))
                groups.setdefault((first, last), []).append(parameter)
        # Sorted by rates, so that a resumed optimizer finds its groups again.
        return AdaBound([{"params": groups[rates], "lr": rates[0], "final_lr": rates[1]} for rates in sorted(groups)])
    except (TypeError, RuntimeError, AttributeError, NotImplementedError) as error:
        raise InputError(
            f"the package adabound does not run with torch {torch.__version__} ({str(error).splitlines()[0]}). "
            "Install the torch of requirements.txt: pip install -r requirements.txt"
        ) from error


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy (2.4) of logits (N,); of (N, 2), evidence and the voxel's part, the sum of the two."""
    if logits.ndim == 1:
        return LOSS(logits, labels)
    return sum((LOSS(column, labels) for column in logits.unbind(dim=1)), start=torch.zeros_like(labels[0]))


def train_one_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    precision: str,
) -> float:
    """Take one step per batch (inputs, targets); returns the mean loss over hemispheres.

    Raises FloatingPointError: the loss is no longer a finite number.
    """
    network.train()  # frozen modules stay as they are (tss.training.phases.freeze)
    total, count = 0.0, 0
    for inputs, targets in batches:
        with at_precision(precision, inputs.device):
            outputs = network(inputs)
        loss = loss_of(outputs.float(), targets)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the training loss is {loss.item()}")
        optimizer.zero_grad()
        with without_onednn_bf16(precision, inputs.device):
            loss.backward()
        optimizer.step()
        total += loss.item() * len(targets)
        count += len(targets)
    return total / count


@torch.no_grad()
def predict(
    network: nn.Module, hemispheres: Tensor | Rows, size: int, device: torch.device, precision: str
) -> np.ndarray:
    """hemispheres (N, C, D, H, W) of any float type, in batches of `size` -> logits (N,) float64.

    Raises FloatingPointError: a logit is not a finite number.
    """
    network.eval()
    parts = []
    for batch in hemispheres.split(size):
        with at_precision(precision, device):
            parts.append(network(at_least_float(batch.to(device))).cpu().double())
    logits = torch.cat(parts).numpy()
    if not np.isfinite(logits).all():
        raise FloatingPointError("the network's outputs are not finite numbers")
    return logits


def probability(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logit)), without overflow."""
    return np.exp(-np.logaddexp(0.0, -logits))
