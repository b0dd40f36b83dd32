"""Radiologists beside the model: what each reader is worth, how far they agree, and whether the model differs.

In:  patients with readings (columns reader_1, reader_2, ... of cohort.csv: 1 = DWI-FLAIR mismatch, which stands for
     TSS < 4.5 h; empty = not read); the model's predictions and threshold; an rng.
Out: a plain dict, ready for JSON, and its table for the screen. What has no answer is None, with the reason.
Paper: 2.1 and 3, Table 2 (readers, their majority, Fleiss' kappa); intervals and comparisons are ours (FIELD 4.2).
See: tests/evaluation/test_readers.py
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from tss.data.cohort import Patient
from tss.data.tasks import label_of
from tss.display.tables import aligned
from tss.errors import InputError
from tss.evaluation.inference import Prediction
from tss.evaluation.scores import cases_hash, p_text, proportions, with_interval
from tss.metrics import cohen_kappa, cohen_kappa_ci, confusion, fleiss_kappa, fleiss_kappa_ci, holm, mcnemar
from tss.metrics.bootstrap import bootstrap_ci

TASK = "tss<4.5h"  # what a mismatch stands for (paper 4; 2.3 ties it to 3 h)
MAJORITY = "majority"
# Where model and reader meet, and whether the classes change places for it.
POINTS = {"sensitivity_at_readers_specificity": False, "specificity_at_readers_sensitivity": True}
FROM_THE_CURVE = "read off this split's own ROC curve: no threshold was fixed beforehand"
EXPLAINED = (
    f"Sens. at reader's spec., spec. at reader's sens.: {FROM_THE_CURVE}; difference from the reader's, 95% "
    "by bootstrap.\np: McNemar's exact test at the model's own threshold."
)


def figures(patients: Sequence[Patient]) -> dict:
    """Return what the readers are worth on the patients whose onset is known, and how far they agree on all.

    "majority" is what more than half of all readers say; so those who have not read a patient cannot change it. Where
    there is none the patient is counted as undecided.
    """
    names = names_of(patients)
    known = [patient for patient in patients if patient.minutes is not None]
    each = {name: _counts(known, calls) for name, calls in calls_of(known, names).items()}
    by_all = [list(patient.readings.values()) for patient in patients if len(patient.readings) == len(names)]
    pairs = {
        f"{a} and {b}": [
            (patient.readings[a], patient.readings[b]) for patient in patients if {a, b} <= patient.readings.keys()
        ]
        for a, b in combinations(names, 2)
    }
    return {
        "positive_call": "DWI-FLAIR mismatch",
        "n_onset_known": len(known),
        "each": each,
        "fleiss_kappa": _agreement(fleiss_kappa, fleiss_kappa_ci, [by_all]) if len(names) > 1 else None,
        "cohen_kappa": {
            pair: _agreement(cohen_kappa, cohen_kappa_ci, np.array(given).reshape(-1, 2).T)
            for pair, given in pairs.items()
        },
    }


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


def compare(
    patients: Sequence[Patient], predictions: Sequence[Prediction], threshold: float, rng: np.random.Generator
) -> dict:
    """Return the model beside each reader and their majority, on the patients that both have judged.

    McNemar's test is of the model's calls at its own threshold; Holm's correction is for all readers of this table.
    The model's sensitivity at a reader's specificity has the bootstrap's interval for its distance from the reader's.
    """
    judged = {line.patient: line.probability for line in predictions if line.probability is not None}
    both = [patient for patient in patients if patient.minutes is not None and patient.id in judged]
    beside = {}
    for name, calls in calls_of(both, names_of(patients)).items():
        lines = [
            (_label(patient), judged[patient.id], call)
            for patient, call in zip(both, calls, strict=True)
            if call is not None
        ]
        beside[name] = (
            _beside(*map(np.array, zip(*lines, strict=True)), threshold, rng)
            if lines
            else {"n": 0, "reason": "no patient has a known onset, a probability and a reading"}
        )
    tested = [entry["mcnemar"] for entry in beside.values() if "mcnemar" in entry]
    for test, corrected in zip(tested, holm([test["pvalue"] for test in tested]), strict=True):
        test["pvalue_holm"] = corrected
    return beside


def _beside(y: np.ndarray, p: np.ndarray, reading: np.ndarray, threshold: float, rng: np.random.Generator) -> dict:
    """The model beside one reader: y, p, reading are (n,)."""
    calls = (p >= threshold).astype(int)
    test = mcnemar(y, calls, reading)
    entry = {
        "n": len(y),
        "n_positive": int(y.sum()),
        "mcnemar": {"only_model_right": test.only_a, "only_reader_right": test.only_b, "pvalue": test.pvalue},
        "cohen_kappa": _agreement(cohen_kappa, cohen_kappa_ci, [calls, reading]),
    }
    if y.all() or not y.any():
        return entry | {"reason": f"no ROC curve: {int(y.sum())} of {len(y)} patients are positive"}
    return entry | {name: _point(y, p, reading, swap, rng) for name, swap in POINTS.items()}


def _point(y: np.ndarray, p: np.ndarray, reading: np.ndarray, swap: bool, rng: np.random.Generator) -> dict:
    """The model at the reader's operating point, with the bootstrap's interval of the difference."""

    def difference(lines: np.ndarray) -> float:
        model, reader = matched(y[lines], p[lines], reading[lines], swap)
        return model - reader

    model, reader = matched(y, p, reading, swap)
    point = {"model": model, "reader": reader, "difference": model - reader, "from": FROM_THE_CURVE}
    try:
        return point | {"difference_ci": list(bootstrap_ci(difference, np.arange(len(y)), rng))}
    except InputError as error:
        return point | {"difference_ci": None, "reason": str(error)}


def matched(y: np.ndarray, p: np.ndarray, reading: np.ndarray, swap: bool = False) -> tuple[float, float]:
    """Return the model's sensitivity with no more false positives than the reader, and the reader's sensitivity.

    With `swap`, the model's specificity with no more missed positives than the reader, and the reader's specificity.
    No interpolation: the model's point is one that a threshold gives.

    Raises:
        InputError: one class only.
    """
    if swap:
        y, p, reading = 1 - y, -p, 1 - reading
    positives, negatives = p[y == 1], np.sort(p[y == 0])[::-1]
    if not len(positives) or not len(negatives):
        raise InputError(f"{len(positives)} of {len(y)} cases are positive: both classes are needed.")
    allowed = int(reading[y == 0].sum())
    model = (positives > negatives[allowed]).mean() if allowed < len(negatives) else 1.0
    return float(model), float(reading[y == 1].mean())


def _label(patient: Patient) -> int:
    return label_of(patient, TASK)


def _counts(patients: list[Patient], calls: list[int | None]) -> dict:
    """Figures of one reader; who has no call is counted and left out."""
    lines = [
        Prediction(patient.id, patient.side, _label(patient), call)
        for patient, call in zip(patients, calls, strict=True)
    ]
    read = [(line.label, line.probability) for line in lines if line.probability is not None]
    y, call = np.array(read, dtype=int).reshape(-1, 2).T
    tp, fp, tn, fn = confusion(y, call, 0.5)
    return {
        "n": len(read),
        "n_positive": int(y.sum()),
        "without_call": len(lines) - len(read),
        "cases_sha256": cases_hash(lines),
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
    } | proportions(tp, fp, tn, fn)


def _agreement(kappa: Callable, interval: Callable, ratings: Sequence) -> dict:
    """A kappa with its interval, or why there is none; `ratings` are the functions' arguments."""
    n = len(ratings[0])
    try:
        return {"n": n, "kappa": kappa(*ratings), "kappa_ci": list(interval(*ratings))}
    except InputError as error:
        return {"n": n, "kappa": None, "kappa_ci": None, "reason": str(error) if n else "no patient was read by all"}


