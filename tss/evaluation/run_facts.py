"""What the files of a run say of it: sentences, each with the file and the place in it that it was read from.

In:  OUT as run_eval.py has just left it, DATA, the checkpoints.
Out: topic -> Facts; a topic of which the files say nothing has none.
Paper: none (CLAIM 2024 and TRIPOD+AI ask where each figure stands).
See: tests/evaluation/test_checklist.py, which looks every figure up again

A sentence is made of values that were looked up, and of nothing else: what is not in a file cannot be said.
"""

import csv
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tss.data.acquisition import COLUMNS
from tss.data.cohort import EXTERNAL, READER, SPLITS, Patient, is_number
from tss.data.files import read_json
from tss.data.prepared import cohort_file, settings_file
from tss.evaluation.inference import CALLED_NEGATIVE, CALLED_POSITIVE, UNSURE, Model
from tss.evaluation.predictions_table import PREDICTIONS
from tss.evaluation.results import COMPARISONS, DIFFERENCES
from tss.evaluation.table2 import INTERVALS
from tss.evaluation.table2 import NAMES as TABLES
from tss.training.phases import RECIPES

MOST_NAMED = 10  # our choice: values, reasons or patients in a sentence; the file has all
NUMBERS = {"age": "Age, years", "nihss": "NIHSS", "onset_to_mri_min": "Onset to MRI, minutes"}
UNKNOWN = {"onset_to_mri_min": "onset", "stroke_side": "side", "age": "age", "sex": "sex", "nihss": "NIHSS"}
KINDS = {
    "2d": "a convolutional network, ResNet-18 slice by slice",
    "3d": "a convolutional network, the encoder of a 3D U-Net",
}
TABLE = TABLES[0]
Facts = dict[str, list["Fact"]]


class Fact(NamedTuple):
    """A sentence, and where it was read."""

    text: str
    file: str  # relative to OUT
    where: str  # keys or columns

    def __str__(self) -> str:
        return f"{self.text} (`{self.file}`: {self.where})"


class Source(NamedTuple):
    """A file's content: keys and values, in each other."""

    file: str
    content: Mapping[str, Any]

    def value(self, key: str) -> Any:
        """Look up a key such as "auc_ci.0"; None where it is absent or says nothing."""
        found: Any = self.content
        for part in key.split("."):
            try:
                found = found[int(part)] if isinstance(found, (list, tuple)) else found[part]
            except (KeyError, IndexError, ValueError, TypeError):
                return None
        return None if found in ("", [], {}) else found

    def say(self, template: str, *keys: str) -> list[Fact]:
        """Fill a sentence with values, in the order of the keys; [] where one of them is absent."""
        values = [self.value(key) for key in keys]
        if any(value is None for value in values):
            return []
        return [Fact(template.format(*values), self.file, ", ".join(keys))]

    def entries(self, template: str, key: str) -> list[Fact]:
        """Fill a sentence with the number of entries; [] where the key is absent."""
        found = self.value(key)
        return [] if found is None else [Fact(template.format(len(found)), self.file, f"{key}, its entries")]


class Network(NamedTuple):
    """The files of one network that was evaluated."""

    name: str
    metrics: Source
    checkpoint: Source
    predictions: str  # file
    lines: list[dict[str, str]]
    maps: int  # pictures of its Grad-CAM
    maps_folder: str


class Run(NamedTuple):
    """The files of an evaluation."""

    patients: Sequence[Patient]
    split: str
    cohort: str  # file
    settings: Source
    networks: list[Network]
    table: str  # file
    comparisons: Source | None
    external: Source | None
    phantoms: bool


