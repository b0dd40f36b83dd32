"""Checkpoints: writing them, reading them with suspicion, starting a phase from one, and proving what stood still.

In:  a network and what is known about it; or a file.
Out: a dict of tensors and plain Python values (KEYS), readable with torch.load(weights_only=True).
Paper: 2.3 ("these frozen weights were then initialized for the model at the start of the following phase").
See: tests/training/test_checkpoint.py

Starting from (another phase's weights, a new optimizer) and continuing (one's own last.pt, everything as it was)
are two things: start_from() is here; continuing is train.py's, since only it knows what it has to continue.
"""

import io
import os
import pickle
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import nn

from tss.data.files import write_whole
from tss.data.tasks import RESTORE, TUMOURS
from tss.errors import InputError
from tss.training.phases import PHASES, Phase, build_model

FORMAT = "tss checkpoint 1"
DECODER = dict.fromkeys(("up1.", "up2.", "up3.", "out."), "the decoder is not needed to classify")
NEW_AFTER_TUMOURS = {"classifier": "tumours have other classes", "slice_logits": "their slices have no weights"}
LEFT_BY_TUMOURS = {"types.": "the kinds of tumour are not asked here"} | DECODER
FROM_TUMOURS = (2, 3)  # the phases that Table 2 has from medical weights
REMEDY = "Copy it again, or train its phase again (--resume continues from last.pt)."

KEYS = {
    "format": str,
    "model": str,  # "2d" or "3d"
    "width": int,  # channels of the first stage
    "grid": list,  # voxels X, Y, Z of the whole brain
    "attention": bool,
    "phase": int,  # None where tumours were learned
    "task": str,
    "epoch": int,
    "val_auc": float,  # None in phase 0, which classifies nothing, and of tumours
    "threshold": float,  # probability; Youden's J on validation; None as val_auc
    "state_dict": dict,
    "frozen": list,  # names of parameters and buffers
    "parent": str,  # sha256 of the file it started from, or "random"
    "cohort": str,  # sha256 of the split
    "settings": dict,
}


def write_checkpoint(path: str | os.PathLike, checkpoint: dict) -> None:
    """Write a checkpoint, whole. The same content gives the same bytes, so that `parent` hashes can be compared."""
    content = io.BytesIO()  # torch.save to a path would put that path's name into the file, and hide a full disk
    torch.save(checkpoint, content)
    write_whole(path, lambda beside: beside.write_bytes(content.getbuffer()))


def read_torch_file(path: str | os.PathLike) -> object:
    """Read what torch.save wrote, tensors and plain values only, onto the CPU.

    Raises:
        InputError: missing, cut short, damaged, or holding code instead of tensors.
    """
    try:
        content = io.BytesIO(Path(path).read_bytes())
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}. Give a checkpoint that run_train.py left, for "
            "example runs/2d/phase1/best.pt."
        ) from error
    in_zip = zipfile.is_zipfile(content)  # torch before 1.6 wrote none, and much that was published is older
    try:
        damaged = zipfile.ZipFile(content).testzip() if in_zip else None  # torch.load overlooks a flipped bit
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is cut short, damaged, or not a checkpoint. {REMEDY}") from error
    if damaged:
        raise InputError(f"{path} is damaged: the checksum of {damaged} is wrong. {REMEDY}")
    try:
        content.seek(0)
        return torch.load(content, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        EOFError,
        OSError,
    ) as error:
        if not in_zip:
            raise InputError(f"{path} is cut short, damaged, or not a checkpoint. {REMEDY}") from error
        if isinstance(error, pickle.UnpicklingError):
            raise InputError(
                f"{path} holds more than tensors and plain values: it is of another program, or holds "
                "code that would run on loading. Nothing of it was run. Give a checkpoint of run_train.py."
            ) from error
        raise InputError(f"{path} is a zip file, but not a checkpoint. {REMEDY}") from error


def load_checkpoint(path: str | os.PathLike) -> dict:
    """Read a checkpoint of this suite onto the CPU.

    Raises:
        InputError: as read_torch_file(), or another program's.
    """
    return check_checkpoint(path, read_torch_file(path))


