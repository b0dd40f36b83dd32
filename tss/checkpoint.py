"""Checkpoints: writing them, reading them with suspicion, starting a phase from one, and proving what stood still.

In:  a network and what is known about it; or a file.
Out: a dict of tensors and plain Python values (KEYS), readable with torch.load(weights_only=True).
Paper: 2.3 ("these frozen weights were then initialized for the model at the start of the following phase").
See: tests/test_checkpoint.py

Starting from (another phase's weights, a new optimizer) and continuing (one's own last.pt, everything as it was)
are two things: start_from() is here; continuing is train.py's, since only it knows what it has to continue.
"""

import io
import os
import pickle
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from tss.files import InputError, write_whole
from tss.phases import PHASES, Phase, build_model

FORMAT = "tss checkpoint 1"
REMEDY = "Copy it again, or train its phase again (--resume continues from last.pt)."

KEYS = {
    "format": str,
    "model": str,  # "2d"
    "width": int,  # channels of the first stage
    "grid": list,  # voxels X, Y, Z of the whole brain
    "attention": bool,
    "phase": int,
    "task": str,
    "epoch": int,
    "val_auc": float,
    "threshold": float,  # probability; Youden's J on validation
    "state_dict": dict,
    "frozen": list,  # names of parameters and buffers
    "parent": str,  # sha256 of the file it started from, or "random"
    "cohort": str,  # sha256 of the split
    "settings": dict,
}


def save(path: str | os.PathLike, checkpoint: dict) -> None:
    """Write a checkpoint, whole. The same content gives the same bytes, so that `parent` hashes can be compared."""
    content = io.BytesIO()  # torch.save to a path would put that path's name into the file, and hide a full disk
    torch.save(checkpoint, content)
    write_whole(path, lambda beside: beside.write_bytes(content.getbuffer()))


def load(path: str | os.PathLike) -> dict:
    """Read a checkpoint of this suite onto the CPU.

    Raises:
        InputError: missing, cut short, another program's, or holding code instead of tensors.
    """
    try:
        content = io.BytesIO(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Give a checkpoint that run_train.py left, for "
                         "example runs/2d/phase1/best.pt.") from error
    try:
        damaged = zipfile.ZipFile(content).testzip()  # torch.load would not notice a flipped bit in a weight
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is cut short, damaged, or not a checkpoint. {REMEDY}") from error
    if damaged:
        raise InputError(f"{path} is damaged: the checksum of {damaged} is wrong. {REMEDY}")
    try:
        content.seek(0)
        checkpoint = torch.load(content, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(f"{path} holds more than tensors and plain values: it is of another program, or holds code "
                         "that would run on loading. Nothing of it was run. Give a checkpoint of run_train.py."
                         ) from error
    except (RuntimeError, ValueError, LookupError, AttributeError, TypeError, EOFError) as error:
        raise InputError(f"{path} is a zip file, but not a checkpoint. {REMEDY}") from error

    if not isinstance(checkpoint, dict) or "format" not in checkpoint:
        raise InputError(f"{path} is not a checkpoint of this suite: it has no 'format'. Weights of other programs "
                         "cannot be used here. Give a checkpoint of run_train.py.")
    if checkpoint["format"] != FORMAT:
        raise InputError(f"{path} has the format {checkpoint['format']!r}, this version reads {FORMAT!r}. "
                         "Use the version of the suite that wrote it.")
    wrong = [key for key, kind in KEYS.items() if not isinstance(checkpoint.get(key), kind)]
    if wrong:
        raise InputError(f"{path}: {', '.join(wrong)} missing or of the wrong type. "
                         "Train its phase again with this version.")
    return checkpoint


def load_model(path: str | os.PathLike) -> tuple[nn.Module, dict]:
    """Rebuild the network of a checkpoint, in evaluation mode on the CPU; returns (network, checkpoint)."""
    checkpoint = load(path)
    network = build_model(checkpoint["model"], checkpoint["width"], checkpoint["grid"], checkpoint["attention"])
    try:
        network.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise InputError(f"{path}: its tensors do not fit its own description (model {checkpoint['model']}, width "
                         f"{checkpoint['width']}). The file was changed; train its phase again.\n{error}") from error
    return network.eval(), checkpoint


def check_parent(path: Path, parent: dict, phase: Phase, wanted: dict) -> None:
    """Refuse to start `phase` from a checkpoint that does not belong before it.

    wanted: model, width, grid and cohort of the new run; all must be the parent's.
    """
    if parent["phase"] != phase.starts_from:
        expected = ("random weights; leave --init away" if phase.starts_from is None
                    else f"a checkpoint of phase {phase.starts_from} ({PHASES[phase.starts_from].task})")
        raise InputError(f"phase {phase.number} starts from {expected}. {path} was written by phase "
                         f"{parent['phase']} ({parent['task']}).")
    for key in ("model", "width", "grid"):
        if parent[key] != wanted[key]:
            raise InputError(f"{path} has {key} {parent[key]}, this run has {wanted[key]}. Leave --model and --width "
                             "away to take the checkpoint's, and give --data of the same grid.")
    if parent["cohort"] != wanted["cohort"]:
        raise InputError(f"{path} was trained on another split of patients ({parent['cohort'][:12]}) than --data has "
                         f"({wanted['cohort'][:12]}): patients it has seen may be in this test set. Give the data it "
                         "was trained on, or train from phase 1 on this data.")


def start_from(network: nn.Module, parent: dict, path: Path) -> tuple[int, int]:
    """Copy a parent's tensors into a network; returns how many were loaded and how many are new.

    New may only be the attention gates, and only where the parent has none. The classifier then has more inputs
    than the parent's: their weights are zero, so that the network starts as exactly the parent's function
    (DESIGN 3.4). Anything else that does not match stops the run.
    """
    own, given = network.state_dict(), dict(parent["state_dict"])
    gates_are_new = not parent["attention"]
    new = [name for name in own if name not in given and name.startswith("gate") and gates_are_new]
    if new:
        wider = torch.zeros_like(own["classifier.weight"])  # (1, features and gated features)
        wider[:, : given["classifier.weight"].shape[1]] = given["classifier.weight"]
        given["classifier.weight"] = wider

    missing = sorted(own.keys() - given.keys() - set(new))
    left_over = sorted(given.keys() - own.keys())
    misshapen = [name for name in own.keys() & given.keys() if own[name].shape != given[name].shape]
    for problem, names in {"missing": missing, "left over": left_over, "of another shape": misshapen}.items():
        if names:
            raise InputError(f"{path}: {len(names)} tensors {problem}, first {names[0]}. The file does not fit its own "
                             "description; train its phase again.")
    network.load_state_dict(given, strict=False)
    return len(given), len(new)


def prove_frozen(path: Path, names: Sequence[str], parent: dict) -> None:
    """Raise unless every named parameter and buffer in the file is bit-equal to the parent's."""
    state = load(path)["state_dict"]
    moved = [name for name in names if not torch.equal(state[name], parent["state_dict"][name])]
    if moved:
        raise AssertionError(f"{path}: frozen tensors moved: {', '.join(moved)}. This is a fault of the suite.")
