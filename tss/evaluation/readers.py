"""Radiologists beside the model: what each reader is worth, how far they agree, and whether the model differs.

In:  patients with readings (columns reader_1, reader_2, ... of cohort.csv: 1 = DWI-FLAIR mismatch, which stands for
     TSS < 4.5 h; empty = not read); the model's predictions and threshold; an rng.
Out: Readings, and their tables. What has no answer is None, with the reason.
Paper: 2.1 and 3, Table 2 (readers, their majority, Fleiss' kappa); intervals and comparisons are ours.
See: tests/evaluation/test_readers.py
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from typing import NamedTuple

import numpy as np

from tss import metrics
from tss.data.cohort import Patient
from tss.data.tasks import label_of
from tss.display.tables import aligned
from tss.errors import InputError
from tss.evaluation.inference import Prediction
from tss.evaluation.results import (
    Agreement,
    BesideReader,
    Estimate,
    OperatingPoint,
    ReaderScores,
    ReaderTest,
    Readings,
    Row,
    p_text,
    with_interval,
)
from tss.evaluation.scores import cases_hash, labels_and_probabilities, shares_of

TASK = "tss<4.5h"  # what a mismatch stands for (paper 4; 2.3 ties it to 3 h)
MAJORITY = "majority"
FROM_THE_CURVE = "read off this split's own ROC curve: no threshold was fixed beforehand"
EXPLAINED = (
    f"Sens. at reader's spec., spec. at reader's sens.: {FROM_THE_CURVE}; difference from the reader's, 95% "
    "by bootstrap.\np: McNemar's exact test at the model's own threshold."
)


def score_readers(
    patients: Sequence[Patient], predictions: Sequence[Prediction], threshold: float, rng: np.random.Generator
) -> Readings:
    """Return what the readers are worth where the onset is known, how far they agree on all, and the model beside them.

    "majority" is what more than half of all readers say; so those who have not read a patient cannot change it. Where
    there is none the patient is counted as undecided.
    """
    names = names_of(patients)
    known = [patient for patient in patients if patient.minutes is not None]
    by_all = [list(patient.readings.values()) for patient in patients if len(patient.readings) == len(names)]
    pairs = {
        f"{a} and {b}": [
            (patient.readings[a], patient.readings[b]) for patient in patients if {a, b} <= patient.readings.keys()
        ]
        for a, b in combinations(names, 2)
    }
    return Readings(
        positive_call="DWI-FLAIR mismatch",
        n_onset_known=len(known),
        each={name: _reader_scores(known, calls) for name, calls in calls_of(known, names).items()},
        fleiss_kappa=_agreement(metrics.fleiss_kappa, metrics.fleiss_kappa_ci, [by_all]) if len(names) > 1 else None,
        cohen_kappa={
            pair: _agreement(metrics.cohen_kappa, metrics.cohen_kappa_ci, list(np.array(given).reshape(-1, 2).T))
            for pair, given in pairs.items()
        },
        model=compare_with_readers(patients, predictions, threshold, rng),
    )


def names_of(patients: Sequence[Patient]) -> list[str]:
    """Whoever has read any of these patients, in the order of their numbers."""
    return sorted({name for patient in patients for name in patient.readings}, key=lambda name: int(name[7:]))


def calls_of(patients: Sequence[Patient], names: Sequence[str]) -> dict[str, list[int | None]]:
    """Return what each reader says of each patient, and the majority of several readers; None = no call."""
    calls = {name: [patient.readings.get(name) for patient in patients] for name in names}
    if len(names) > 1:
        calls[MAJORITY] = [majority(patient.readings, len(names)) for patient in patients]
    return calls


def majority(readings: dict[str, int], readers: int) -> int | None:
    """Return what more than half of `readers` say, or None."""
    mismatches = sum(readings.values())
    if 2 * mismatches > readers:
        return 1
    return 0 if 2 * (len(readings) - mismatches) > readers else None


def compare_with_readers(
    patients: Sequence[Patient], predictions: Sequence[Prediction], threshold: float, rng: np.random.Generator
) -> dict[str, BesideReader]:
    """Return the model beside each reader and their majority, on the patients that both have judged.

    McNemar's test is of the model's calls at its own threshold; Holm's correction is for all readers of this table.
    The model's sensitivity at a reader's specificity has the bootstrap's interval for its distance from the reader's.
    """
    answers = {line.patient: line.probability for line in predictions if line.probability is not None}
    both = [patient for patient in patients if patient.minutes is not None and patient.id in answers]
    beside = {}
    for name, calls in calls_of(both, names_of(patients)).items():
        cases = [
            (label_of(patient, TASK), answers[patient.id], call)
            for patient, call in zip(both, calls, strict=True)
            if call is not None
        ]
        if cases:
            y, p, reading = (np.array(column) for column in zip(*cases, strict=True))
            beside[name] = _beside(y, p, reading, threshold, rng)
        else:
            beside[name] = BesideReader(n=0, reason="no patient has a known onset, a probability and a reading")
    tests = {name: found.mcnemar for name, found in beside.items() if found.mcnemar}
    for (name, test), corrected in zip(
        tests.items(), metrics.holm([test.pvalue for test in tests.values()]), strict=True
    ):
        beside[name] = replace(beside[name], mcnemar=replace(test, pvalue_holm=corrected))
    return beside


def _beside(
    y: np.ndarray, p: np.ndarray, reading: np.ndarray, threshold: float, rng: np.random.Generator
) -> BesideReader:
    """The model beside one reader: y, p, reading are (n,); the p-value is not yet corrected."""
    calls = (p >= threshold).astype(int)
    test = metrics.mcnemar(y, calls, reading)
    found = BesideReader(
        n=len(y),
        n_positive=int(y.sum()),
        mcnemar=ReaderTest(test.only_a, test.only_b, test.pvalue, test.pvalue),
        cohen_kappa=_agreement(metrics.cohen_kappa, metrics.cohen_kappa_ci, [calls, reading]),
    )
    if y.all() or not y.any():
        return replace(found, reason=f"no ROC curve: {int(y.sum())} of {len(y)} patients are positive")
    return replace(
        found,
        sensitivity_at_readers_specificity=_point(y, p, reading, False, rng),
        specificity_at_readers_sensitivity=_point(y, p, reading, True, rng),
    )


def _point(y: np.ndarray, p: np.ndarray, reading: np.ndarray, swap: bool, rng: np.random.Generator) -> OperatingPoint:
    """The model at the reader's operating point, with the bootstrap's interval of the difference."""

    def difference(lines: np.ndarray) -> float:
        model, reader = matched(y[lines], p[lines], reading[lines], swap)
        return model - reader

    model, reader = matched(y, p, reading, swap)
    ci = reason = None
    try:
        ci = metrics.bootstrap_ci(difference, np.arange(len(y)), rng)
    except InputError as error:
        reason = str(error)
    return OperatingPoint(model, reader, model - reader, FROM_THE_CURVE, ci, reason)


def matched(y: np.ndarray, p: np.ndarray, reading: np.ndarray, swap: bool = False) -> tuple[float, float]:
    """Return the model's sensitivity with no more false positives than the reader, and the reader's sensitivity.

    With `swap`, the model's specificity with no more missed positives than the reader, and the reader's specificity.
    No interpolation: the model's point is one that a threshold gives.

    Raises InputError: one class only.
    """
    if swap:
        y, p, reading = 1 - y, -p, 1 - reading
    positives, negatives = p[y == 1], np.sort(p[y == 0])[::-1]
    if not len(positives) or not len(negatives):
        raise InputError(f"{len(positives)} of {len(y)} cases are positive: both classes are needed.")
    allowed = int(reading[y == 0].sum())
    model = (positives > negatives[allowed]).mean() if allowed < len(negatives) else 1.0
    return float(model), float(reading[y == 1].mean())


def _reader_scores(patients: Sequence[Patient], calls: Sequence[int | None]) -> ReaderScores:
    """Scores of one reader; patients without a call are counted and left out."""
    lines = [
        Prediction(patient.id, patient.side, label_of(patient, TASK), call)
        for patient, call in zip(patients, calls, strict=True)
    ]
    y, call = labels_and_probabilities(lines)
    counts = metrics.confusion(y, call, 0.5)
    return ReaderScores(
        n=len(y),
        n_positive=int(y.sum()),
        without_call=len(lines) - len(y),
        cases_sha256=cases_hash(lines),
        counts=counts,
        shares=shares_of(counts),
    )


def _agreement(kappa: Callable, interval: Callable, ratings: Sequence) -> Agreement:
    """A kappa with its interval, or why there is none; `ratings` are the functions' arguments."""
    n = len(ratings[0])
    try:
        return Agreement(n, Estimate(kappa(*ratings), interval(*ratings)))
    except InputError as error:
        return Agreement(n, None, str(error) if n else "no patient was read by all")


