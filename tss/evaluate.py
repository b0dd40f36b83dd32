"""Scores of trained checkpoints on patients they have not seen, at the threshold they bring with them.

In:  checkpoints of run_train.py; DATA as run_preprocess.py leaves it; the name of a split.
Out: predictions.csv, metrics.json, roc.png and gradcam/<patient>.png for each checkpoint, and a table of all.
Paper: 3, Table 2, Figs 8 and 9.
See: tests/test_evaluate.py

The threshold is validation's and is never fitted here (DESIGN 3.8). Nobody is left out silently: whoever has no
probability keeps a row, and table and metrics.json say how many they cover (DESIGN 3.13).
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tss.cohort import TASKS, Patient, read_prepared, split_hash
from tss.explain import draw_on_atlas
from tss.files import InputError, read_json, sha256, write_json, write_text
from tss.inference import POSITIVE, Model, Prediction, hemispheres_of, open_models, predict_patients, side_picker
from tss.loop import choose_device
from tss.metrics import confusion, delong_ci, roc_auc, roc_curve, wilson, youden_threshold

PHANTOM_NOTE = "These patients are phantoms: phantom scores are not clinical results."
LEFT_BEHIND = ("predictions.csv", "metrics.json", "roc.png", "gradcam")


def evaluate(paths: Sequence[str], data: str, split: str, out: str, pictures: int, device: str = "auto",
             overwrite: bool = False) -> list[dict]:
    """Evaluate checkpoints on one split; returns the metrics of each, as written to its metrics.json.

    Args:
        paths: checkpoints; the results of one go to `out`, of several to out/<name>, named after phases' folders.
        pictures: Grad-CAM of so many patients, the table's first ones (chosen before anything is known of them).
    Raises:
        InputError: a checkpoint and DATA do not belong together, or OUT has results already.
    """
    models = open_models(paths)
    patients = read_prepared(data)
    for model in models:
        check_fits(model, patients, data)
    chosen = [patient for patient in patients if patient.split == split]
    if not chosen:
        raise InputError(f"{data}/cohort.csv has no patient in the split {split!r}. Give another --split.")
    folders = [Path(out)] if len(models) == 1 else [Path(out) / model.name for model in models]
    for folder in folders:
        make_free(folder, overwrite)
    device = choose_device(device)

    results = []
    for model, folder in zip(models, folders, strict=True):
        print(f"{model.name}: {POSITIVE[model.task]}, {len(chosen)} patients of the {split} split", flush=True)
        predictions = predict_patients(model, side_picker(model, models), chosen, data, device)
        metrics = describe(model, split) | score(predictions, model.threshold) | coverage(predictions)
        write_predictions(folder / "predictions.csv", predictions)
        write_json(folder / "metrics.json", metrics)
        _draw_roc(folder / "roc.png", predictions, metrics)
        _draw_maps(folder / "gradcam", model, predictions, chosen, data, pictures)
        print(f"  {coverage_line(metrics)}\n  written to {folder}", flush=True)
        results.append(metrics)
    return results


def check_fits(model: Model, patients: list[Patient], data: str) -> None:
    """Refuse DATA of another grid, and DATA of another split, whose test patients may have been trained on."""
    grid = list(read_json(Path(data) / "settings.json")["grid"])
    if model.checkpoint["grid"] != grid:
        raise InputError(f"{model.path} was trained on the grid {model.checkpoint['grid']}, {data} has {grid}. Give "
                         f"its own --data, or preprocess with --grid {' '.join(map(str, model.checkpoint['grid']))}.")
    if model.checkpoint["cohort"] != (here := split_hash(patients)):
        raise InputError(f"{model.path} was trained on another split of patients ({model.checkpoint['cohort'][:12]}) "
                         f"than {data}/cohort.csv has ({here[:12]}): it may have seen patients that are tested here. "
                         "Give the --data that it was trained on.")


def make_free(folder: Path, overwrite: bool) -> None:
    """Refuse a folder with results, or take them away: a picture of an earlier run must not pass for this one's."""
    there = [name for name in LEFT_BEHIND if (folder / name).exists()]
    if there and not overwrite:
        raise InputError(f"{folder} already holds {', '.join(there)}. Give another --out, or --overwrite.")
    try:
        for file in [folder / name for name in there if name != "gradcam"] + sorted(folder.glob("gradcam/*.png")):
            file.unlink()
    except OSError as error:
        raise InputError(f"{error.filename} cannot be replaced: {error.strerror}. Give another --out.") from error


def score(predictions: list[Prediction], threshold: float) -> dict:
    """Return AUC, sensitivity, specificity and accuracy with 95 % intervals; what has no answer is None, with why."""
    y, p = labels_and_probabilities(predictions)
    positives = int(y.sum())
    tp, fp, tn, fn = confusion(y, p, threshold)
    metrics = {"n": len(y), "n_positive": positives, "auc": None, "auc_ci": None}
    if 0 < positives < len(y):
        metrics |= {"auc": roc_auc(y, p), "auc_ci": list(delong_ci(y, p))}
    else:
        metrics["auc_reason"] = f"one class only: {positives} of {len(y)} are positive; AUC needs both classes"
    metrics |= proportions(tp, fp, tn, fn) | {"threshold": threshold, "threshold_from": "validation",
                                              "tp": tp, "fp": fp, "tn": tn, "fn": fn}
    if metrics["auc"] is not None:
        best = youden_threshold(y, p)
        metrics["youden_on_this_split_optimistic"] = {"threshold": best} | proportions(*confusion(y, p, best))
    return metrics


