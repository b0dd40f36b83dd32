"""Checkpoints: writing them, reading them with suspicion, starting a phase from one, proving what was frozen.

In:  a network and its description; or a file.
Out: a dict of tensors and plain Python values (KEYS), readable with torch.load(weights_only=True).
Paper: 2.3 ("these frozen weights were then initialized for the model at the start of the following phase").
See: tests/training/test_checkpoint.py

Starting from another phase's weights, with a new optimizer, is start_from(); continuing one's own last.pt, with all
its state, is tss.training.resume.
"""

import io
import os
import pickle
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tss.data.files import read_bytes, write_whole
from tss.data.patients_seen import Hashes, why_not_new
from tss.data.prepared import MOST_VOXELS, PREPROCESSING
from tss.data.shapes import Row, Within, why_not
from tss.data.tasks import RESTORE, TASKS, TUMOURS
from tss.errors import InputError
from tss.training.phases import FROZEN, PAPER, RECIPES, Phase, build_model

FORMAT = "tss checkpoint 1"
DECODER = dict.fromkeys(("up1.", "up2.", "up3.", "out."), "the decoder is not needed to classify")
# How tensors begin that the extended recipe's networks have beside their backbone and classifier.
OF_EVIDENCE = ("evidence.", "slice_logits", "log_sharpness", "least", "clearness", "healthy", "feature_")
NEW_AFTER_TUMOURS = {"classifier": "tumours have other classes", "slice_logits": "their slices are not weighted"}
LEFT_BY_TUMOURS = {"types.": "the types of tumour are not classified here"} | DECODER
FROM_TUMOURS = (2, 3)  # the phases that Table 2 has from medical weights
REMEDY = "Copy it again, or train its phase again (--resume continues from last.pt)."

# What torch.load raises for files that are not its own, or not of tensors and plain values.
NOT_TENSORS = (pickle.UnpicklingError, RuntimeError, ValueError, LookupError, AttributeError, TypeError, EOFError)

SHARE = Within(0, 1, float)
KEYS = {  # the shape of a checkpoint; what its task leaves open is in check_checkpoint
    "format": str,
    "model": {*FROZEN},
    "width": Within(1, 4096),  # channels of the first stage
    "grid": Row(*[Within(1, MOST_VOXELS)] * 3),  # voxels X, Y, Z of the whole brain
    "attention": bool,
    "phase": {*PAPER},  # None after training on tumours
    "task": {RESTORE, *TASKS, *TUMOURS.values()},
    "epoch": Within(1, 2**31),
    "val_auc": SHARE,  # None in phase 0, which classifies nothing, and for tumours
    "threshold": SHARE,  # probability; Youden's J on validation; None as val_auc
    "recipe": {*RECIPES},
    "validation": {"logits?": [float], "labels?": [{0, 1}], "patients?": [str], "sides?": [str]},  # None as val_auc
    "state_dict": {str: Tensor},
    "frozen": [str],  # names of parameters and buffers
    "parent": str,  # sha256 of the file it started from, or "random"
    "cohort": str,  # sha256 of the split
    "patients_seen": {str: [str]},  # training and validation patient -> SHA-256 of each of its scans
    "settings": {
        "preprocessing?": PREPROCESSING, "weights?": str, "train_patients?": (int, None), "seed?": Within(0, 2**63),
        "folds?": str,  # sha256 of who is in which fold
        "profile?": {
            "patients": int, "scanner": {str: {str: int}},
            "numbers": {str: {"n": int, "percentiles": Row(*[float] * 5)}},
        },
    },
}  # fmt: skip
MORE = {  # the shape of keys that only some have
    "types?": [str],  # of tumours
    "resume?": {"optimizer": {"state": dict, "param_groups": list}, "history": [{"epoch": int}]},  # of last.pt
}