def check_checkpoint(path: str | os.PathLike, checkpoint: object) -> dict:
    """Refuse what is not a checkpoint of this suite and version."""
    if not isinstance(checkpoint, dict) or "format" not in checkpoint:
        raise InputError(
            f"{path} is not a checkpoint of this suite: it has no 'format'. Give a checkpoint of run_train.py."
        )
    if checkpoint["format"] != FORMAT:
        raise InputError(
            f"{path} has the format {checkpoint['format']!r}, this version reads {FORMAT!r}. "
            "Use the version of the suite that wrote it."
        )
    task = checkpoint.get("task")
    may_be_none = (("val_auc", "threshold") if task in (RESTORE, *TUMOURS.values()) else ()) + (
        ("phase",) if task in TUMOURS.values() else ()
    )
    wrong = [
        key
        for key, kind in KEYS.items()
        if not isinstance(checkpoint.get(key), kind) and not (key in may_be_none and key in checkpoint)
    ]
    if wrong:
        raise InputError(
            f"{path}: {', '.join(wrong)} missing or of the wrong type. Train its phase again with this version."
        )
    return checkpoint


def load_model(path: str | os.PathLike) -> tuple[nn.Module, dict]:
    """Rebuild the network of a checkpoint, in evaluation mode on the CPU; returns (network, checkpoint)."""
    checkpoint = load_checkpoint(path)
    network = build_model(
        checkpoint["model"],
        checkpoint["width"],
        checkpoint["grid"],
        checkpoint["attention"],
        checkpoint["task"],
        len(checkpoint.get("types", ())),
    )
    try:
        network.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise InputError(
            f"{path}: its tensors do not fit its own description (model {checkpoint['model']}, width "
            f"{checkpoint['width']}). The file was changed; train its phase again.\n{error}"
        ) from error
    return network.eval(), checkpoint


def check_parent(path: Path, parent: dict, phase: Phase, wanted: dict) -> None:
    """Refuse to start `phase` from a checkpoint that does not belong before it.

    wanted: model, width, grid and cohort of the new run; all must be the parent's. Weights from elsewhere (tss.training.pretrained)
    know of no phase, grid or cohort.
    """
    if parent["phase"] is None:
        for key in ("model", "width"):
            if parent[key] != wanted[key]:
                raise InputError(
                    f"{path} ({parent['name']}) is for --{key} {parent[key]}, this run has {wanted[key]}. "
                    "Leave --model and --width away to take the file's."
                )
        if parent.get("task") in TUMOURS.values() and phase.number not in FROM_TUMOURS:
            raise InputError(
                f"{path} was learned from tumours, for phases 2 and 3 to be compared with (Table 2). "
                f"Phase {phase.number} does not start from it."
            )
        return
    number = phase.parent_of(wanted["model"])
    if parent["phase"] != number:
        expected = (
            "random weights; leave --init away"
            if number is None
            else f"a checkpoint of phase {number} ({PHASES[number].task})"
        )
        raise InputError(
            f"phase {phase.number} starts from {expected}. {path} was written by phase "
            f"{parent['phase']} ({parent['task']})."
        )
    for key in ("model", "width", "grid"):
        if parent[key] != wanted[key]:
            raise InputError(
                f"{path} has {key} {parent[key]}, this run has {wanted[key]}. Leave --model and --width "
                "away to take the checkpoint's, and give --data of the same grid."
            )
    if parent["cohort"] != wanted["cohort"]:
        raise InputError(
            f"{path} was trained on another split of patients ({parent['cohort'][:12]}) than --data has "
            f"({wanted['cohort'][:12]}): patients it has seen may be in this test set. Give the data it "
            "was trained on, or train from the first phase on this data."
        )


