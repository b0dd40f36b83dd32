"""Checkpoints of several folds, or seeds, as one model, judged on patients that its members have not learned from.

In:  open checkpoints of one phase, recipe and cohort: of every fold equally many, or of none.
Out: a Model whose logit is the mean of theirs. Its threshold and its calibration come from the out-of-fold predictions:
     of each training or validation patient the logit, or the mean of the logits, of the members that were validated on
     it. Of seeds without folds these are the validation patients alone.
Paper: none; threshold by decision 8.
See: tests/evaluation/test_ensemble.py

A patient's out-of-fold logit is of the members of one fold, a new patient's the mean of all, which varies less: the
calibration is a little too cautious, never the other way.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import reduce

import numpy as np

from tss.data.patients_seen import together
from tss.data.prepared import differing_settings
from tss.errors import InputError
from tss.evaluation.inference import Model, side_picker
from tss.metrics import youden_threshold
from tss.metrics.platt import AS_IT_IS, fit_line
from tss.models.ensemble import Ensemble
from tss.training.epoch import probability

ALIKE = ("model", "width", "phase", "task", "recipe", "attention", "grid", "cohort")


def as_ensemble(models: Sequence[Model]) -> Model:
    """Return one model out of several.

    Raises InputError: fewer than two, not of one kind, cohort and preprocessing, or a fold is missing.
    """
    if len(models) < 2:
        raise InputError("--ensemble needs two checkpoints or more, of the folds or of several seeds.")
    for model in models[1:]:
        for key in ALIKE:
            one, other = (str(each.checkpoint.get(key))[:20] for each in (models[0], model))
            if one != other:
                raise InputError(
                    f"{models[0].path} has {key} {one}, {model.path} has {other}: they are no ensemble. Give the same "
                    "phase of each fold or seed, and nothing else."
                )
        one, other = (each.checkpoint["settings"].get("preprocessing", {}) for each in (models[0], model))
        if differs := differing_settings(one, other):
            raise InputError(
                f"{models[0].path} and {model.path} were trained on hemispheres that were preprocessed with different "
                f"settings: {differs}. Train all members on one DATA."
            )
    check_folds(models)
    pooled = out_of_fold(models)
    labels, logits = np.array(pooled["labels"]), np.array(pooled["logits"])
    line = fit_line(labels, logits, slope=True)
    line = line if line.slope > 0 else AS_IT_IS  # scores that say nothing are not turned round
    threshold = probability(line.of(youden_threshold(labels, logits))).item()
    changed = {
        "threshold": threshold,
        "validation": pooled,
        "patients_seen": reduce(together, (model.checkpoint["patients_seen"] for model in models)),
    }
    first = models[0]
    network = Ensemble(model.network for model in models).eval()
    files = tuple(model.path for model in models)
    return Model(first.path, f"ensemble-of-{len(models)}", network, first.checkpoint | changed, files, line)


def check_folds(models: Sequence[Model]) -> None:
    """Refuse folds of different numbers or drawings, some without a fold, or a fold that is missing: its patients would
    be too."""
    folds = [model.checkpoint["settings"].get("fold") for model in models]
    if not any(folds):
        return
    if not all(folds) or len({fold.split("/")[1] for fold in folds}) > 1:
        raise InputError(
            "--ensemble needs checkpoints that were trained with one N of --fold K/N, and got: "
            + ", ".join(f"{model.path} {fold or 'none'}" for model, fold in zip(models, folds, strict=True))
        )
    if len({model.checkpoint["settings"].get("folds") for model in models} - {None}) > 1:
        raise InputError(
            "--ensemble needs folds of one drawing: these checkpoints were trained on data in which status or split of "
            "patients has changed in between, so that some patients are validated on twice and others never. Train all "
            "folds on one DATA."
        )
    parts, counts = int(folds[0].split("/")[1]), Counter(int(fold.split("/")[0]) for fold in folds)
    if missing := [part for part in range(1, parts + 1) if not counts[part]]:
        raise InputError(
            f"--ensemble has no checkpoint of fold {', '.join(map(str, missing))} of {parts}, whose patients choose "
            f"the threshold too. Train it: python run_train.py --phase all --fold {missing[0]}/{parts}"
        )
    if len(set(counts.values())) > 1:
        raise InputError(
            f"--ensemble needs equally many checkpoints of each fold, and has {dict(sorted(counts.items()))} "
            "(fold: how many). Give one of each."
        )


def out_of_fold(models: Sequence[Model]) -> dict[str, list]:
    """Return logits, labels, patients and sides of all hemispheres that some member was validated on.

    Where several members were, the logit is their mean.
    """
    logits, labels = defaultdict[tuple[str, str], list[float]](list), dict[tuple[str, str], int]()
    for model in models:
        given = model.checkpoint["validation"]
        if not given.get("patients"):
            raise InputError(f"{model.path} holds no predictions of its validation patients. Train its phase again.")
        lines = zip(given["patients"], given["sides"], given["logits"], given["labels"], strict=True)
        for patient, side, logit, label in lines:
            if labels.setdefault((patient, side), label) != label:
                raise InputError(
                    f"{model.path}: the label of {patient} is another than in {models[0].path}. Train all "
                    "members on one DATA."
                )
            logits[patient, side].append(logit)
    return {
        "logits": [float(np.mean(values)) for values in logits.values()],
        "labels": list(labels.values()),
        "patients": [patient for patient, _ in logits],
        "sides": [side for _, side in logits],
    }


def picker_of(models: Sequence[Model]) -> Model | None:
    """Return the ensemble of the members' own phase 1, which finds the side; None where one of them has none."""
    pickers = [side_picker(model, ()) for model in models]
    found = [picker for picker in pickers if picker]
    return as_ensemble(found) if len(found) == len(models) else None
