"""The older methods on one's own patients, as predictions that are scored like a network's.

In:  DATA as run_preprocess.py leaves it (registered/<patient>_*.nii.gz, hemispheres/); a method, a task, a split.
Out: Baseline: Predictions and a threshold; Rows: scored on those the method can process, and twice on all.
Paper: 3, Table 2 ("only 221 of our original 422 patients had large enough ROI"); the tissue clock is that of Petkova
     2010 and Legge 2017.
See: tests/evaluation/test_older_methods.py

    measured = measure_cohort(data)                            # once: every patient of DATA, all splits
    baseline = predict_with(LEE2020, measured, "tss<4.5h", "test")
    possible, as_wrong, at_neutral, *cutoffs = rows_of_baseline(baseline)

Fitted on the training split alone; settings and the threshold (Youden's J) are chosen on validation (decision 8).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from tss.baselines import classifiers, lee2020, tissue_clock
from tss.baselines.infarct_roi import find_infarct, make_maps
from tss.data.cohort import SIDES, Patient
from tss.data.hemispheres import CEILING, CHANNELS
from tss.data.nifti import load, voxel_sizes
from tss.data.prepared import read_hemispheres, read_prepared, read_settings, registered_file
from tss.data.tasks import POSITIVE, TASKS, lines_of
from tss.errors import InputError
from tss.evaluation.inference import SECONDS_BETWEEN_LINES, Prediction
from tss.evaluation.results import CUTOFF, FLAIR_CLOCK, LEE2020, OLDER, SOFT_CLOCK, SUBSET, Row, Scores
from tss.evaluation.scores import counted_failures, coverage, labels_and_probabilities, score, shares_of
from tss.metrics import confusion, youden_threshold
from tss.metrics.failures import NEUTRAL, WRONG

CLOCKS = {f"tissue clock, {name.upper()}": name for name in tissue_clock.SEQUENCES}
ALONE = {f"{LEE2020}, {name}": name for name in lee2020.CLASSIFIERS}
TABLE2 = (*CLOCKS, SOFT_CLOCK, LEE2020)  # each of Lee's three classifiers alone is not in it
METHODS = (*TABLE2, *ALONE)
FEWEST_OF_A_CLASS = 2  # our choice: training and validation patients; Welch's test needs a variance in each class
# A method is not better for leaving out whom it cannot process (STARD 2015), nor does it call them all wrongly.
COUNTED = (
    "Patients for whom an older method has no answer, those that failed preprocessing among them, are counted in two "
    "ways (decision 8): each as if called wrongly, the worst that can be; and each with the median of the method's "
    "answers, as if nothing were known of it."
)


class Measured(NamedTuple):
    """What one patient's region says; empty where there is none, with the reason."""

    patient: Patient
    ratios: dict[str, float]  # of tss.baselines.tissue_clock
    features: dict[str, float]  # of tss.baselines.lee2020
    reason: str = ""
    soft: float | None = None  # of tss.baselines.tissue_clock; every preprocessed patient has one


class Baseline(NamedTuple):
    """A method's answer: one Prediction for each patient of the split, whatever became of it."""

    method: str
    task: str
    split: str
    predictions: list[Prediction]
    failed: dict[str, str]  # patients with a known time for whom it has no answer, whatever failed -> why
    threshold: float
    chosen: str  # what was chosen on training and validation patients, in words
    ratios: list[Prediction]  # of the FLAIR clock: minus the ratio in the place of a probability


def measure_cohort(data: str, drawn: bool = False) -> list[Measured]:
    """Measure every patient of DATA, in the table's order; 0.1 s each at half the paper's grid, under 1 s at its own.

    drawn: take the lesion masks of the cohort instead of finding the infarct.

    Raises InputError: DATA is no prepared folder, or a file of a prepared patient is missing or unreadable.
    """
    measured, said = [], time.monotonic()
    patients, grid = read_prepared(data), read_settings(data)["grid"]
    for number, patient in enumerate(patients, 1):
        measured.append(measure_patient(patient, data, grid, drawn))
        if time.monotonic() - said > SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            print(f"  {number} of {len(patients)} patients measured", flush=True)
    return measured


def measure_patient(patient: Patient, data: str, grid: Sequence[int], drawn: bool = False) -> Measured:
    """Measure one patient; what the methods cannot do with it becomes the reason."""
    if patient.status != "ok":
        return Measured(patient, {}, {}, patient.reason)
    soft = soft_clock_of(patient, data, grid)
    return measure_infarct(patient, data, drawn)._replace(soft=soft)