def start_from(network: nn.Module, parent: dict, path: Path) -> str:
    """Copy a parent's tensors into a network; returns how many were loaded, are new and were left over, and why.

    New may only be the attention gates where the parent has none, and the classifier behind a parent that asked
    another question: it restored volumes (its decoder is then left over), or looked for a stroke. Where the gates are
    new, the classifier has more inputs than the parent's: their weights are zero, so that the network starts as exactly
    the parent's function (decision 4). A classifier that is new as a whole is zero too.
    """
    if parent.get("task") in TUMOURS.values():
        return load_tensors(network, parent["state_dict"], NEW_AFTER_TUMOURS, LEFT_BY_TUMOURS, path)
    if parent["phase"] is None:  # weights from elsewhere, with reasons of their own
        return load_tensors(network, parent["state_dict"], parent["may_be_new"], parent["may_be_left"], path)
    own, given = network.state_dict(), dict(parent["state_dict"])
    may_be_new, may_be_left = {}, {}
    if not parent["attention"]:
        may_be_new |= {"gate": "phase 4 adds the gates"}
    if parent["task"] == RESTORE and not hasattr(network, "out"):
        may_be_new |= {"classifier": "phase 0 has none"}
        may_be_left |= DECODER
    elif parent["task"] == "stroke":
        # To hemispheres with a stroke it says "yes" at once: phase 2's loss would start at 2.8, where a guess has 0.7.
        may_be_new |= {"classifier": "phase 1 answers another question"}
        given = {name: tensor for name, tensor in given.items() if not name.startswith("classifier")}
    elif any(name.startswith("gate") for name in own.keys() - given.keys()):
        wider = torch.zeros_like(own["classifier.weight"])  # (1, features and gated features)
        wider[:, : given["classifier.weight"].shape[1]] = given["classifier.weight"]
        given["classifier.weight"] = wider
    return load_tensors(network, given, may_be_new, may_be_left, path)


def load_tensors(
    network: nn.Module, given: dict, may_be_new: dict[str, str], may_be_left: dict[str, str], path: Path
) -> str:
    """Copy tensors into a network by name; anything that is not expected to differ stops the run.

    may_be_new, may_be_left: how a tensor's name may begin -> why it is in the network only, or in `given` only.
    Returns:
        a sentence with all counts and reasons.
    """
    own = network.state_dict()
    new, missing = sort_out(own.keys() - given.keys(), may_be_new)
    left, unknown = sort_out(given.keys() - own.keys(), may_be_left)
    misshapen = sorted(name for name in own.keys() & given.keys() if own[name].shape != given[name].shape)
    for problem, names in {"missing": missing, "left over": unknown, "of another shape": misshapen}.items():
        if names:
            raise InputError(
                f"{path}: {len(names)} tensors {problem}, first {names[0]}. The file does not fit its own "
                "description, or is not what it seems to be; nothing was loaded."
            )
    # A new classifier has no opinion of the learned features yet: at random it would have a loud one, which phase 2's
    # rate of 1e-5 takes ten epochs to quieten.
    silent = {name: torch.zeros_like(own[name]) for name in own.keys() - given.keys() if name.startswith("classifier")}
    network.load_state_dict({name: given[name] for name in own.keys() & given.keys()} | silent, strict=False)
    return f"{len(own.keys() & given.keys())} tensors loaded, {counts_in_words(new)} new, {counts_in_words(left)} left over"


def sort_out(names: Iterable[str], expected: dict[str, str]) -> tuple[dict[str, int], list[str]]:
    """Count names by the reason for which they were expected; returns the counts, and the names that were not."""
    reasons = {name: next((why for begin, why in expected.items() if name.startswith(begin)), None) for name in names}
    counts = Counter(why for why in reasons.values() if why)
    return dict(sorted(counts.items())), sorted(name for name, why in reasons.items() if not why)


def counts_in_words(counts: dict[str, int]) -> str:
    """{"no classes here": 2} -> "2 (no classes here)"."""
    return f"{sum(counts.values())} ({'; '.join(counts)})" if counts else "0"


def prove_frozen(path: Path, names: Sequence[str], parent: dict) -> None:
    """Raise unless every named parameter and buffer in the file is bit-equal to the parent's."""
    state = load_checkpoint(path)["state_dict"]
    moved = [name for name in names if not torch.equal(state[name], parent["state_dict"][name])]
    if moved:
        raise AssertionError(f"{path}: frozen tensors moved: {', '.join(moved)}. This is a fault of the suite.")