def readers_table(results: Sequence[Row]) -> str:
    """Return the readers' scores, and the networks beside them, for the screen; "" where no network has readers."""
    shown = readers_rows(results)
    if shown is None:
        return ""
    text = "\n".join([shown.heading, aligned(shown.readers), *shown.remarks])
    return text if len(shown.beside) == 1 else f"{text}\n{aligned(shown.beside)}\n{EXPLAINED}"


class Shown(NamedTuple):
    """The readers for people: two tables as rows of cells, the header first, and what is to be said of them."""

    heading: str
    readers: list[list[str]]
    remarks: list[str]
    beside: list[list[str]]  # the models beside each reader


def readers_rows(results: Sequence[Row]) -> Shown | None:
    """Return the readers' scores, and the networks beside them, as cells; None where no network has readers."""
    read = [(row, row.readers) for row in results if row.readers]
    if not read:
        return None
    first, readers = read[0]  # the same patients and readings for all
    rows = [["", "n", "positive", "TP", "FP", "TN", "FN", "sensitivity", "specificity", "accuracy"]]
    remarks = []
    for name, found in readers.each.items():
        shares = [with_interval(share, 2) for share in found.shares.values()]
        rows.append([name, *map(str, (found.n, found.n_positive, *found.counts)), *shares])
        if found.without_call:
            remarks.append(
                f"{name}: {found.without_call} of {readers.n_onset_known} patients "
                f"{'undecided' if name == MAJORITY else 'not read'}."
            )
    if readers.fleiss_kappa:
        remarks.append(f"Fleiss' kappa of all readers: {_kappa_text(readers.fleiss_kappa)}.")
    if len(readers.cohen_kappa) > 1:
        pairs = [f"{pair} {_kappa_text(agreement)}" for pair, agreement in readers.cohen_kappa.items()]
        remarks.append(f"Cohen's kappa: {'; '.join(pairs)}.")
    tests = ["only model right", "only reader right", "p", "p (Holm)"]
    beside = [["", "n", "sens. at reader's spec.", "difference", "spec. at reader's sens.", "difference", *tests]]
    for row, readings in read:
        for name, met in readings.model.items():
            label = f"{row.name} beside {name}"
            remarks += [f"{label}: {met.reason}."] if met.reason else []
            if test := met.mcnemar:
                points = (met.sensitivity_at_readers_specificity, met.specificity_at_readers_sensitivity)
                counts = [str(test.only_model_right), str(test.only_reader_right)]
                beside.append(
                    [label, str(met.n), *(cell for point in points for cell in _cells(point)), *counts]
                    + [p_text(test.pvalue), p_text(test.pvalue_holm)]
                )
    simulated = " (simulated: phantoms have no radiologists)" * (first.ceiling is not None)
    return Shown(f"Readers: DWI-FLAIR mismatch = TSS < 4.5 h{simulated}", rows, remarks, beside)


def _cells(point: OperatingPoint | None) -> list[str]:
    if point is None:
        return ["-", "-"]
    ends = "" if point.difference_ci is None else " [{:+.2f} to {:+.2f}]".format(*point.difference_ci)
    return [f"{point.model:.2f} (reader {point.reader:.2f})", f"{point.difference:+.2f}{ends}"]


def _kappa_text(agreement: Agreement) -> str:
    if agreement.kappa is None:
        return f"- ({agreement.reason})"
    low, high = agreement.kappa.ci
    return f"{agreement.kappa.value:.2f} [{low:.2f} to {high:.2f}] ({agreement.n} patients)"
