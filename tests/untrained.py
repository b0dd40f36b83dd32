"""Checkpoints that nobody trained: right in form, made in milliseconds."""

import torch

from tss.data.patients_seen import hashes_of
from tss.data.prepared import read_prepared, read_settings
from tss.data.splits import split_hash
from tss.training import checkpoint
from tss.training.phases import PAPER, build_model


def save_checkpoint(path, phase, data=None, threshold=0.5, seed=0, **changed):
    """Write a checkpoint of `phase` that fits DATA; `changed` replaces any of its keys. Returns its path as text."""
    about = {"grid": [32, 32, 4], "cohort": "0" * 64, "patients_seen": {}, "settings": {}, "recipe": "paper"}
    if data:
        settings = read_settings(data)
        about |= {
            "grid": settings["grid"],
            "cohort": split_hash(read_prepared(data)),
            "patients_seen": hashes_of(data, [p for p in read_prepared(data) if p.split in ("train", "val")]),
            "settings": {"preprocessing": settings},
        }
    about |= changed
    torch.manual_seed(seed)
    model, width = about.pop("model", "2d"), about.pop("width", 4)
    network = build_model(
        model, width, about["grid"], PAPER[phase].attention, PAPER[phase].task, recipe=about["recipe"]
    )
    checkpoint.write_checkpoint(
        path,
        {
            "format": checkpoint.FORMAT,
            "model": model,
            "width": width,
            "phase": phase,
            "attention": PAPER[phase].attention,
            "task": PAPER[phase].task,
            "epoch": 1,
            "val_auc": 0.5,
            "threshold": threshold,
            "validation": None
            if phase == 0
            else {"logits": [-0.5, 0.5], "labels": [0, 1], "patients": ["v1", "v2"], "sides": ["left"] * 2},
            "state_dict": network.state_dict(),
            "frozen": [],
            "parent": "random",
            **about,
        },
    )
    return str(path)