def labels_and_probabilities(predictions: list[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    """Return y (n,) and p (n,) of the lines that have both."""
    counted = [line for line in predictions if line.label >= 0 and line.probability is not None]
    return np.array([line.label for line in counted]), np.array([line.probability for line in counted])


def proportions(tp: int, fp: int, tn: int, fn: int) -> dict:
    """Return sensitivity, specificity and accuracy, each with its Wilson interval; None where nobody is counted."""
    parts = {"sensitivity": (tp, tp + fn), "specificity": (tn, tn + fp), "accuracy": (tp + tn, tp + fp + tn + fn)}
    return {key: value for name, (k, n) in parts.items()
            for key, value in ((name, k / n if n else None), (f"{name}_ci", list(wilson(k, n)) if n else None))}


def describe(model: Model, split: str) -> dict:
    """Return what the figures are of."""
    limit = TASKS[model.task]
    name = POSITIVE[model.task]
    about = {"name": model.name, "task": model.task, "split": split, "phase": model.checkpoint["phase"],
             "model": model.checkpoint["model"], "checkpoint": str(model.path),
             "checkpoint_sha256": sha256(model.path), "cohort": model.checkpoint["cohort"],
             "unit": "hemisphere" if limit is None else "patient",
             "positive_class": name if limit is None else f"{name} (onset_to_mri_min < {limit:.0f})"}
    notes = []
    if limit is None:
        notes.append("both hemispheres of a patient are counted as if independent; the intervals are a little narrow")
    if split != "test":
        notes.append(f"the {split} split was used to make this model; its figures are optimistic")
    return about | {"notes": notes}


def coverage(predictions: list[Prediction]) -> dict:
    """Return who is and who is not behind the figures, and why."""
    def who(lines: list[Prediction]) -> list[str]:
        return list(dict.fromkeys(line.patient for line in lines))

    without = [line for line in predictions if line.probability is None]
    return {"coverage": {
        "patients": len(who(predictions)),
        "scored": len(who([p for p in predictions if p.label >= 0 and p.probability is not None])),
        "no_probability": {line.patient: line.remark for line in without},
        "label_unknown": who([p for p in predictions if p.label < 0 and p.probability is not None]),
        "side_chosen_by_phase_1": who([p for p in predictions if p.remark and p.probability is not None]),
    }}


def coverage_line(metrics: dict) -> str:
    covered = metrics["coverage"]
    parts = [f"{covered['scored']} of {covered['patients']} patients scored"]
    parts += [f"{len(covered['label_unknown'])} predicted without a known label"] * bool(covered["label_unknown"])
    parts += [f"{patient} has no probability ({why})" for patient, why in covered["no_probability"].items()]
    return "; ".join(parts)


def write_predictions(path: Path, predictions: list[Prediction]) -> None:
    """Write predictions.csv; an unknown label and a missing probability are empty cells."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["patient", "side", "label", "probability"])
    for line in predictions:
        writer.writerow([line.patient, line.side, "" if line.label < 0 else line.label,
                         "" if line.probability is None else repr(line.probability)])
    write_text(path, table.getvalue())


def summary_table(results: Sequence[dict], ceilings: dict[str, float] | None = None) -> str:
    """Return a line a checkpoint, for the screen.

    Args:
        results: as `evaluate` returns them.
        ceilings: task -> best reachable AUC, where the law that made the patients is known (a phantom).
    """
    head = ["", "positive class", "n", "positive", "AUC [95% CI]", *["ceiling"] * bool(ceilings), "sensitivity",
            "specificity", "accuracy", "threshold"]
    rows = [head]
    for metrics in results:
        ceiling = [f"{ceilings[metrics['task']]:.3f}" if metrics["task"] in ceilings else "-"] if ceilings else []
        rows.append([metrics["name"], POSITIVE[metrics["task"]], str(metrics["n"]), str(metrics["n_positive"]),
                     _with_interval(metrics, "auc", 3), *ceiling,
                     *(_with_interval(metrics, name, 2) for name in ("sensitivity", "specificity", "accuracy")),
                     f"{metrics['threshold']:.3f}"])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"{metrics['name']}: no AUC, {metrics['auc_reason']}." for metrics in results if metrics["auc"] is None]
    lines += [f"{metrics['name']}: {note}." for metrics in results for note in metrics["notes"]]
    return "\n".join(lines + [PHANTOM_NOTE] * bool(ceilings))


def _with_interval(metrics: dict, name: str, digits: int) -> str:
    if metrics[name] is None:
        return "-"
    low, high = metrics[f"{name}_ci"]
    return f"{metrics[name]:.{digits}f} [{low:.2f}-{high:.2f}]"


def _draw_roc(path: Path, predictions: list[Prediction], metrics: dict) -> None:
    if metrics["auc"] is None:
        print(f"  no roc.png: {metrics['auc_reason']}", flush=True)
        return
    from tss import figures

    y, p = labels_and_probabilities(predictions)
    figures.draw_roc(path, roc_curve(y, p)[:2], metrics["auc"], metrics["auc_ci"],
                     (1 - metrics["specificity"], metrics["sensitivity"]), metrics["threshold"],
                     f"{metrics['name']}: {POSITIVE[metrics['task']]}",
                     f"{metrics['split']} split: {metrics['n']} {metrics['unit']}s, {metrics['n_positive']} positive")


def _draw_maps(folder: Path, model: Model, predictions: list[Prediction], patients: list[Patient], data: str,
               pictures: int) -> None:
    likeliest = {}  # of a patient's two lines in task "stroke"; the only one in the others
    for line in predictions:
        if line.probability is not None and line.probability > getattr(likeliest.get(line.patient), "probability", -1):
            likeliest[line.patient] = line
    shown = [patient for patient in patients if patient.id in likeliest][:pictures]
    for patient in shown:
        draw_on_atlas(folder / f"{patient.id}.png", model, likeliest[patient.id], hemispheres_of(patient, model, data),
                      patient, Path(data) / "registered")
