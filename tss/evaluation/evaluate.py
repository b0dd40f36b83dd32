"""Scores of trained checkpoints on patients they have not seen, at the threshold they bring with them.

In:  checkpoints of run_train.py; DATA as run_preprocess.py leaves it; the name of a split.
Out: predictions.csv, metrics.json, roc.png and gradcam/<patient>.png for each checkpoint; comparisons.json where two
     have the same task; on request Table 2, with the older methods.
Paper: 3, Table 2, Figs 8 and 9.
See: tests/evaluation/test_evaluate.py

The threshold is validation's and is never fitted here (decision 8). Nobody is left out silently: whoever has no
probability keeps a row, and table and metrics.json say how many they cover (decision 13).
"""

import csv
import io
from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path

import numpy as np

from tss.data.cohort import Patient
from tss.data.files import read_json, sha256, write_json, write_text
from tss.data.prepared import differing_settings, read_prepared, read_settings
from tss.data.splits import split_hash
from tss.data.tasks import POSITIVE, TASKS
from tss.errors import InputError
from tss.evaluation import gradcam_overlap, readers, table2
from tss.evaluation.auc_comparison import CLAIMS, claimed, compare_models, comparisons_table
from tss.evaluation.gradcam_page import draw_on_atlas, scans_of
from tss.evaluation.inference import Model, Prediction, hemispheres_of, open_models, predict_patients, side_picker
from tss.evaluation.scores import coverage, coverage_line, score
from tss.evaluation.subgroups import by_group
from tss.phantom.ideal_observer import PHANTOM_NOTE, ceilings, phantom_note
from tss.training.device import choose_device

HEMISPHERES_NOTE = (
    "Stroke in the hemisphere: the AUC's interval is the bootstrap's by patient; the others, and "
    "DeLong's test, count a patient's two hemispheres as if independent."
)
LEFT_BEHIND = ("predictions.csv", "metrics.json", "roc.png", "gradcam")
COMPARISONS = "comparisons.json"
REPORT = ("report.html", "figures")  # as tss.evaluation.report has them