def read_run(
    out: Path, data: str, patients: Sequence[Patient], split: str, folders: Sequence[tuple[Model, Path]], phantoms: bool
) -> Run:
    """Read what an evaluation has left; folders: the networks to be described, and where their results lie."""

    def near(path: str | os.PathLike) -> str:
        return Path(os.path.relpath(os.path.realpath(path), os.path.realpath(out))).as_posix()

    def source(path: Path) -> Source | None:
        return Source(near(path), read_json(path)) if path.is_file() else None

    networks = []
    for model, folder in folders:
        with open(folder / PREDICTIONS, encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        tensors = model.network.state_dict().values()
        about = {
            **{key: value for key, value in model.checkpoint.items() if key not in ("state_dict", "validation")},
            "state_dict": {"tensors": len(tensors), "numbers": sum(tensor.numel() for tensor in tensors)},
        }
        metrics, maps = source(folder / "metrics.json"), folder / "gradcam"
        assert metrics  # it was written a moment ago
        checkpoint = Source(near(model.path), about if not model.files else about | {"state_dict": None})
        networks.append(
            Network(
                model.name, metrics, checkpoint, near(folder / PREDICTIONS), lines, len([*maps.glob("*.png")]),
                near(maps),
            )
        )  # fmt: skip
    settings = source(settings_file(data))
    assert settings
    comparisons, external = source(out / COMPARISONS), source(out / DIFFERENCES)
    return Run(patients, split, near(cohort_file(data)), settings, networks, TABLE, comparisons, external, phantoms)


def facts_of(run: Run) -> Facts:
    """Return topic -> facts."""
    facts = _of_cohort(run) | _of_settings(run)
    for network in run.networks:
        for topic, said in _of_network(network).items():
            prefix = f"{network.name}: " * (len(run.networks) > 1)
            facts.setdefault(topic, []).extend(fact._replace(text=prefix + fact.text) for fact in said)
    if run.comparisons:
        for task, pairs in run.comparisons.content.items():
            tested = sum(pair.get("pvalue") is not None for pair in pairs)
            text = f"{task}: {tested} paired differences of AUCs, by DeLong's test with Holm's correction."
            facts.setdefault("tests", []).append(Fact(text, run.comparisons.file, f"{task}, pvalue, pvalue_holm"))
    facts["intervals"] = [Fact(INTERVALS, run.table, "below the table")]
    if run.external:
        lines = run.external.content["differences"]
        beyond = [line["what"] for line in lines if line["outside"]]
        text = f"{len(beyond)} of {len(lines)} compared figures lie outside the training patients' range"
        text += f": {_listed(beyond)}." if beyond else "."
        facts["differences"] = [Fact(text, run.external.file, "what, outside")]
    return {topic: said for topic, said in facts.items() if said}


def _of_cohort(run: Run) -> Facts:
    patients, groups = run.patients, _groups(run)

    def fact(text: str, *columns: str) -> list[Fact]:
        return [Fact(text, run.cohort, f"column{'s' * (len(columns) > 1)} {', '.join(columns)}")]

    def known(column: str) -> bool:
        return any(patient.row.get(column) for patient in patients)

    def counts(column: str) -> str:
        return _counted(patient.row.get(column) or "unknown" for patient in patients)

    facts: Facts = {
        "numbers": fact(f"{len(patients)} patients: {_sizes(groups)}.", "patient", "split"),
        "excluded": _excluded(run, fact),
        "partition": fact(
            f"{len(patients)} lines, one a patient, each in one split: {_sizes(groups)}.", "patient", "split"
        ),
    }
    there = {column: words for column, words in UNKNOWN.items() if any(column in p.row for p in patients)}
    if there:
        missing = [f"{words} of {sum(not p.row.get(column) for p in patients)}" for column, words in there.items()]
        facts["unknown"] = fact(f"Not known, of {len(patients)} patients: {', '.join(missing)}.", *there)
    if known("site"):
        facts["sites"] = fact(f"Patients by site: {counts('site')}.", "site")
    scanned = {"scanner": "Scanner", **COLUMNS, "dwi_b": "b of the DWI (s/mm^2)"}
    facts["scanners"] = [
        one
        for column, words in scanned.items()
        if known(column)
        for one in fact(f"{words}, patients: {counts(column)}.", column)
    ]
    facts["people"] = [
        one
        for column, words in NUMBERS.items()
        if known(column)
        for one in fact(f"{words}, median (quartiles), of how many known: {_spreads(groups, column)}.", column, "split")
    ]
    if known("sex"):
        sexes = {name: [p.row["sex"].lower() for p in g if p.row.get("sex")] for name, g in groups.items()}
        women = {name: sum(sex in ("f", "female") for sex in group) for name, group in sexes.items()}
        text = ", ".join(f"{name} {count} of {len(sexes[name])}" for name, count in women.items())
        facts["people"] += fact(f"Women, of those whose sex is known: {text}.", "sex", "split")
    if known("onset_to_mri_min"):
        timed = sum(patient.minutes is not None for patient in patients)
        facts["onset"] = fact(f"The time from onset to MRI is known of {timed} of {len(patients)}.", "onset_to_mri_min")
    here = groups.get(run.split, [])
    readers = sorted({column for patient in patients for column in patient.row if READER.fullmatch(column)})
    if readers and here:
        read = ", ".join(f"{name} {sum(name in patient.readings for patient in here)}" for name in readers)
        facts["readings"] = fact(
            f"DWI-FLAIR mismatch was judged, of {len(here)} {run.split} patients: {read}.", *readers
        )
    if known("lesion"):
        drawn = sum(bool(patient.row.get("lesion")) for patient in patients)
        facts["lesions"] = fact(f"{drawn} of {len(patients)} patients have a lesion mask.", "lesion")
    return facts


def _groups(run: Run) -> dict[str, list[Patient]]:
    groups = {name: [patient for patient in run.patients if patient.split == name] for name in (*SPLITS, EXTERNAL)}
    return {name: group for name, group in groups.items() if group}


def _excluded(run: Run, fact: Callable[..., list[Fact]]) -> list[Fact]:
    found = Counter(patient.status or "not preprocessed" for patient in run.patients)
    judged, remarked = (any(name in p.row for p in run.patients) for name in ("verdict", "verdict_remark"))
    done = found["ok"] + found["rejected"]
    text = f"Of {len(run.patients)} patients {done} were preprocessed, {found['failed']} failed."
    text += f" Rejected at quality control: {found['rejected']}." * judged
    said = fact(text, "status", *["verdict"] * judged)
    reasons = [patient.reason for patient in run.patients if patient.status in ("failed", "rejected")]
    columns = ("reason", *["verdict_remark"] * remarked)
    return said + (fact(f"Why: {_counted(reasons)}.", *columns) if reasons else [])


def _of_settings(run: Run) -> Facts:
    say = run.settings.say
    return {
        "preprocessing": [
            *say("Brain extraction and registration: {}.", "tools"),
            *say("Atlas grid: {} x {} x {} voxels.", "grid.0", "grid.1", "grid.2"),
            *say("T2w atlas: {}, SHA-256 {}.", "atlas", "atlas_sha256"),
            *say("Histograms are matched to those of patient {}.", "reference.patient"),
            *say("Prepared as the patients of {} were, SHA-256 {}.", "like.checkpoint", "like.sha256"),
        ],
        "partition seed": say("Patients without a split of their own were divided with seed {}.", "seed"),
        "software": [
            fact
            for name in filter(str.isidentifier, run.settings.value("versions") or {})
            for fact in say(f"Preprocessing: {name} {{}}.", f"versions.{name}")
        ],
    }


def _of_network(network: Network) -> Facts:
    members = str(network.metrics.value("checkpoint") or "").split(", ")
    said, checkpoint = network.metrics.say, network.checkpoint

    def stored(template: str, *keys: str) -> list[Fact]:
        return checkpoint.say("First member: " * (len(members) > 1) + template, *keys)

    kind = KINDS.get(str(network.checkpoint.value("model")), "")
    interval = "{:.3f} [95 % CI {:.3f} to {:.3f}]"
    percent = "[95 % CI {:.2f} to {:.2f}]"
    attention = {True: "with attention gates", False: "without attention gates"}
    recipe, phase = RECIPES.get(str(checkpoint.value("recipe")), {}), checkpoint.value("phase")
    keeps_last = phase in recipe and recipe[phase].keeps == "last"
    has_gates = attention.get(network.checkpoint.value("attention"), "")
    together = (
        f"One model of {len(members)} checkpoints, the mean of their logits."
        if len(members) > 1
        else "No ensemble: one checkpoint."
    )
    return {
        "technology": stored(f"Deep learning: {kind} (model {{}}).", "model") if kind else [],
        "internal": []
        if network.metrics.value("split") == EXTERNAL
        else said("{} cases of the cohort's own split {}: AUC {:.3f}.", "n", "split", "auc"),
        "external": said("{} cases of an external cohort (split {}): AUC {:.3f}.", "n", "split", "auc")
        if network.metrics.value("split") == EXTERNAL
        else said("None: the cases are of the cohort's own split {}.", "split"),
        "limits": said("{} cases, {} positive: the AUC's 95 % interval is from {:.3f} to {:.3f}.", "n", "n_positive",
                       "auc_ci.0", "auc_ci.1"),
        "goal": said("A classifier of {}, evaluated on the split {}.", "positive_class", "split"),
        "outcome": said("Positive is {}.", "positive_class"),
        "network": [
            *(stored(f"{kind}, first stage {{}} channels wide, {has_gates}.", "width", "attention") if kind else []),
            *stored("In: hemispheres of DWI, T2w and FLAIR, of a grid of {} x {} x {} voxels for both; out: one logit.",
                    "grid.0", "grid.1", "grid.2"),
            *stored("{} tensors of {:,} numbers.", "state_dict.tensors", "state_dict.numbers"),
        ],
        "subsets": [
            *said("Each case is a {}.", "unit"),
            *network.metrics.entries("Phase 1 chose the hemisphere of {} patients whose side is unknown.",
                                   "coverage.side_chosen_by_phase_1"),
        ],
        "software": stored("Training: tss {}, torch {}, python {}.", "settings.versions.tss",
                           "settings.versions.torch", "settings.versions.python"),
        "first weights": [
            *said("First weights: {}.", "weights"),
            *said("The file they came from, SHA-256: {}.", "parent"),
        ],
        "training": [
            *stored("Recipe {}, phase {}, task {}.", "recipe", "phase", "task"),
            *stored("AdaBound, learning rate {:g} to {:g}, batches of {}.", "settings.lr", "settings.final_lr",
                    "settings.batch_size"),
            *(stored("{} epochs, the last one kept, without early stopping.", "settings.epochs")
              if keeps_last else stored("At most {} epochs, patience {}.", "settings.epochs", "settings.patience")),
            *stored("Seed {}, precision {}.", "settings.seed", "settings.precision"),
            *checkpoint.entries("Tensors that were frozen: {}.", "frozen"),
            *stored("Validated on fold {}.", "settings.fold"),
        ],
        "selection": stored("Epoch {} was kept, with a validation AUC of {:.3f}.", "epoch", "val_auc"),
        "ensemble": [Fact(together, network.metrics.file, "checkpoint")] if members != [""] else [],
        "threshold": said("Positive is called from a probability of {:.3f} on, chosen on: {}.", "threshold",
                          "threshold_from"),
        "cases": said("{} cases scored, {} positive.", "n", "n_positive"),
        "covered": [
            *said("{} of {} patients scored.", "coverage.scored", "coverage.patients"),
            *network.metrics.entries("{} patients have no prediction.", "coverage.no_probability"),
            *network.metrics.entries("{} patients have a prediction and no known label.", "coverage.label_unknown"),
        ],
        "auc": said(f"AUC {interval}.", "auc", "auc_ci.0", "auc_ci.1"),
        "shares": [
            fact
            for name in ("sensitivity", "specificity", "accuracy")
            for fact in said(f"{name.capitalize()} {{:.3f}} {percent}.", name, f"{name}_ci.0", f"{name}_ci.1")
        ] + said("True positives {}, false positives {}, true negatives {}, false negatives {}.", "tp", "fp", "tn",
                 "fn"),
        "calibration": said(f"Brier score {interval}.", "brier", "brier_ci.0", "brier_ci.1"),
        "over all": said("Over all {} cases, {} of them without a prediction: AUC {:.3f} with these as wrong, {:.3f} "
                         "with these at one neutral score.", "over_all.n", "over_all.failures",
                         "over_all.as_wrong.auc", "over_all.at_neutral.auc"),
        "measures": [Fact(f"Measured: {_measures(network)}.", network.metrics.file, _measures(network))],
        "errors": _errors(network),
        "groups": _of_groups(network),
        "agreement": said(f"Fleiss' kappa of the readers {interval}, on {{}} patients.", "readers.fleiss_kappa.kappa",
                          "readers.fleiss_kappa.kappa_ci.0", "readers.fleiss_kappa.kappa_ci.1",
                          "readers.fleiss_kappa.n"),
        "maps": [
            *([Fact(f"Patients whose Grad-CAM is drawn: {network.maps}.", network.maps_folder, "pictures")]
              if network.maps else []),
            *said("Mean share of the map in the lesion {:.3f} in {} patients.",
                  "gradcam.share_in_lesion.mean", "gradcam.measured"),
        ],
        "training patients": [
            *stored("{} training patients.", "settings.profile.patients"),
            *stored("DWI of the training patients: pixels {:.2f} mm, slices {:.2f} mm apart (medians).",
                    "settings.profile.numbers.dwi_pixel_mm.percentiles.2",
                    "settings.profile.numbers.dwi_slice_mm.percentiles.2"),
            *stored("FLAIR of the training patients: pixels {:.2f} mm, slices {:.2f} mm apart (medians).",
                    "settings.profile.numbers.flair_pixel_mm.percentiles.2",
                    "settings.profile.numbers.flair_slice_mm.percentiles.2"),
        ],
        "promise": said("Promised PPV and NPV {}: {} of {} cases are unsure.", "promise.promised", "promise.unsure",
                        "promise.n"),
        "recalibration": said("Recalibrated for a site by {}.", "recalibration"),
        "files": said("The checkpoint: {}, SHA-256 {}.", "checkpoint", "checkpoint_sha256"),
        "cohort hash": said("Who is in which split, SHA-256: {}.", "cohort"),
    }  # fmt: skip


def _measures(network: Network) -> str:
    names = ("auc", "sensitivity", "specificity", "accuracy", "brier", "calibration", "decision_curve")
    return ", ".join(name for name in names if network.metrics.value(name) is not None)


def _errors(network: Network) -> list[Fact]:
    """Whom a network calls wrongly, by its threshold or the cuts of a promise."""
    counted = [line for line in network.lines if line["label"] and line["probability"]]
    if not counted:
        return []
    negative, positive = (
        [line["patient"] for line in counted if (line["verdict"], line["label"]) == wrong]
        for wrong in ((CALLED_NEGATIVE, "1"), (CALLED_POSITIVE, "0"))
    )
    names = [f": {_listed(patients)}" if patients else "" for patients in (negative, positive)]
    unsure = sum(line["verdict"] == UNSURE for line in counted)
    text = (
        f"Of {len(counted)} cases {len(negative)} are falsely called negative{names[0]}; {len(positive)} falsely "
        f"positive{names[1]}{f'; {unsure} are unsure' * bool(unsure)}."
    )
    return [Fact(text, network.predictions, "columns patient, label, probability, verdict")]


def _of_groups(network: Network) -> list[Fact]:
    """Its AUC in groups; where all are withheld, nothing was looked at."""
    cells = [f"subgroups.{number}." for number, _ in enumerate(network.metrics.value("subgroups") or [])]
    shown = [
        fact
        for cell in cells
        for fact in network.metrics.say(
            "{}, {}: AUC {:.3f} [95 % CI {:.3f} to {:.3f}], n = {}.",
            *(cell + key for key in ("group", "cell", "auc", "auc_ci.0", "auc_ci.1", "n")),
        )
    ]
    text = f"In {len(cells) - len(shown)} of {len(cells)} groups the AUC is withheld: too few patients."
    return [*shown, Fact(text, network.metrics.file, "subgroups, auc")] if 0 < len(shown) < len(cells) else shown


def _sizes(groups: Mapping[str, Sequence[Patient]]) -> str:
    return ", ".join(f"{name} {len(group)}" for name, group in groups.items())


def _spreads(groups: Mapping[str, Sequence[Patient]], column: str) -> str:
    parts = []
    for name, group in groups.items():
        values = [float(patient.row[column]) for patient in group if is_number(patient.row.get(column, ""))]
        if values:
            quarter, half, three = np.percentile(values, [25, 50, 75])
            parts.append(f"{name} {half:.4g} ({quarter:.4g} to {three:.4g}), {len(values)}")
    return "; ".join(parts)


def _counted(values: Iterable[str]) -> str:
    return _listed([f"{value} ({count})" for value, count in Counter(values).most_common()])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + f" and {len(names) - MOST_NAMED} more" * (len(names) > MOST_NAMED)
