"""Scores of trained checkpoints on patients they have not seen, at the threshold they bring with them.

In:  checkpoints of run_train.py; DATA as run_preprocess.py leaves it; the name of a split.
Out: predictions.csv (and without_prediction.csv), metrics.json, roc.png and gradcam/<patient>.png for each checkpoint;
     comparisons.json where two have the same task; on request Table 2, with the older methods.
Paper: 3, Table 2, Figs 8 and 9.
See: tests/evaluation/test_evaluate.py

The threshold is validation's and is never fitted here (decision 8). Nobody is left out silently: patients without a
probability keep a row, and table and metrics.json say how many they cover (decision 13).
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tss.data.cohort import EXTERNAL, Patient
from tss.data.cohort_profile import Difference, differences, profile
from tss.data.files import alone_in, read_json, write_json
from tss.data.patients_seen import Hashes, hashes_of, why_not_new
from tss.data.prepared import Settings, cohort_file, differing_settings, read_prepared, read_settings
from tss.data.splits import split_hash
from tss.data.tasks import POSITIVE, TASKS
from tss.display.tables import aligned
from tss.errors import InputError
from tss.evaluation import checklist, gradcam_overlap, model_card, predictions_table, readers, table2
from tss.evaluation.auc_comparison import CLAIMS, claimed_pairs, compare_models, comparisons_rows, last_networks
from tss.evaluation.checklist import write_checklist
from tss.evaluation.ensemble import as_ensemble, picker_of
from tss.evaluation.gradcam_page import draw_on_atlas, scans_to_draw
from tss.evaluation.inference import Model, Prediction, hemispheres_of, open_models, predict_patients, side_picker
from tss.evaluation.model_card import write_model_card
from tss.evaluation.options import Options
from tss.evaluation.predictions_table import write_predictions
from tss.evaluation.promise import kept_on, promise_note, with_promise
from tss.evaluation.recalibration import recalibrated, without_those
from tss.evaluation.results import (
    COMPARISONS,
    DIFFERENCES,
    LEE2020,
    NETWORK,
    OUT_OF_FOLD,
    Comparison,
    Estimate,
    Row,
    Scores,
    as_json,
)
from tss.evaluation.run_facts import facts_of, read_run
from tss.evaluation.scores import coverage, coverage_line, score
from tss.evaluation.subgroups import score_subgroups
from tss.phantom.ideal_observer import PHANTOM_NOTE, ceilings, chance_interval, phantom_note
from tss.training.device import choose_device

HEMISPHERES_NOTE = (
    "Stroke in the hemisphere: the AUC's interval and DeLong's test count a patient's two hemispheres together "
    "(Obuchowski 1997); the other intervals count them as if independent."
)
EXTERNAL_NOTE = (
    "External patients, in no split of the cohort that the models were trained on: none of their scans is among those "
    "that a model has learned from, by their content."
)
OF_A_NETWORK = (*predictions_table.NAMES, "metrics.json", "roc.png", "gradcam")
USED = ("train", "val")  # splits whose patients the models may have learned from
REPORT = ("report.html", "figures", checklist.NAME, model_card.NAME)  # the first two as tss.evaluation.report has them


@dataclass(frozen=True)
class Selection:
    """What is evaluated: nothing has been computed yet, and all of it fits together."""

    options: Options
    models: list[Model]
    pickers: list[Model | None]  # of each model phase 1's, where some patient's side is unknown
    cohort: list[Patient]  # all splits
    patients: list[Patient]  # of the split
    settings: Settings  # of DATA
    study: dict  # what study.json says; empty without one
    lesions: dict[str, dict[str, gradcam_overlap.Lesion]] | None  # None: the Grad-CAM is not measured
    device: torch.device
    recalibration: str  # what is to be said of it; "" without one

    @property
    def out(self) -> Path:
        return Path(self.options.out)

    @property
    def split(self) -> str:
        """The split that is evaluated; EXTERNAL where all patients are."""
        assert self.options.split  # select() has settled it
        return self.options.split

    @property
    def drawn(self) -> list[Patient]:
        """The patients whose Grad-CAM is drawn."""
        return [patient for patient in self.patients if patient.status == "ok"][: self.options.gradcam]

    @property
    def phantom(self) -> str:
        """The cohort's column `phantom`: how widely onset shows on phantoms; "" of patients."""
        return self.cohort[0].row.get("phantom", "")

    def folder(self, model: Model) -> Path:
        return self.out if len(self.models) == 1 else self.out / model.name