def evaluate(
    paths: Sequence[str],
    data: str,
    split: str,
    out: str,
    pictures: int,
    device: str = "auto",
    overwrite: bool = False,
    table: bool = False,
    study: str | None = None,
    report: bool = False,
    gradcam_scores: bool = False,
) -> list[dict]:
    """Evaluate checkpoints on one split; returns the metrics of each, as written to its metrics.json.

    Args:
        paths: checkpoints; the results of one go to `out`, of several to out/<name>, named after phases' folders.
        pictures: Grad-CAM of so many patients, the table's first ones (chosen before anything is known of them).
        gradcam_scores: measure how much of everybody's Grad-CAM lies in the lesion masks.
        table: leave table2.md and table2.csv in `out` too, with the older methods beside the checkpoints.
        report: leave report.html with all of it, the table too.
        study: study.json of tss.study.table2_study: names what first weights were, lists rows that were not run, and has what the
            paper makes claims about compared instead of every two.
    Raises:
        InputError: a checkpoint and DATA do not belong together, or OUT has results already.
    """
    models = open_models(paths)
    planned = read_json(study) if study else {}
    patients = read_prepared(data)
    chosen = [patient for patient in patients if patient.split == split]
    if not chosen:
        raise InputError(f"{data}/cohort.csv has no patient in the split {split!r}. Give another --split.")
    side_unknown = any(patient.status == "ok" and not patient.side for patient in chosen)
    pickers = [side_picker(model, models) if side_unknown else None for model in models]
    for model in [*models, *filter(None, pickers)]:
        check_fits(model, patients, data)
    drawn = [patient for patient in chosen if patient.status == "ok"][:pictures]
    if missing := [path for patient in drawn for path in scans_of(data, patient).values() if not path.is_file()]:
        raise InputError(
            f"{missing[0]} is missing, and the Grad-CAM is drawn on it. Run run_preprocess.py again, or "
            "leave the pictures away with --gradcam 0."
        )
    lesions = gradcam_overlap.lesions_of(chosen, data) if gradcam_scores else None
    device = choose_device(device)
    folders = [Path(out)] if len(models) == 1 else [Path(out) / model.name for model in models]
    for folder in folders:
        make_free(folder, overwrite)
    make_free(Path(out), overwrite, [COMPARISONS, *table2.NAMES, *REPORT])

    results, rows = [], {}
    for model, picker, folder in zip(models, pickers, folders, strict=True):
        print(f"{model.name}: {POSITIVE[model.task]}, {len(chosen)} patients of the {split} split", flush=True)
        predictions = predict_patients(model, picker, chosen, data, device)
        metrics = describe(model, split, chosen, data) | score(predictions, model.threshold) | coverage(predictions)
        if study:
            metrics["weights"] = weights_in(planned, Path(study).parent, model) or metrics["weights"]
        if model.task != "stroke":
            metrics["subgroups"] = by_group(chosen, predictions, model.threshold)
        if model.task == readers.TASK and readers.names_of(chosen):
            rng = np.random.default_rng(0)  # of the bootstrap: the same figures from the same predictions
            metrics["readers"] = readers.figures(chosen) | {
                "model": readers.compare(chosen, predictions, model.threshold, rng)
            }
        if lesions is not None:
            metrics["gradcam"] = gradcam_overlap.measure(model, predictions, chosen, lesions, data)
            print(f"  {gradcam_overlap.overlap_line(metrics['gradcam'])}", flush=True)
        write_predictions(folder / "predictions.csv", predictions)
        write_json(folder / "metrics.json", metrics)
        _draw_roc(folder / "roc.png", metrics, phantom_note(patients[0].row.get("phantom"), model.task))
        _draw_maps(folder / "gradcam", model, predictions, drawn, data)
        print(f"  {coverage_line(metrics)}\n  written to {folder}", flush=True)
        results.append(metrics)
        rows.setdefault(model.task, {})[model.name] = predictions
    older, figures_of_older, not_run = [], [], []
    if table or report:
        from tss.evaluation.older_methods import of_table2  # here, since scipy's statistics take a second to load

        older, figures_of_older, not_run = of_table2(data, [task for task in TASKS if task in rows], split)
    compared = {}
    for task, lines in rows.items():
        beside = {method.method: method.predictions for method in older if method.task == task}
        pairs = [*combinations(lines, 2), *product(beside, lines)]  # a network beside each, not they beside each other
        if planned:
            pairs = claimed({metrics["name"]: metrics for metrics in results if metrics["task"] == task}, list(beside))
        if pairs:
            compared[task] = compare_models(lines | beside, task, pairs)
    if compared:
        write_json(Path(out) / COMPARISONS, compared)
        print("".join(f"\n{POSITIVE[task]}\n{comparisons_table(pairs)}\n" for task, pairs in compared.items()), end="")
    if table or report:
        not_run += planned.get("not_run", [])
        chosen_pairs = CLAIMS if planned else ""
        whole = table2.rows_of(results, figures_of_older, not_run)
        table2.write_table(Path(out), whole, compared, results, chosen_pairs)
        print(f"\n{' and '.join(table2.NAMES)} written to {out}", flush=True)
    if report:
        from tss.evaluation.report import Findings, write_report  # here, since matplotlib takes a second to load

        maps = {model.name: sorted(folder.glob("gradcam/*.png")) for model, folder in zip(models, folders, strict=True)}
        write_report(
            Path(out),
            Findings(patients, split, whole, compared, chosen_pairs, maps, read_settings(data)),
        )
        print(f"report.html written to {out}", flush=True)
    return results


def check_fits(model: Model, patients: list[Patient], data: str) -> None:
    """Refuse DATA of another grid, and DATA of another split, whose test patients may have been trained on."""
    grid = list(read_settings(data)["grid"])
    if model.checkpoint["grid"] != grid:
        raise InputError(
            f"{model.path} was trained on the grid {model.checkpoint['grid']}, {data} has {grid}. Give "
            f"its own --data, or preprocess with --grid {' '.join(map(str, model.checkpoint['grid']))}."
        )
    if model.checkpoint["cohort"] != (here := split_hash(patients)):
        raise InputError(
            f"{model.path} was trained on another split of patients ({model.checkpoint['cohort'][:12]}) "
            f"than {data}/cohort.csv has ({here[:12]}): it may have seen patients that are tested here. "
            "Give the --data that it was trained on."
        )