def soft_clock_of(patient: Patient, data: str, grid: Sequence[int]) -> float:
    """Return the soft clock of the hemisphere with stroke, as the networks get it; of both if it is not one."""
    chosen = [SIDES.index(patient.side)] if patient.side in SIDES else [*range(len(SIDES))]
    hemispheres = read_hemispheres(data, patient.id, grid)[chosen].astype(np.float32)  # (1 or 2, C, D, H, W)
    return tissue_clock.soft_clock(*(hemispheres[:, CHANNELS.index(name)] * CEILING[name] for name in CHANNELS))


def measure_infarct(patient: Patient, data: str, drawn: bool) -> Measured:
    """Measure what needs the infarct as a region, found or drawn."""
    lesion = registered_file(data, patient.id, "lesion")
    if drawn and not lesion.is_file():
        return Measured(patient, {}, {}, "no lesion mask")
    scans = {kind: load(registered_file(data, patient.id, kind)) for kind in ("dwi", "t2w", "flair", "mask")}
    brain = scans["mask"].data > 0
    try:
        dwi, t2w, flair = (scans[kind].data for kind in ("dwi", "t2w", "flair"))
        maps = make_maps(dwi, t2w, flair, brain, voxel_sizes(scans["mask"].affine))
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


def predict_with(method: str, measured: Sequence[Measured], task: str, split: str, seed: int = 0) -> Baseline:
    """Fit one of METHODS to the training patients and predict the patients of a split.

    LEE2020 is the one of its three classifiers with the best AUC on validation patients.

    Raises InputError: no such method, a task without a time, an empty split, or too few patients to fit or choose.
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
    predictions, failed = [], {}
    for one in chosen:
        numbers, ((side, label),) = _numbers(one, method), lines_of(one.patient, task)
        p = float(probability(np.array([numbers]))[0]) if numbers else None
        predictions.append(Prediction(one.patient.id, side, label, p, "" if numbers else one.reason))
        if not numbers and label >= 0:
            failed[one.patient.id] = one.reason
    ratios = [
        line._replace(probability=-one.ratios["flair"] if one.ratios else None)
        for one, line in zip(chosen, predictions, strict=True)
        if method == FLAIR_CLOCK
    ]
    return Baseline(method, task, split, predictions, failed, threshold, words, ratios)


def _numbers(one: Measured, method: str) -> list[float]:
    """Return what the method looks at, or an empty list."""
    if method in CLOCKS:
        return [one.ratios[CLOCKS[method]]] if one.ratios else []
    if method == SOFT_CLOCK:
        return [] if one.soft is None else [one.soft]
    return list(one.features.values())


def _known(measured: Sequence[Measured], method: str, task: str, split: str) -> tuple[np.ndarray, np.ndarray]:
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
    if method in CLOCKS or method == SOFT_CLOCK:
        curve = classifiers.fit_curve(-train[0][:, 0], train[1])
        return lambda x: curve.probability(-x[:, 0]), "a logistic curve of minus the ratio"
    names = lee2020.CLASSIFIERS if method == LEE2020 else [ALONE[method]]
    models = {name: lee2020.fit_lee(train, val, name, seed) for name in names}
    name, model = max(models.items(), key=lambda item: item[1].val_auc)
    setting = "patients in a leaf" if name == "random forest" else "C"
    return model.probability, (
        f"{name}, {setting} {model.setting:g}, {len(model.columns)} features, validation AUC {model.val_auc:.3f}"
    )


def rows_of_baseline(baseline: Baseline) -> list[Row]:
    """Return a baseline's rows: those it can process; all, failures counted both ways; published cut-offs.

    A method that fails on nobody has one row in the place of three. All are everybody in the split whose time is known:
    who failed preprocessing or was rejected is a failure here too, as for a network (scores.over_all).
    """
    found, failed = baseline.predictions, baseline.failed
    can = Row(
        kind=OLDER,
        name=f"{baseline.method}, {'where it can be used' if failed else 'all patients'}",
        task=baseline.task,
        split=baseline.split,
        positive_class=POSITIVE[baseline.task],
        scores=replace(score(found, baseline.threshold), over_all=None),  # rows of their own
        coverage=coverage(found),
        method=baseline.method,
        chosen=baseline.chosen,
    )
    rows = [can]
    for how in (WRONG, NEUTRAL) if failed else ():
        known = [line for line in found if line.label >= 0]
        counted = {line.patient: line._replace(reason="") for line in counted_failures(known, how)}
        every = [counted.get(line.patient, line) for line in found]
        rows.append(
            replace(
                can,
                name=f"{baseline.method}, all patients, {how}",
                notes=(COUNTED,),
                scores=replace(score(every, baseline.threshold), over_all=None),
                coverage=replace(coverage(every), failures_counted=failed),
                failures=how,
            )
        )
    return rows + _cutoff_rows(baseline, can)


def row_on_patients_of(
    method: str, processed: Sequence[Prediction], network: Row, predictions: Sequence[Prediction], threshold: float
) -> Row | None:
    """Return a network's row on the patients that an older method can process; None where these are all it answers for.

    The paper sets its networks beside Lee 2020 so: "only 221 of our original 422 patients" (Table 2).

    processed: the method's predictions, of the same patients. predictions, threshold: the network's.
    """
    cannot = {line.patient: line.reason for line in processed if line.probability is None}
    if not any(line.probability is not None and line.label >= 0 for line in predictions if line.patient in cannot):
        return None
    lines = [
        line._replace(probability=None, reason=line.reason or f"{method} cannot process it: {cannot[line.patient]}")
        if line.patient in cannot
        else line
        for line in predictions
    ]
    same = ("task", "split", "phase", "model", "attention", "recipe", "weights", "parent", "checkpoint", "cohort")
    about = {name: getattr(network, name) for name in (*same, "checkpoint_sha256", "unit", "positive_class")}
    scores = replace(score(lines, threshold), over_all=None, threshold_from=network.scored.threshold_from)
    name = f"{network.name}, where {method} can be used"
    return Row(kind=SUBSET, name=name, scores=scores, coverage=coverage(lines), method=method, **about)


def _cutoff_rows(baseline: Baseline, can: Row) -> list[Row]:
    """Rows of "short where FLAIR ratio <= cut-off" for each published cut-off: points on the clock's ROC."""
    y, minus_ratios = labels_and_probabilities(baseline.ratios)
    rows = []
    for cutoff, source in tissue_clock.CUTOFFS.items() if len(y) else ():
        counts = confusion(y, minus_ratios, -cutoff)
        scores = Scores(
            n=len(y),
            n_positive=int(y.sum()),
            cases_sha256=can.scored.cases_sha256,
            auc=None,
            shares=shares_of(counts),
            threshold=cutoff,
            threshold_from=source,
            counts=counts,
        )
        rows.append(replace(can, kind=CUTOFF, name=f"{cutoff:.2f}, {source}", scores=scores, chosen=None))
    return rows


