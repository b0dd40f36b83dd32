"""From prepared hemispheres to a patient's probability: which checkpoint, which side, which line of the table.

In:  checkpoints; patients; DATA/hemispheres/<patient>.npy (2, C, D, H, W).
Out: Predictions, one line a hemisphere (task "stroke") or a patient (TSS tasks).
Paper: 2.3 (what each task is about); unknown and both sides are ours (decision 14).
See: tests/evaluation/test_inference.py
"""

import hashlib
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from tss.data.cohort import SIDES, Patient
from tss.data.files import sha256
from tss.data.prepared import read_hemispheres
from tss.data.tasks import RESTORE, TUMOURS, lines_of
from tss.errors import InputError
from tss.metrics.platt import AS_IT_IS, Line
from tss.training.checkpoint import load_model
from tss.training.epoch import predict, probability

SECONDS_BETWEEN_LINES = 15
MOST_NAMES = 8  # our choice: patients named in a line; predictions.csv names them all
VERDICTS = CALLED_POSITIVE, CALLED_NEGATIVE, UNSURE = ("positive", "negative", "unsure")
CLOSE = 0.02  # our choice, in logits: run_eval.py's and bf16's differ by some hundredths; another seed's by far more
# How the side of a prediction is known.
EACH, TABLE, LIKELIER, BY_PHASE_1 = ("each hemisphere", "table", "table: both, the likelier", "phase 1")


class Cuts(NamedTuple):
    """Whom a model calls: positive above `upper`, negative below `lower`, as probabilities; None: nobody."""

    promise: float  # of PPV and NPV
    lower: float | None
    upper: float | None
    takes_for_ppv: int  # patients, an estimate; 0: no number
    takes_for_npv: int
    n: int  # patients that the cuts were chosen on
    n_positive: int


class Model(NamedTuple):
    """An open checkpoint: its file, a short name, the network in eval mode, and what was stored with it."""

    path: Path
    name: str
    network: nn.Module
    checkpoint: dict
    files: tuple[Path, ...] = ()  # of an ensemble: its members
    line: Line = AS_IT_IS  # what recalibrates its logits
    cuts: Cuts | None = None  # None: everybody is called, by the threshold

    @property
    def task(self) -> str:
        return self.checkpoint["task"]

    @property
    def threshold(self) -> float:
        return self.checkpoint["threshold"]

    @property
    def of_folds(self) -> bool:
        """Is it an ensemble of folds, whose threshold is from patients that only some members have not learned from?"""
        return bool(self.files and self.checkpoint["settings"].get("fold"))

    @property
    def sha256(self) -> str:
        """The hash of the checkpoint; of an ensemble that of its members' hashes."""
        hashes = [sha256(path) for path in self.files or (self.path,)]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()

    @property
    def named_files(self) -> str:
        """The checkpoint's path; of an ensemble all of them."""
        return ", ".join(map(str, self.files or (self.path,)))

    def verdict(self, probability: float) -> str:
        """Return one of VERDICTS, by the threshold that validation chose (decision 8), or by the cuts of a promise."""
        if not self.cuts:
            return verdict_on(probability, self.threshold)
        if self.cuts.upper is not None and probability > self.cuts.upper:
            return CALLED_POSITIVE
        if self.cuts.lower is not None and probability < self.cuts.lower:
            return CALLED_NEGATIVE
        return UNSURE


def in_words(probability: float, threshold: float, verdict: str = "", cuts: Sequence[float | None] = ()) -> str:
    """Write probability, what decides and the verdict, with the digits that decide where three do not.

    A toss-up is said to be one: closer to what decides than CLOSE in logits.

    verdict, cuts: where a promise has decided, and not the threshold; negative below the first, positive above the
        second, None where nobody is called so.
    """
    names = ("negative below", "positive above") if cuts else ("threshold",)
    limits = {name: limit for name, limit in zip(names, cuts or (threshold,), strict=True) if limit is not None}
    digits = 3
    while digits < 17 and any(
        probability != limit and f"{probability:.{digits}f}" == f"{limit:.{digits}f}" for limit in limits.values()
    ):
        digits += 1
    words = verdict or verdict_on(probability, threshold)
    if words != UNSURE and any(too_close(probability, limit) for limit in limits.values()):
        words += ", but too close to call"
    return f"{probability:.{digits}f}{''.join(f', {n} {limit:.{digits}f}' for n, limit in limits.items())}: {words}"


def verdict_on(probability: float, threshold: float) -> str:
    """Return one of VERDICTS (decision 8)."""
    return CALLED_POSITIVE if probability >= threshold else CALLED_NEGATIVE


def too_close(probability: float, threshold: float) -> bool:
    """Are probability and threshold, or a cut, closer than CLOSE in logits? At 0.5 that is 0.005; near 0 and 1 less."""
    if not (0 < probability < 1 and 0 < threshold < 1):
        return probability == threshold
    one, other = (math.log(p) - math.log1p(-p) for p in (probability, threshold))
    return abs(one - other) < CLOSE


class Prediction(NamedTuple):
    """One line of predictions.csv: a hemisphere (task "stroke") or a patient (TSS tasks)."""

    patient: str
    side: str  # the hemisphere that the probability is of; where there is none, what the cohort says
    label: int  # 1, 0, or -1 = unknown
    probability: float | None
    reason: str = ""  # why there is no probability
    side_from: str = ""  # how the side is known: EACH, TABLE, ...

    @property
    def chance(self) -> float:
        """The probability of a line that has one."""
        if self.probability is None:
            raise ValueError(f"{self.patient} has no probability: {self.reason}")
        return self.probability