class Parent(NamedTuple):
    """What a run starts from: a checkpoint of this suite, or published weights under its names."""

    path: Path
    checkpoint: dict[str, Any]  # KEYS; or as tss.training.pretrained makes it, with "phase" None

    @property
    def from_tumours(self) -> bool:
        return self.checkpoint.get("task") in TUMOURS.values()

    @property
    def origin(self) -> str:
        """The first weights, for Table 2: "phase 1", "Models Genesis", "ResNet-18", ..."""
        phase = self.checkpoint["phase"]
        return self.checkpoint["name"] if phase is None else f"phase {phase}"

    def __str__(self) -> str:
        """The file, and in a few words what it is."""
        about = self.checkpoint
        if about["phase"] is None:
            return f"{self.path} ({'' if self.from_tumours else 'published weights of '}{about['name']})"
        auc = "" if about["val_auc"] is None else f", val auc {about['val_auc']:.4f}"
        return f"{self.path} (phase {about['phase']}, epoch {about['epoch']}{auc})"


def write_checkpoint(path: str | os.PathLike, checkpoint: dict) -> None:
    """Write a checkpoint, whole. The same content gives the same bytes, so that hashes of parents can be compared."""
    content = io.BytesIO()  # torch.save to a path would store the path's name in the file, and hide a full disk
    torch.save(_rebuilt(checkpoint), content)
    write_whole(path, lambda beside: beside.write_bytes(content.getbuffer()))


def _rebuilt(value: object) -> object:
    """Return plain values made anew, in which equal strings are one object and no two containers are.

    pickle writes what it meets again as a reference, so that what was read from a file would be written otherwise.
    """
    if isinstance(value, dict):
        return {_rebuilt(name): _rebuilt(item) for name, item in value.items()}
    if type(value) is tuple:
        return tuple(_rebuilt(item) for item in value)
    if type(value) is list:
        return [_rebuilt(item) for item in value]
    return sys.intern(value) if type(value) is str else value


def read_torch_file(path: str | os.PathLike) -> object:
    """Read what torch.save wrote, if it is tensors and plain values only, onto the CPU.

    Raises InputError: missing, cut short, damaged, or holding code instead of tensors.
    """
    content = io.BytesIO(
        read_bytes(path, "Give a checkpoint that run_train.py left, for example runs/2d/phase1/best.pt.")
    )
    in_zip = zipfile.is_zipfile(content)  # not before torch 1.6, and many published files are older
    try:
        damaged = zipfile.ZipFile(content).testzip() if in_zip else None  # torch.load overlooks a flipped bit
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is cut short, damaged, or not a checkpoint. {REMEDY}") from error
    if damaged:
        raise InputError(f"{path} is damaged: the checksum of {damaged} is wrong. {REMEDY}")
    try:
        content.seek(0)
        return torch.load(content, map_location="cpu", weights_only=True)
    except (*NOT_TENSORS, OSError) as error:
        if not in_zip:
            raise InputError(f"{path} is cut short, damaged, or not a checkpoint. {REMEDY}") from error
        if isinstance(error, pickle.UnpicklingError):
            raise InputError(
                f"{path} holds more than tensors and plain values: another program wrote it, or it holds "
                "code that would run on loading. Nothing of it was run. Give a checkpoint of run_train.py."
            ) from error
        raise InputError(f"{path} is a zip file, but not a checkpoint. {REMEDY}") from error