STUDY_REMEDY = "Run python -m tss.study table2 again, which writes it."
# The shape of study.json, as far as it is read.
STUDY = {"weights?": {str: str}, "not_run?": [dict], "ensembles?": {str: [str]}}


class Network(NamedTuple):
    """A network that was evaluated."""

    model: Model
    row: Row
    predictions: list[Prediction]


def evaluate(options: Options) -> list[Row]:
    """Evaluate checkpoints on one split; returns the row of each, as written to its metrics.json.

    Raises InputError: a checkpoint and DATA do not belong together, or OUT has results already.
    """
    selection = select(options)
    with alone_in(selection.out):
        make_room(selection)
        return evaluate_selection(selection)


def evaluate_selection(selection: Selection) -> list[Row]:
    """Score, compare and write what was selected."""
    options = selection.options
    networks = []
    for model, picker in zip(selection.models, selection.pickers, strict=True):
        networks.append(score_network(model, picker, selection))
        write_network(networks[-1], selection)
    results = [network.row for network in networks]
    differ = differences_of(selection)
    write_differences(differ, selection)
    beside: dict[str, dict[str, list[Prediction]]] = {}
    older: list[Row] = []
    if options.table or options.report:
        # scipy's statistics take a second to load
        from tss.evaluation.older_methods import row_on_patients_of, run_older_methods

        tasks = [task for task in TASKS if any(row.task == task for row in results)]
        beside, older = run_older_methods(selection.cohort, options.data, tasks, selection.split)
        last = [row.name for task in tasks for row in last_networks(results, task)]
        for model, row, predictions in networks:
            if row.name in last and (processed := beside.get(row.task, {}).get(LEE2020)):
                if same := row_on_patients_of(LEE2020, processed, row, predictions, model.threshold):
                    older.append(same)
    compared = compare(networks, beside, chosen=bool(selection.study))
    write_comparisons(compared, selection)
    if options.table or options.report:
        planned = [Row(**row) for row in selection.study.get("not_run", [])]
        write_tables(table2.in_order(results, [*older, *planned]), results, compared, differ, selection)
    return results


def select(options: Options) -> Selection:
    """Open what is evaluated, and refuse what does not fit together."""
    opened = open_models(options.checkpoints)
    models = [as_ensemble(opened)] if options.ensemble else opened
    if options.ensemble and options.gradcam_scores:
        raise InputError("--gradcam-scores measures single networks: omit it, or --ensemble.")
    used: list[str] = []
    recalibration = ""
    if options.recalibration:
        if len(models) > 1 or options.promise is not None:
            raise InputError("--recalibration is of one model, or of an ensemble, and goes without --promise.")
        model, used, recalibration = recalibrated(models[0], options.recalibration)
        models = [model]
    if options.promise is not None:
        models = [with_promise(model, options.promise) for model in models]
    study = read_json(options.study, STUDY, STUDY_REMEDY) if options.study else {}
    cohort, settings = read_prepared(options.data), read_settings(options.data)
    if whole := "like" in settings and options.split is None:  # whatever the table calls them, they are new to CKPT
        for patient in cohort:
            patient.row["split"] = EXTERNAL
    options = replace(options, split=options.split or (EXTERNAL if whole else "test"))
    patients = [patient for patient in cohort if patient.split == options.split]
    if not patients:
        raise InputError(
            f"{cohort_file(options.data)} has no patient in the split {options.split!r}. Give another --split."
        )
    patients = without_those(patients, used)
    side_unknown = any(patient.status == "ok" and not patient.side for patient in patients)
    if side_unknown and options.ensemble:
        pickers = [picker_of(opened)]
    else:
        pickers = [side_picker(model, models) if side_unknown else None for model in models]
    for name, paths in study.get("ensembles", {}).items():  # beside the single networks
        members = open_models([str(Path(options.study or "").parent / path) for path in paths])
        models = [*models, as_ensemble(members)._replace(name=name)]
        pickers.append(picker_of(members) if side_unknown else None)
    new = [
        patient for patient in patients if patient.status == "ok" and ("like" in settings or options.split not in USED)
    ]
    hashes = hashes_of(options.data, new)
    for model in [*models, *filter(None, pickers)]:
        check_fits(model, cohort, settings, hashes, options.data)
    lesions = gradcam_overlap.lesions_of(patients, options.data) if options.gradcam_scores else None
    device = choose_device(options.device)
    selection = Selection(options, models, pickers, cohort, patients, settings, study, lesions, device, recalibration)
    scans = [path for patient in selection.drawn for path in scans_to_draw(options.data, patient).values()]
    if missing := [path for path in scans if not path.is_file()]:
        raise InputError(
            f"{missing[0]} is missing, and the Grad-CAM is drawn on it. Run run_preprocess.py again, or "
            "omit the pictures with --gradcam 0."
        )
    return selection


