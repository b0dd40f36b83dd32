"""The older methods on one's own patients, as predictions that are scored like a network's.

In:  DATA as run_preprocess.py leaves it (registered/<patient>_*.nii.gz); a method, a task, a split.
Out: Baseline: Predictions and a threshold, for tss.evaluation.scores; scored on those the method can process and on all.
Paper: 3, Table 2 ("only 221 of our original 422 patients had large enough ROI"); the tissue clock is FIELD 2c.
See: tests/evaluation/test_older_methods.py

    measured = measure(data)                                   # once: every patient of DATA, all splits
    baseline = predict(measured, "Lee 2020", "tss<4.5h", "test")
    possible, everybody = figures(baseline)                    # two rows of a table

Fitted on the training split alone; settings and the threshold (Youden's J) are chosen on validation (decision 8).
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tss.baselines import classifiers, lee2020, tissue_clock
from tss.baselines.infarct_roi import find_infarct, make_maps
from tss.data.cohort import Patient
from tss.data.nifti import load, voxel_sizes
from tss.data.prepared import read_prepared, registered_file
from tss.data.tasks import POSITIVE, TASKS, lines_of
from tss.errors import InputError
from tss.evaluation.inference import SECONDS_BETWEEN_LINES, Prediction
from tss.evaluation.scores import coverage, proportions, score
from tss.metrics import confusion, youden_threshold

CLOCKS = {f"tissue clock, {name.upper()}": name for name in tissue_clock.SEQUENCES}
METHODS = (*CLOCKS, "Lee 2020", *(f"Lee 2020, {name}" for name in lee2020.CLASSIFIERS))
TABLE2 = (*CLOCKS, "Lee 2020")  # each of Lee's three classifiers alone is not in it
FEWEST_OF_A_CLASS = 2  # our choice: training and validation patients; Welch's test needs a variance in each class
# FIELD 4.4: a method is not better for leaving out whom it cannot process.
AGAINST = "Patients that the method cannot process are counted against it: each as if called wrongly."


class Measured(NamedTuple):
    """What one patient's region says; empty where there is none, with the reason."""

    patient: Patient
    ratios: dict[str, float]  # of tss.baselines.tissue_clock
    features: dict[str, float]  # of tss.baselines.lee2020
    reason: str = ""


class Baseline(NamedTuple):
    """A method's answer: one Prediction for each patient of the split, whatever became of it."""

    method: str
    task: str
    split: str
    predictions: list[Prediction]
    everybody: list[Prediction]  # the same, with the method's failures counted against it: see AGAINST
    threshold: float
    chosen: str  # what was chosen on training and validation patients, in words
    cutoffs: list[dict]  # the tissue clock's published cut-offs, with their figures on this split


def measure(data: str, drawn: bool = False) -> list[Measured]:
    """Measure every patient of DATA, in the table's order; 0.1 s each at half the paper's grid, under 1 s at its own.

    drawn: take the lesion masks of the cohort instead of finding the infarct.

    Raises:
        InputError: DATA is no prepared folder, or a file of a prepared patient is missing or unreadable.
    """
    measured, said = [], time.monotonic()
    patients = read_prepared(data)
    for number, patient in enumerate(patients, 1):
        measured.append(measure_patient(patient, data, drawn))
        if time.monotonic() - said > SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            print(f"  {number} of {len(patients)} patients measured", flush=True)
    return measured


def measure_patient(patient: Patient, data: str, drawn: bool = False) -> Measured:
    """Measure one patient; what the method cannot do with it becomes the reason."""
    if patient.status != "ok":
        return Measured(patient, {}, {}, patient.reason)
    lesion = registered_file(data, patient.id, "lesion")
    if drawn and not lesion.is_file():
        return Measured(patient, {}, {}, "no lesion mask")
    scans = {kind: load(registered_file(data, patient.id, kind)) for kind in ("dwi", "t2w", "flair", "mask")}
    brain = scans["mask"].data > 0
    try:
        maps = make_maps(
            *(scans[kind].data for kind in ("dwi", "t2w", "flair")), brain, voxel_sizes(scans["mask"].affine)
        )
        region = load(lesion).data > 0 if drawn else find_infarct(maps)
        region = region & brain
        if not region.any():
            raise InputError("the lesion mask lies outside the brain")
        features = lee2020.infarct_features(maps, region)
    except InputError as error:
        return Measured(patient, {}, {}, str(error))
    try:
        return Measured(patient, tissue_clock.clock_ratios(maps, region), features)
    except InputError as error:
        return Measured(patient, {}, features, str(error))


def predict(measured: list[Measured], method: str, task: str, split: str, seed: int = 0) -> Baseline:
    """Fit one of METHODS to the training patients and predict the patients of a split.

    "Lee 2020" is the one of its three classifiers with the best AUC on validation patients.

    Raises:
        InputError: no such method, a task without a time, an empty split, or too few patients to fit or choose.
    """
    if method not in METHODS:
        raise InputError(f"{method!r} is none of the methods {', '.join(METHODS)}.")
    if TASKS.get(task) is None:
        raise InputError(
            f"{method} tells times apart; the task {task!r} is not about time. Give "
            f"{' or '.join(name for name, limit in TASKS.items() if limit is not None)}."
        )
    chosen = [one for one in measured if one.patient.split == split]
    if not chosen:
        raise InputError(f"there is no patient in the split {split!r}. Give another one.")
    train, val = (_known(measured, method, task, name) for name in ("train", "val"))
    probability, words = _fit(method, train, val, seed)
    threshold = youden_threshold(val[1], probability(val[0]))
    predictions, everybody = [], []
    for one in chosen:
        numbers, ((side, label),) = _numbers(one, method), lines_of(one.patient, task)
        p = float(probability(np.array([numbers]))[0]) if numbers else None
        predictions.append(Prediction(one.patient.id, side, label, p, "" if numbers else one.reason))
        failed = not numbers and label >= 0 and one.patient.status == "ok"
        everybody.append(predictions[-1]._replace(probability=1.0 - label, remark="") if failed else predictions[-1])
    cutoffs = _at_cutoffs(chosen, task) if method == "tissue clock, FLAIR" else []
    return Baseline(method, task, split, predictions, everybody, threshold, words, cutoffs)