def run_older_methods(
    patients: Sequence[Patient], data: str, tasks: Sequence[str], split: str
) -> tuple[dict[str, dict[str, list[Prediction]]], list[Row]]:
    """Run each method of TABLE2 in each task about time; what could not be run is said on the screen too.

    patients: of DATA, with the split that they are evaluated in.
    Returns task -> method -> predictions; the rows of all, those that could not be run among them.
    """
    wanted = [(method, task) for task in tasks if TASKS[task] is not None for method in TABLE2]
    baselines, not_run = [], []
    if wanted:
        print(f"older methods: {'; '.join(TABLE2)}", flush=True)
        try:
            if not any(patient.split == "train" for patient in patients):
                raise InputError(f"{data} has no training patients to fit it to.")
            measured = measure_cohort(data)
        except InputError as error:
            not_run, wanted = [_not_run(*one, error) for one in wanted], []
    for method, task in wanted:
        try:
            baselines.append(predict_with(method, measured, task, split))
        except InputError as error:
            not_run.append(_not_run(method, task, error))
    for row in not_run:
        print(f"  not run: {row.name}, {POSITIVE[row.task]}: {row.reason}", flush=True)
    predictions: dict[str, dict[str, list[Prediction]]] = {}
    for one in baselines:
        predictions.setdefault(one.task, {})[one.method] = one.predictions
    return predictions, [row for one in baselines for row in rows_of_baseline(one)] + not_run


def _not_run(method: str, task: str, error: InputError) -> Row:
    return Row(kind=OLDER, name=method, task=task, reason=str(error))