def load_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Read a checkpoint of this suite onto the CPU.

    Raises InputError: as read_torch_file(); or another program wrote it.
    """
    return check_checkpoint(path, read_torch_file(path))


def check_checkpoint(path: str | os.PathLike, checkpoint: object) -> dict[str, Any]:
    """Refuse what is not a checkpoint of this suite and version, whole and consistent: the gate for all of them.

    Raises InputError: keys, types or ranges are not those of KEYS; task and phase, or network and tensors do not belong
    together; tensors are not plain finite numbers.
    """
    if not isinstance(checkpoint, dict) or "format" not in checkpoint:
        raise InputError(
            f"{path} is not a checkpoint of this suite: it has no 'format'. Give a checkpoint of run_train.py."
        )
    if checkpoint["format"] != FORMAT:
        raise InputError(
            f"{path} has the format {checkpoint['format']!r:.40}, this version reads {FORMAT!r}. "
            "Use the version of the suite that wrote it."
        )
    task = checkpoint.get("task")
    shape = KEYS | MORE
    if task == RESTORE or task in TUMOURS.values():
        shape |= dict.fromkeys(("val_auc", "threshold", "validation"))
    if task in TUMOURS.values():
        shape |= {"phase": None, "types": [str], "name": str}
    why = why_not(checkpoint, shape)
    if not why and checkpoint["phase"] is not None:
        phase = PAPER[checkpoint["phase"]]
        if (task, checkpoint["attention"]) != (phase.task, phase.attention):
            why = f"phase {phase.number} is not of task {task} with attention {checkpoint['attention']}"
    why = why or why_not_numbers(checkpoint["state_dict"]) or _why_not_its_own(checkpoint)
    if why:
        raise InputError(f"{path}: {why}. The file was changed or damaged. {REMEDY}")
    return checkpoint


def why_not_numbers(tensors: dict[str, Tensor]) -> str:
    """Say which tensor is no plain array of finite numbers in memory; "" where all are."""
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_complex():
            return f"tensor {name} is sparse, quantised, complex or without values"
        if not torch.isfinite(tensor).all():
            return f"tensor {name} has values that are NaN or infinite"
    return ""


def _why_not_its_own(checkpoint: dict[str, Any]) -> str:
    """Say in what the tensors do not match the network that the checkpoint describes, before that takes memory."""
    try:
        with torch.device("meta"):
            expected = network_of(checkpoint).state_dict()
    except InputError as error:
        return str(error)
    given = checkpoint["state_dict"]
    odd = sorted(expected.keys() ^ given.keys()) or [
        name
        for name, tensor in expected.items()
        if (tensor.shape, tensor.dtype) != (given[name].shape, given[name].dtype)
    ]
    described = f"model {checkpoint['model']}, width {checkpoint['width']}, grid {checkpoint['grid']}"
    return f"its tensors do not match its own description ({described}), first {odd[0]}" if odd else ""


def network_of(about: dict[str, Any]) -> nn.Module:
    """Return a network as a checkpoint, or a run, describes it, with fresh random weights."""
    model, width, grid, attention, task = (about[key] for key in ("model", "width", "grid", "attention", "task"))
    return build_model(model, width, grid, attention, task, len(about.get("types", ())), about["recipe"])


def load_model(path: str | os.PathLike) -> tuple[nn.Module, dict[str, Any]]:
    """Rebuild the network of a checkpoint, in evaluation mode on the CPU; returns (network, checkpoint).

    Raises InputError: as load_checkpoint(); or its phase has not come to its end.
    """
    checkpoint = load_checkpoint(path)
    refuse_unfinished(path, checkpoint)
    network = network_of(checkpoint)
    network.load_state_dict(checkpoint["state_dict"])
    return network.eval(), checkpoint


def refuse_unfinished(path: str | os.PathLike, checkpoint: dict[str, Any]) -> None:
    """Refuse an epoch before the last of a phase that keeps its last one, whatever an interrupted job has left there.

    Where a phase keeps the best epoch, an earlier one is a result too.
    """
    phase, epochs = RECIPES[checkpoint["recipe"]].get(checkpoint["phase"]), checkpoint["settings"].get("epochs")
    if phase and phase.keeps == "last" and isinstance(epochs, int) and checkpoint["epoch"] < epochs:
        raise InputError(
            f"{path} is of epoch {checkpoint['epoch']} of {epochs}, and phase {phase.number} of the {phase.recipe} "
            "recipe is its last epoch: it was interrupted, or still runs. Finish it first: the same command with "
            "--resume."
        )


def check_parent(parent: Parent, phase: Phase, wanted: dict[str, Any], tested: Hashes) -> None:
    """Refuse to start `phase` from a parent that does not belong before it.

    wanted: model, width, grid and fold of the new run, which must be the parent's, and its cohort. tested: the new
    run's test patients, none of whom the parent may have seen. Published weights and those of tumours have no phase,
    grid or cohort to compare.
    """
    path, given = parent
    foreign = given["phase"] is None
    number = phase.parent_of(wanted["model"])
    if not foreign and given["phase"] != number:
        expected = (
            "random weights; omit --init"
            if number is None
            else f"a checkpoint of phase {number} ({PAPER[number].task})"
        )
        raise InputError(
            f"phase {phase.number} starts from {expected}. {path} was written by phase "
            f"{given['phase']} ({given['task']})."
        )
    if not foreign:
        refuse_unfinished(path, given)
    if not foreign and phase.number > 1 and given["recipe"] != phase.recipe:
        raise InputError(
            f"{path} was trained by --recipe {given['recipe']}, this run has --recipe {phase.recipe}. Omit --recipe to "
            "take the file's."
        )
    if parent.from_tumours and phase.recipe != "paper":
        raise InputError(f"{path} was trained on tumours, for the paper's recipe to be compared with. Omit --recipe.")
    if foreign and phase.recipe != "paper" and phase.number > 1:
        raise InputError(
            f"{path} ({given['name']}) finds no stroke, and phase {phase.number} of --recipe {phase.recipe} reads "
            f"where phase 1 has found it. Start there: python run_train.py --phase 1 --recipe {phase.recipe} --init "
            f"{path}"
        )
    if not foreign and (there := given["settings"].get("fold")) != (here := wanted.get("settings", {}).get("fold")):
        one, other = (f"--fold {fold}" if fold else "no --fold" for fold in (there, here))
        raise InputError(
            f"{path} was trained with {one}, this run has {other}: it has learned from patients that are validated on "
            "here. Give the same --fold in each phase."
        )
    drawings = {run.get("settings", {}).get("folds") for run in (given, wanted)} - {None}
    if len(drawings) > 1:
        raise InputError(
            f"{path} was trained on other folds than --data has now, where status or split of patients has changed "
            "since: it has learned from patients that are validated on here. Give the data it was trained on, or train "
            "this fold from the first phase on."
        )
    for key in ("model", "width") if foreign else ("model", "width", "grid"):
        if given[key] != wanted[key]:
            name, same_grid = (f" ({given['name']})", "") if foreign else ("", ", and give --data of the same grid")
            raise InputError(
                f"{path}{name} has {key} {given[key]}, this run has {wanted[key]}. Omit --model and --width to take "
                f"the file's{same_grid}."
            )
    if parent.from_tumours and phase.number not in FROM_TUMOURS:
        raise InputError(
            f"{path} was trained on tumours, for phases 2 and 3 to be compared with (Table 2). "
            f"Phase {phase.number} does not start from it: give --init another file."
        )
    if not foreign and (why := why_not_new(tested, given["patients_seen"], given["cohort"] == wanted["cohort"])):
        raise InputError(
            f"{path} was trained on another split of patients ({given['cohort'][:12]}) than --data has "
            f"({wanted['cohort'][:12]}), and it {why}; they are in this test set. Give the data it was trained on, or "
            "train from the first phase on this data."
        )


def start_from(network: nn.Module, parent: Parent) -> str:
    """Copy a parent's tensors into a network; returns how many were loaded, are new and were left over, and why.

    New may only be the attention gates where the parent has none, and the classifier after a parent with another task:
    it restored volumes (its decoder is then left over), or detected strokes. What is new keeps the random weights that
    the network was built with, so that a new classifier starts as one behind random weights does (decision 6). At zero
    it would pass no gradient back, and at the paper's rates no layer behind it would ever move (decision 17). Only what
    new gates let through counts nothing at first.
    """
    path, checkpoint = parent
    given = dict(checkpoint["state_dict"])
    if parent.from_tumours:
        return load_tensors(network, given, NEW_AFTER_TUMOURS, LEFT_BY_TUMOURS, path)
    if checkpoint["phase"] is None:  # published weights, with reasons of their own
        return load_tensors(network, given, checkpoint["may_be_new"], checkpoint["may_be_left"], path)
    may_be_new: dict[str, str] = {}
    may_be_left: dict[str, str] = {}
    if not checkpoint["attention"]:
        may_be_new |= {"gate": "phase 4 adds the gates"}
    if checkpoint["task"] == RESTORE and not hasattr(network, "out"):
        may_be_new |= {"classifier": "phase 0 has none"}
        may_be_new |= dict.fromkeys(OF_EVIDENCE, "phase 0 looks for no evidence")
        may_be_left |= DECODER
    elif checkpoint["task"] == "stroke":
        # To hemispheres with a stroke it says "yes" at once: phase 2's loss would start at 2.8, where a guess has 0.7.
        may_be_new |= {"classifier": "phase 1 has another task"}
        given = {name: tensor for name, tensor in given.items() if not name.startswith("classifier")}
    return load_tensors(network, given, may_be_new, may_be_left, path)


def load_tensors(
    network: nn.Module, given: dict[str, Tensor], may_be_new: dict[str, str], may_be_left: dict[str, str], path: Path
) -> str:
    """Copy tensors into a network by name; any unexpected difference stops the run.

    may_be_new, may_be_left: how a tensor's name may begin -> why it is in the network only, or in `given` only.
    Returns a phrase with all counts and reasons.
    """
    own = network.state_dict()
    shared = own.keys() & given.keys()
    new, missing = sort_out(own.keys() - given.keys(), may_be_new)
    left, unknown = sort_out(given.keys() - own.keys(), may_be_left)
    misshapen = sorted(name for name in shared if own[name].shape != given[name].shape)
    for problem, names in {"missing": missing, "left over": unknown, "of another shape": misshapen}.items():
        if names:
            raise InputError(
                f"{path}: {len(names)} tensors {problem}, first {names[0]}. The file does not match its own "
                f"description, or is not what it seems to be; nothing was loaded. {REMEDY}"
            )
    # The columns of new gates may start at zero, since they have a rate of their own and leave it with the first step:
    # so phase 4 starts as exactly phase 3's function.
    zero = {name: torch.zeros_like(own[name]) for name in own.keys() - shared if name.startswith("gate_classifier")}
    network.load_state_dict({name: given[name] for name in shared} | zero, strict=False)
    return f"{len(shared)} tensors loaded, {counts_in_words(new)} new, {counts_in_words(left)} left over"


def sort_out(names: Iterable[str], expected: dict[str, str]) -> tuple[dict[str, int], list[str]]:
    """Count names by the reason for which they were expected; returns the counts, and the unexpected names."""
    reasons = {name: next((why for begin, why in expected.items() if name.startswith(begin)), None) for name in names}
    counts = Counter(why for why in reasons.values() if why)
    return dict(sorted(counts.items())), sorted(name for name, why in reasons.items() if not why)


def counts_in_words(counts: dict[str, int]) -> str:
    """{"phase 0 has none": 2} -> "2 (phase 0 has none)"."""
    return f"{sum(counts.values())} ({'; '.join(counts)})" if counts else "0"


def prove_frozen(path: Path, names: Sequence[str], parent: Parent) -> None:
    """Raise unless every named parameter and buffer in the file is bit-equal to the parent's."""
    state = load_checkpoint(path)["state_dict"]
    given = parent.checkpoint["state_dict"]
    # By their bytes: torch.equal takes -0 for 0.
    changed = [name for name in names if state[name].numpy().tobytes() != given[name].numpy().tobytes()]
    if changed:
        raise AssertionError(f"{path}: frozen tensors changed: {', '.join(changed)}. This is a bug in the suite.")