def make_room(selection: Selection) -> None:
    """Make room for the results, or refuse those that are there."""
    for model in selection.models:
        make_free(selection.folder(model), OF_A_NETWORK, selection.options.overwrite)
    make_free(selection.out, [COMPARISONS, DIFFERENCES, *table2.NAMES, *REPORT], selection.options.overwrite)


def check_fits(model: Model, cohort: list[Patient], settings: Settings, hashes: Hashes, data: str) -> None:
    """Refuse DATA of another grid; patients that the model has learned from, or may have (decision 20); and a cohort
    that is not its own and was not prepared as its own was.

    hashes: of the scans of the patients to be scored as new ones.
    """
    grid, own = list(settings["grid"]), model.checkpoint["cohort"] == split_hash(cohort)
    if model.checkpoint["grid"] != grid:
        raise InputError(
            f"{model.path} was trained on the grid {model.checkpoint['grid']}, {data} has {grid}. Give "
            f"its own --data, or preprocess with --grid {' '.join(map(str, model.checkpoint['grid']))}."
        )
    if why := why_not_new(hashes, model.checkpoint["patients_seen"], own):
        raise InputError(
            f"{model.path} {why}. Scores of patients that a model has seen say nothing: reject them in "
            f"{cohort_file(data)} (column verdict) or take them out of your table; where hashes are missing, "
            "run_preprocess.py --overwrite makes them."
        )
    differs = differing_settings(model.checkpoint["settings"].get("preprocessing", {}), settings)
    if differs and not own:
        raise InputError(
            f"{model.path} was trained on hemispheres that were preprocessed with different settings from those in "
            f"{data}: {differs}. Prepare these patients as its own were: "
            f"python run_preprocess.py COHORT_CSV --like {model.path} --out DATA"
        )


def make_free(folder: Path, names: Sequence[str], overwrite: bool) -> None:
    """Refuse a folder with results, or remove them: a picture of an earlier run must not pass for this one's."""
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