def readers_table(results: Sequence[dict]) -> str:
    """Return the readers' figures, and the models beside them, for the screen.

    results: as `evaluate` returns them; those without "readers" are passed over. "" if there is none.
    """
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


def readers_rows(results: Sequence[dict]) -> Shown | None:
    """Return the readers' figures, and the models beside them, of results as `readers_table` takes them; or None."""
    results = [metrics for metrics in results if "readers" in metrics]
    if not results:
        return None
    readers = results[0]["readers"]  # the same patients and readings for all
    rows = [["", "n", "positive", "TP", "FP", "TN", "FN", "sensitivity", "specificity", "accuracy"]]
    remarks = []
    for name, entry in readers["each"].items():
        rows.append(
            [
                name,
                *(str(entry[key]) for key in ("n", "n_positive", "tp", "fp", "tn", "fn")),
                *(with_interval(entry, key, 2) for key in ("sensitivity", "specificity", "accuracy")),
            ]
        )
        if entry["without_call"]:
            remarks.append(
                f"{name}: {entry['without_call']} of {readers['n_onset_known']} patients "
                f"{'undecided' if name == MAJORITY else 'not read'}."
            )
    if agreement := readers["fleiss_kappa"]:
        remarks.append(f"Fleiss' kappa of all readers: {_kappa_text(agreement)}.")
    if len(readers["cohen_kappa"]) > 1:
        remarks.append(
            "Cohen's kappa: "
            + "; ".join(f"{pair} {_kappa_text(agreement)}" for pair, agreement in readers["cohen_kappa"].items())
            + "."
        )
    beside = [
        [
            "",
            "n",
            "sens. at reader's spec.",
            "difference",
            "spec. at reader's sens.",
            "difference",
            "only model right",
            "only reader right",
            "p",
            "p (Holm)",
        ]
    ]
    for metrics in results:
        for name, entry in metrics["readers"]["model"].items():
            label = f"{metrics['name']} beside {name}"
            remarks += [f"{label}: {entry['reason']}."] if "reason" in entry else []
            if "mcnemar" in entry:
                test = entry["mcnemar"]
                points = (entry.get(key) for key in POINTS)
                beside.append(
                    [
                        label,
                        str(entry["n"]),
                        *(cell for point in points for cell in _cells(point)),
                        str(test["only_model_right"]),
                        str(test["only_reader_right"]),
                        p_text(test["pvalue"]),
                        p_text(test["pvalue_holm"]),
                    ]
                )
    simulated = " (simulated: phantoms have no radiologists)" * ("ceiling" in results[0])
    return Shown(f"Readers: DWI-FLAIR mismatch = TSS < 4.5 h{simulated}", rows, remarks, beside)


def _cells(point: dict | None) -> list[str]:
    if point is None:
        return ["-", "-"]
    ends = "" if point["difference_ci"] is None else " [{:+.2f} to {:+.2f}]".format(*point["difference_ci"])
    return [f"{point['model']:.2f} (reader {point['reader']:.2f})", f"{point['difference']:+.2f}{ends}"]


def _kappa_text(agreement: dict) -> str:
    if agreement["kappa"] is None:
        return f"- ({agreement['reason']})"
    low, high = agreement["kappa_ci"]
    return f"{agreement['kappa']:.2f} [{low:.2f} to {high:.2f}] ({agreement['n']} patients)"