def open_models(paths: Sequence[str]) -> list[Model]:
    """Open checkpoints and name them: phase4 for phase4/best.pt, with more of the path where two would be alike."""
    whole = [Path(os.path.realpath(path)) for path in paths]
    if twice := sorted({str(path) for path in whole if whole.count(path) > 1}):
        raise InputError(f"{', '.join(twice)} is given twice. Name each checkpoint once.")
    trails = [
        path.parent.parts[1:] if path.name == "best.pt" else (*path.parent.parts[1:], path.stem) for path in whole
    ]
    for depth in range(1, max(map(len, trails)) + 1):
        names = ["-".join(trail[-depth:]) for trail in trails]
        if len({name.casefold() for name in names}) == len(names):
            break
    else:
        raise InputError(f"the names of {', '.join(map(str, paths))} cannot be told apart. Rename one.")
    models = [Model(Path(path), name, *load_model(path)) for path, name in zip(paths, names, strict=True)]
    if restoring := [str(model.path) for model in models if model.task == RESTORE]:
        raise InputError(
            f"{', '.join(restoring)} is of phase 0, which restores volumes and classifies nothing. Omit "
            "it; its error is in log.csv beside it."
        )
    if tumours := [str(model.path) for model in models if model.task in TUMOURS.values()]:
        raise InputError(
            f"{', '.join(tumours)} was learned from tumours and says nothing about strokes. Omit it; "
            "phases 2 and 3 start from it (--init)."
        )
    return models


def side_picker(model: Model, models: Sequence[Model]) -> Model | None:
    """Return phase 1's model, which finds the side where it is unknown: one of those given, or ../phase1/best.pt."""
    given = [other for other in models if other.task == "stroke"]
    if given:
        return min(given, key=lambda other: other.checkpoint["model"] != model.checkpoint["model"])
    beside = Path(os.path.realpath(model.path)).parent.parent / "phase1" / "best.pt"
    return Model(beside, "phase1", *load_model(beside)) if beside.is_file() else None


def predict_patients(
    model: Model, picker: Model | None, patients: list[Patient], data: str, device: torch.device
) -> list[Prediction]:
    """Predict each patient, failed ones too: they get a line without a probability."""
    predictions, said = [], time.monotonic()
    for number, patient in enumerate(patients, 1):
        if patient.status != "ok":
            predictions += [
                Prediction(patient.id, *line, None, patient.reason) for line in lines_of(patient, model.task)
            ]
            continue
        predictions += predict_patient(model, picker, patient, hemispheres_of(patient, model, data), device)
        if time.monotonic() - said > SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            print(f"  {number} of {len(patients)} patients", flush=True)
    if picker and (chosen := [line for line in predictions if line.side_from == BY_PHASE_1]):
        named = ", ".join(f"{line.patient} {line.side}" for line in chosen[:MOST_NAMES])
        more = ", ..." if len(chosen) > MOST_NAMES else ""
        print(f"  side unknown of {len(chosen)} patients; chosen by {picker.path}: {named}{more}", flush=True)
    return predictions


def hemispheres_of(patient: Patient, model: Model, data: str) -> torch.Tensor:
    """Return (2, C, D, H, W) float16 in [0, 1]: left, and right mirrored."""
    return torch.from_numpy(read_hemispheres(data, patient.id, model.checkpoint["grid"]))


def predict_patient(
    model: Model, picker: Model | None, patient: Patient, hemispheres: torch.Tensor, device: torch.device
) -> list[Prediction]:
    """Predict one patient from (2, C, D, H, W) hemispheres: two lines for "stroke", one for TSS (decision 14)."""
    lines = lines_of(patient, model.task)
    if model.task == "stroke":
        chances = probabilities(model, hemispheres, device)
        return [Prediction(patient.id, side, label, chances[side], side_from=EACH) for side, label in lines]
    ((side, label),) = lines
    side_from = LIKELIER if side == "both" else TABLE
    if not side:
        if picker is None:
            return [Prediction(patient.id, "", label, None, "side unknown, and no checkpoint of phase 1 to find it")]
        side, side_from = strokes_side(picker, hemispheres, device), BY_PHASE_1
    sides = SIDES if side == "both" else (side,)
    chances = probabilities(model, hemispheres, device, sides)
    side = max(sides, key=chances.__getitem__)
    return [Prediction(patient.id, side, label, chances[side], side_from=side_from)]


def probabilities(
    model: Model, hemispheres: torch.Tensor, device: torch.device, sides: Sequence[str] = SIDES
) -> dict[str, float]:
    """Return side -> probability of the positive class, for (2, C, D, H, W) hemispheres.

    Each hemisphere is a batch of its own: a patient's probability is the same to the last bit whatever else is asked.
    """
    chosen = hemispheres[[SIDES.index(side) for side in sides]]
    try:
        logits = predict(model.network.to(device), chosen, 1, device, "fp32")
    except FloatingPointError as error:
        raise InputError(f"{model.path}: {error}. Train its phase again.") from error
    if model.line != AS_IT_IS:
        logits = model.line.of(logits)
    return dict(zip(sides, probability(logits).tolist(), strict=True))


def strokes_side(picker: Model, hemispheres: torch.Tensor, device: torch.device) -> str:
    """Return the side with the higher stroke probability."""
    chances = probabilities(picker, hemispheres, device)
    return max(SIDES, key=chances.__getitem__)