def score_network(model: Model, picker: Model | None, selection: Selection) -> Network:
    """Predict the patients of the split and score the predictions."""
    patients, options = selection.patients, selection.options
    of = "external cohort" if selection.split == EXTERNAL else f"{selection.split} split"
    print(f"{model.name}: {POSITIVE[model.task]}, {len(patients)} patients of the {of}", flush=True)
    predictions = predict_patients(model, picker, patients, options.data, selection.device)
    readings = overlap = None
    if model.task == readers.TASK and readers.names_of(patients):
        rng = np.random.default_rng(0)  # of the bootstrap: the same intervals from the same predictions
        readings = readers.score_readers(patients, predictions, model.threshold, rng)
    if selection.lesions is not None and not model.files:  # of single networks: an ensemble has no layer to explain
        overlap = gradcam_overlap.measure_overlap(model, predictions, patients, selection.lesions, options.data)
        print(f"  {gradcam_overlap.overlap_line(overlap)}", flush=True)
    found, promised = score(predictions, model.threshold), kept_on(model, predictions)
    if model.of_folds:
        found = replace(found, threshold_from=OUT_OF_FOLD)
    checkpoint, name, limit = model.checkpoint, POSITIVE[model.task], TASKS[model.task]
    return Network(
        model,
        Row(
            kind=NETWORK,
            name=model.name,
            task=model.task,
            split=selection.split,
            **{name: checkpoint[name] for name in ("phase", "model", "attention", "recipe", "parent", "cohort")},
            weights=first_weights(model, selection),
            checkpoint=model.named_files,
            checkpoint_sha256=model.sha256,
            members=len(model.files) or None,
            unit="hemisphere" if limit is None else "patient",
            positive_class=name if limit is None else f"{name} (onset_to_mri_min < {limit:.0f})",
            ceiling=ceiling_of(model.task, found, selection.phantom),
            notes=(*notes_on(model, selection), *([promise_note(model, promised)] if promised else [])),
            scores=found,
            recalibration=options.recalibration,
            coverage=coverage(predictions),
            subgroups=None if limit is None else score_subgroups(patients, predictions, model.threshold),
            readers=readings,
            gradcam=overlap,
            promise=promised,
        ),
        predictions,
    )


def ceiling_of(task: str, scores: Scores, phantom: str) -> Estimate | None:
    """Return of phantoms the best AUC on average, with where the scored patients may put it by chance."""
    if not phantom:
        return None
    interval = chance_interval(task, float(phantom), scores.n, scores.n_positive)
    return Estimate(ceilings(float(phantom))[task], interval or (0.0, 1.0))


def notes_on(model: Model, selection: Selection) -> tuple[str, ...]:
    """Return what has to be said with a network's scores."""
    split, data = selection.split, selection.options.data
    notes = []
    if TASKS[model.task] is None:
        notes.append(HEMISPHERES_NOTE)
    if split == EXTERNAL:
        notes.append(EXTERNAL_NOTE)
    elif split != "test":
        notes.append(f"The {split} split was used to make these models: its scores are optimistic.")
    if differs := differing_settings(model.checkpoint["settings"].get("preprocessing", {}), selection.settings):
        notes.append(
            f"{model.name} was trained on hemispheres that were preprocessed with different settings from those in "
            f"{data}: {differs}."
        )
    if selection.recalibration:
        notes.append(selection.recalibration)
    if selection.phantom:
        notes.append(PHANTOM_NOTE)
    return tuple(notes)


def first_weights(model: Model, selection: Selection) -> str:
    """Return what a model's weights were at first.

    A study knows best: a file of tensors does not say on what they were learned. A file's hash where the checkpoint
    is of before this was written down.
    """
    for path, words in selection.study.get("weights", {}).items():
        if os.path.realpath(Path(selection.options.study or "").parent / path) == os.path.realpath(model.path):
            return words
    parent = model.checkpoint["parent"]
    return model.checkpoint["settings"].get("weights") or (parent if parent == "random" else f"file {parent[:12]}")


def write_network(network: Network, selection: Selection) -> None:
    """Write a network's results to its folder, and draw them."""
    model, row, predictions = network
    folder = selection.folder(model)
    write_predictions(folder, model, predictions, selection.patients)
    write_json(folder / "metrics.json", as_json(row))
    _draw_roc(folder / "roc.png", row, phantom_note(selection.phantom, row.task, row.scored.n, row.scored.n_positive))
    for patient in selection.drawn:
        lines = [line for line in predictions if line.patient == patient.id and line.probability is not None]
        if lines:
            likelier = max(lines, key=lambda line: line.chance)  # of the two hemispheres in task "stroke"
            hemispheres = hemispheres_of(patient, model, selection.options.data)
            scans = scans_to_draw(selection.options.data, patient)
            draw_on_atlas(folder / "gradcam" / f"{patient.id}.png", model, likelier, hemispheres, patient, scans)
    if row.coverage:
        print(f"  {coverage_line(row.coverage)}\n  written to {folder}", flush=True)