def _numbers(one: Measured, method: str) -> list[float]:
    """Return what the method looks at, or an empty list."""
    if method in CLOCKS:
        return [one.ratios[CLOCKS[method]]] if one.ratios else []
    return list(one.features.values())


def _known(measured: list[Measured], method: str, task: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return x (N, F) and y (N,) of a split's patients that the method can process and whose time is known."""
    rows = [
        (numbers, label)
        for one in measured
        for _, label in lines_of(one.patient, task)
        if one.patient.split == split and (numbers := _numbers(one, method)) and label >= 0
    ]
    positives = sum(label for _, label in rows)
    if min(positives, len(rows) - positives) < FEWEST_OF_A_CLASS:
        raise InputError(
            f"{method}, {task}: of {len(rows)} {split} patients that it can process {positives} are "
            f"positive; it needs {FEWEST_OF_A_CLASS} of each class."
        )
    return np.array([numbers for numbers, _ in rows]), np.array([label for _, label in rows])


def _fit(method: str, train: tuple, val: tuple, seed: int) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """Return the function x (N, F) -> (N,) in 0..1, and what was chosen."""
    if method in CLOCKS:
        curve = classifiers.fit_curve(-train[0][:, 0], train[1])
        return lambda x: curve.probability(-x[:, 0]), "a logistic curve of minus the ratio"
    names = lee2020.CLASSIFIERS if method == "Lee 2020" else [method.removeprefix("Lee 2020, ")]
    models = {name: lee2020.fit_lee(train, val, name, seed) for name in names}
    name, model = max(models.items(), key=lambda item: item[1].val_auc)
    setting = "patients in a leaf" if name == "random forest" else "C"
    return model.probability, (
        f"{name}, {setting} {model.setting:g}, {len(model.columns)} features, validation AUC {model.val_auc:.3f}"
    )


def _at_cutoffs(chosen: list[Measured], task: str) -> list[dict]:
    """Return the figures of "short where FLAIR ratio <= cut-off" for each published one: points on the clock's ROC."""
    pairs = [
        (label, -one.ratios["flair"])
        for one in chosen
        for _, label in lines_of(one.patient, task)
        if one.ratios and label >= 0
    ]
    if not pairs:
        return []
    y, scores = zip(*pairs, strict=True)
    return [
        {"cutoff": cutoff, "source": source, "n": len(y)}
        | (counts := confusion(y, scores, -cutoff))._asdict()
        | proportions(*counts)
        for cutoff, source in tissue_clock.CUTOFFS.items()
    ]


def figures(baseline: Baseline) -> tuple[dict, dict]:
    """Return the scores of a baseline twice: on those that it can process, and on all with its failures counted.

    A failure's probability is 0 where the answer is 1, and 1 where it is 0. Patients that failed or were
    rejected before are in neither, as for a network.
    """
    about = {
        "method": baseline.method,
        "task": baseline.task,
        "positive_class": POSITIVE[baseline.task],
        "split": baseline.split,
        "unit": "patient",
        "chosen": baseline.chosen,
    }
    can = about | {"name": f"{baseline.method}, where it can be used", "notes": [], "cutoffs": baseline.cutoffs}
    can |= score(baseline.predictions, baseline.threshold) | coverage(baseline.predictions)
    every = about | {"name": f"{baseline.method}, all patients", "notes": [AGAINST], "cutoffs": []}
    every |= score(baseline.everybody, baseline.threshold) | coverage(baseline.everybody)
    still = every["coverage"]["no_probability"]
    every["coverage"]["counted_against"] = {
        patient: reason for patient, reason in can["coverage"]["no_probability"].items() if patient not in still
    }
    return can, every


def of_table2(data: str, tasks: Sequence[str], split: str) -> tuple[list[Baseline], list[dict], list[dict]]:
    """Return what each method of TABLE2 answers in each task about time, their figures, and which could not be run.

    The last is name, task and reason; it is said on the screen too.
    """
    wanted = [(method, task) for task in tasks if TASKS[task] is not None for method in TABLE2]
    answers, not_run = [], []
    if wanted:
        print(f"older methods: {'; '.join(TABLE2)}", flush=True)
        try:
            measured = measure(data)
        except InputError as error:
            not_run, wanted = [{"name": name, "task": task, "reason": str(error)} for name, task in wanted], []
    for method, task in wanted:
        try:
            answers.append(predict(measured, method, task, split))
        except InputError as error:
            not_run.append({"name": method, "task": task, "reason": str(error)})
    for missing in not_run:
        print(f"  not run: {missing['name']}, {POSITIVE[missing['task']]}: {missing['reason']}", flush=True)
    return answers, [found for answer in answers for found in figures(answer)], not_run