def make_free(folder: Path, overwrite: bool, names: Sequence[str] = LEFT_BEHIND) -> None:
    """Refuse a folder with results, or take them away: a picture of an earlier run must not pass for this one's."""
    there = [name for name in names if (folder / name).exists()]
    if there and not overwrite:
        raise InputError(f"{folder} already holds {', '.join(there)}. Give another --out, or --overwrite.")
    files = [
        file
        for name in there
        for file in (sorted((folder / name).glob("*.png")) if (folder / name).is_dir() else [folder / name])
    ]
    try:
        for file in files:
            file.unlink()
    except OSError as error:
        raise InputError(f"{error.filename} cannot be replaced: {error.strerror}. Give another --out.") from error


def describe(model: Model, split: str, patients: list[Patient], data: str) -> dict:
    """Return what the figures are of, and what has to be said with them."""
    limit = TASKS[model.task]
    name = POSITIVE[model.task]
    about = {
        "name": model.name,
        "task": model.task,
        "split": split,
        "phase": model.checkpoint["phase"],
        "model": model.checkpoint["model"],
        "attention": model.checkpoint["attention"],
        "weights": weights_of(model.checkpoint),
        "parent": model.checkpoint["parent"],
        "checkpoint": str(model.path),
        "checkpoint_sha256": sha256(model.path),
        "cohort": model.checkpoint["cohort"],
        "unit": "hemisphere" if limit is None else "patient",
        "positive_class": name if limit is None else f"{name} (onset_to_mri_min < {limit:.0f})",
    }
    notes = []
    if limit is None:
        notes.append(HEMISPHERES_NOTE)
    if split != "test":
        notes.append(f"The {split} split was used to make these models: its figures are optimistic.")
    trained_on = model.checkpoint["settings"].get("preprocessing", {})
    if differs := differing_settings(trained_on, read_settings(data)):
        notes.append(
            f"{model.name} was trained on hemispheres that were preprocessed with different settings from those in {data}: {differs}."
        )
    if spread := patients[0].row.get("phantom"):
        notes.append(PHANTOM_NOTE)
        about["ceiling"] = ceilings(float(spread))[model.task]
    return about | {"notes": notes}


def weights_of(checkpoint: dict) -> str:
    """What a model's weights were at first; a file's hash where the checkpoint is of before this was written down."""
    parent = checkpoint["parent"]
    return checkpoint["settings"].get("weights") or (parent if parent == "random" else f"file {parent[:12]}")


def weights_in(planned: dict, folder: Path, model: Model) -> str | None:
    """Return what a study calls a model's first weights: a file of tensors does not say on what they were learned."""
    return next(
        (
            words
            for path, words in planned.get("weights", {}).items()
            if (folder / path).resolve() == model.path.resolve()
        ),
        None,
    )


def write_predictions(path: Path, predictions: list[Prediction]) -> None:
    """Write predictions.csv; an unknown label and a missing probability are empty cells."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["patient", "side", "label", "probability"])
    for line in predictions:
        writer.writerow(
            [
                line.patient,
                line.side,
                "" if line.label < 0 else line.label,
                "" if line.probability is None else repr(line.probability),
            ]
        )
    write_text(path, table.getvalue())


def _draw_roc(path: Path, metrics: dict, note: str) -> None:
    if metrics["auc"] is None:
        print(f"  no roc.png: {metrics['auc_reason']}", flush=True)
        return
    from tss.display import roc_plots

    cases = f"{metrics['split']} split: {metrics['n']} {metrics['unit']}s, {metrics['n_positive']} positive"
    roc_plots.draw_roc(
        path,
        tuple(metrics["roc"].values()),
        metrics["auc"],
        metrics["auc_ci"],
        (1 - metrics["specificity"], metrics["sensitivity"]),
        metrics["threshold"],
        f"{metrics['name']}: {POSITIVE[metrics['task']]}",
        f"{cases}\n{note}" if note else cases,
    )


def _draw_maps(folder: Path, model: Model, predictions: list[Prediction], patients: list[Patient], data: str) -> None:
    for patient in patients:
        lines = [line for line in predictions if line.patient == patient.id and line.probability is not None]
        if lines:
            likelier = max(lines, key=lambda line: line.probability)  # of the two hemispheres in task "stroke"
            draw_on_atlas(
                folder / f"{patient.id}.png",
                model,
                likelier,
                hemispheres_of(patient, model, data),
                patient,
                scans_of(data, patient),
            )