def _draw_roc(path: Path, row: Row, note: str) -> None:
    auc, roc, (sensitivity, specificity, _) = row.scored.auc, row.scored.roc, row.scored.shares.values()
    if not (auc and roc and sensitivity and specificity and row.scored.threshold is not None):
        print(f"  no roc.png: {row.scored.auc_reason}", flush=True)
        return
    from tss.display import roc_plots

    cases = f"{row.split} split: {row.scored.n} {row.unit}s, {row.scored.n_positive} positive"
    roc_plots.draw_roc(
        path,
        (np.array(roc.false_positive_rate), np.array(roc.true_positive_rate)),
        auc.value,
        auc.ci,
        (1 - specificity.value, sensitivity.value),
        row.scored.threshold,
        f"{row.name}: {POSITIVE[row.task]}",
        f"{cases}\n{note}" if note else cases,
    )


def differences_of(selection: Selection) -> list[Difference]:
    """Return in what external patients differ from the first model's training patients; [] of others."""
    training = selection.models[0].checkpoint["settings"].get("profile")
    if selection.split != EXTERNAL or not training:
        return []
    here = [patient for patient in selection.patients if patient.status == "ok"]
    return differences(training, profile(selection.options.data, here))


def write_differences(differ: Sequence[Difference], selection: Selection) -> None:
    """Write external.json where the patients are, and print what was never seen in training."""
    if differ:
        write_json(selection.out / DIFFERENCES, {"differences": [line._asdict() for line in differ]})
    for line in differ:
        if line.outside:
            print(
                f"  outside the training patients' range: {line.what}: {line.here}; there {line.training}", flush=True
            )


def compare(
    networks: Sequence[Network], beside: Mapping[str, Mapping[str, list[Prediction]]], chosen: bool
) -> dict[str, list[Comparison]]:
    """Compare the AUCs of each task: every two networks, and each with each older method; by task.

    beside: task -> older method -> its predictions. chosen: compare what the paper makes claims about instead.
    """
    compared = {}
    for task in dict.fromkeys(network.row.task for network in networks):
        own = [network for network in networks if network.row.task == task]
        lines, older = {network.row.name: network.predictions for network in own}, beside.get(task, {})
        if chosen:
            pairs = claimed_pairs([network.row for network in own], list(older))
        else:  # a network beside each older method, not these beside each other
            pairs = [*combinations(lines, 2), *product(older, lines)]
        if pairs:
            compared[task] = compare_models({**lines, **older}, task, pairs)
    return compared


def write_comparisons(compared: Mapping[str, Sequence[Comparison]], selection: Selection) -> None:
    """Write comparisons.json where there are any, and print them."""
    if compared:
        write_json(selection.out / COMPARISONS, as_json(compared))
    for task, pairs in compared.items():
        print(f"\n{POSITIVE[task]}\n{aligned(comparisons_rows(pairs))}", flush=True)


def write_tables(
    rows: list[Row],
    results: list[Row],
    compared: dict[str, list[Comparison]],
    differ: Sequence[Difference],
    selection: Selection,
) -> None:
    """Write Table 2, and where it is asked for the report. rows: in the table's order. results: the networks'."""
    out, how_compared = selection.out, CLAIMS if selection.study else ""
    table2.write_table(out, rows, compared, results, how_compared)
    print(f"\n{' and '.join(table2.NAMES)} written to {out}", flush=True)
    if selection.options.report:
        from tss.evaluation.report import Findings, write_report  # matplotlib takes a second to load

        maps = {model.name: sorted(selection.folder(model).glob("gradcam/*.png")) for model in selection.models}
        found = Findings(
            selection.cohort,
            selection.patients,
            selection.split,
            rows,
            compared,
            how_compared,
            maps,
            selection.settings,
            differ,
        )
        write_report(out, found)
        described = [row.name for row in found.last_networks] or [row.name for row in found.networks[-1:]]
        folders = [(model, selection.folder(model)) for model in selection.models if model.name in described]
        run = read_run(out, selection.options.data, selection.cohort, selection.split, folders, found.phantoms)
        facts = facts_of(run)
        write_checklist(out, facts, run.phantoms)
        write_model_card(out, facts, run.phantoms)
        print(f"report.html, {checklist.NAME} and {model_card.NAME} written to {out}", flush=True)
