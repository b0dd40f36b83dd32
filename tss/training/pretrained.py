"""Published weights: files of other programs, renamed to this suite's names.

In:  a state_dict of Models Genesis (Zhou et al. 2019, PyTorch) or of torchvision's ResNet-18, as torch.save wrote it.
Out: a Parent to start from: kind of model, width, tensors under our names, and what may be new or left over, and why.
Paper: 2.3 (compared with ImageNet weights; 3D phase 1 starts from Models Genesis).
See: tests/training/test_pretrained.py

The channel rule: a first convolution for one channel becomes one for three by repeating its weights, each divided by
3, so that three equal channels give what the one gave. An output for one channel is repeated as it is.
"""

from pathlib import Path

import torch
from torch import Tensor

from tss.errors import InputError
from tss.training.checkpoint import DECODER, OF_EVIDENCE, Parent, why_not_numbers

CHANNELS = 3  # DWI, T2w, FLAIR

# Models Genesis: its name for a part -> ours.
DOWN = {
    "down_tr64": "encoder.down1",
    "down_tr128": "encoder.down2",
    "down_tr256": "encoder.down3",
    "down_tr512": "encoder.down4",
}
UP = {"up_tr256": "up3", "up_tr128": "up2", "up_tr64": "up1"}
LAYERS = {"ops.0.conv1": "0", "ops.0.bn1": "1", "ops.1.conv1": "3", "ops.1.bn1": "4"}
GENESIS = {
    **{f"{theirs}.{layer}": f"{ours}.{place}" for theirs, ours in DOWN.items() for layer, place in LAYERS.items()},
    **{f"{theirs}.{layer}": f"{ours}.convolutions.{place}" for theirs, ours in UP.items()
       for layer, place in LAYERS.items()},
    **{f"{theirs}.up_conv": f"{ours}.up" for theirs, ours in UP.items()},
    "out_tr.final_conv": "out",
}  # fmt: skip
GENESIS_FIRST, GENESIS_LAST = "encoder.down1.0.weight", "out"
RESNET_FIRST, RESNET_CLASSES = "conv1.weight", "fc."

COUNTERS = "num_batches_tracked"  # of BatchNorm; files older than torch 0.4.1 have none, and nothing uses them


def recognise_weights(content: object, path: Path) -> Parent:
    """Return a Parent made of another program's weights.

    content: what checkpoint.read_torch_file() returned: a state_dict, or a dict that holds one under "state_dict".
    Raises InputError: neither Models Genesis nor a ResNet-18, or with tensors that neither has.
    """
    tensors = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise InputError(
            f"{path} is neither a checkpoint of this suite nor a state_dict. Give a checkpoint of "
            "run_train.py, or published weights of Models Genesis (3D) or ResNet-18 (2D)."
        )
    tensors = {str(name).removeprefix("module."): value for name, value in tensors.items()}  # left by DataParallel
    why = why_not_numbers(tensors) or next(
        (
            f"tensor {name} holds {tensor.dtype}, not weights"
            for name, tensor in tensors.items()
            if not tensor.is_floating_point() and not name.endswith(COUNTERS)
        ),
        "",
    )
    if why:
        raise InputError(f"{path}: {why}. Download the published weights again.")
    if "down_tr64.ops.0.conv1.weight" in tensors:
        return parent_from_genesis(tensors, path)
    if RESNET_FIRST in tensors and "layer1.0.conv1.weight" in tensors:
        return parent_from_resnet18(tensors, path)
    raise InputError(
        f"{path} is not a checkpoint of this suite: it has no 'format', and its {len(tensors)} tensors "
        f"(first {next(iter(tensors), 'none')}) are not those of Models Genesis or ResNet-18, the only "
        "published weights that can be used. Give a checkpoint of run_train.py."
    )


def parent_from_genesis(tensors: dict[str, Tensor], path: Path) -> Parent:
    """Models Genesis's 3D U-Net: the whole of it for phase 0, its encoder for the classifier."""
    renamed = {}
    for name, tensor in tensors.items():
        part, _, kind = name.rpartition(".")
        if part not in GENESIS:
            raise InputError(
                f"{path} looks like Models Genesis, but {name} is not one of its tensors; nothing was "
                "loaded. Download the published weights again."
            )
        renamed[f"{GENESIS[part]}.{kind}"] = tensor
    first = renamed[GENESIS_FIRST]  # (width, channels, 3, 3, 3)
    check_first(path, first, 5)
    if first.ndim == 5 and first.shape[1] == 1:
        renamed[GENESIS_FIRST] = first.repeat(1, CHANNELS, 1, 1, 1) / CHANNELS
        for name in (f"{GENESIS_LAST}.weight", f"{GENESIS_LAST}.bias"):
            if name in renamed and renamed[name].ndim and len(renamed[name]) == 1:
                renamed[name] = renamed[name].repeat(CHANNELS, *[1] * (renamed[name].ndim - 1))
    new = dict.fromkeys(OF_EVIDENCE, "Models Genesis looks for no evidence")
    new |= {"classifier": "Models Genesis classifies nothing", "gate": "Models Genesis has no gates"}
    return foreign_parent(path, "Models Genesis", "3d", first.shape[0], renamed, new, DECODER)


def parent_from_resnet18(tensors: dict[str, Tensor], path: Path) -> Parent:
    """torchvision's ResNet-18, for instance from ImageNet; red, green and blue become DWI, T2w and FLAIR."""
    renamed = {
        name if name.startswith(RESNET_CLASSES) else f"backbone.{name}": tensor for name, tensor in tensors.items()
    }
    first = renamed[f"backbone.{RESNET_FIRST}"]  # (width, channels, 7, 7)
    check_first(path, first, 4)
    if first.ndim == 4 and first.shape[1] == 1:
        renamed[f"backbone.{RESNET_FIRST}"] = first.repeat(1, CHANNELS, 1, 1) / CHANNELS
    new = dict.fromkeys(OF_EVIDENCE, "ResNet-18 looks for no evidence") | {
        "classifier": "ours has one output",
        "slice_logits": "ResNet-18 does not weight slices",
        "gate": "ResNet-18 has no gates",
    }
    classes = tensors[f"{RESNET_CLASSES}bias"].numel() if f"{RESNET_CLASSES}bias" in tensors else 0
    left = {RESNET_CLASSES: f"its own {classes} classes"}
    return foreign_parent(path, "ResNet-18", "2d", first.shape[0], renamed, new, left)


def check_first(path: Path, first: Tensor, axes: int) -> None:
    """Refuse a first convolution of other axes than (width, channels, and those of the kernel)."""
    if first.ndim != axes or not first.numel():
        raise InputError(
            f"{path}: its first convolution has the shape {tuple(first.shape)}; {axes} axes are needed. Download the "
            "published weights again."
        )


def foreign_parent(
    path: Path, name: str, model: str, width: int, tensors: dict[str, Tensor], may_be_new: dict, may_be_left: dict
) -> Parent:
    """A Parent of no phase; may_be_new, may_be_left: as tss.training.checkpoint.load_tensors takes them."""
    tensors = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    for mean in [name for name in tensors if name.endswith(".running_mean")]:
        tensors.setdefault(mean.replace("running_mean", COUNTERS), torch.tensor(0))
    about = {"phase": None, "name": name, "model": model, "width": int(width), "state_dict": tensors}
    return Parent(path, about | {"may_be_new": may_be_new, "may_be_left": may_be_left})
