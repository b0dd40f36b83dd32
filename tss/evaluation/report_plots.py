"""Which rows of Table 2 are drawn together: ROC curves, bars of AUC, calibration and decision curves.

In:  the rows of Table 2 (tss.evaluation.results.Row).
Out: PNG files, one panel each; panels of one picture stand side by side where there is room.
Paper: Figs 6 and 7 (bars), Fig. 8 (ROC); calibration and decision curves are ours.
See: tests/evaluation/test_report_plots.py
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

from tss.data.tasks import POSITIVE
from tss.display import calibration_plots, roc_plots
from tss.evaluation.auc_comparison import IMAGENET, MEDICAL, PREVIOUS, RANDOM, kind_of_weights, last_networks
from tss.evaluation.results import CUTOFF, FLAIR_CLOCK, LEE2020, NETWORK, OLDER, READER, SOFT_CLOCK, Row, with_interval
from tss.evaluation.table2 import NOT_RUN, chance_text
from tss.metrics.failures import WRONG

ATTENTION = PREVIOUS + 1  # kinds after those of first weights
SLOTS = {RANDOM: "random", IMAGENET: "ImageNet", MEDICAL: "medical", PREVIOUS: "phase before", ATTENTION: "attention"}
MODELS = {"2d": "2D networks", "3d": "3D networks"}
OLDER_DRAWN = {FLAIR_CLOCK: ATTENTION + 1, LEE2020: ATTENTION + 3, SOFT_CLOCK: ATTENTION + 4}
OTHERS = ATTENTION + 2  # the other tissue clocks
MOST_CURVES = 4  # our choice: of networks in one panel; more are hard to follow


def draw_roc(folder: Path, rows: Sequence[Row], task: str) -> list[Path]:
    """Draw all ROC curves of a task: networks of each kind, then the older methods with the published cut-offs.

    Readers are points of every panel, and FLAIR ratio and soft clock are curves of every one: they must be beaten.
    """
    here = [row for row in rows if row.task == task and row.scores]
    networks = [row for row in here if row.kind == NETWORK and row.scored.roc]
    older = [row for row in where_used(here) if row.scored.roc]
    clock = [_curve(row) for row in older if row.method in (FLAIR_CLOCK, SOFT_CLOCK)]
    readers = {
        f"{row.name}: sensitivity {sensitivity:.2f}, specificity {specificity:.2f}": (1 - specificity, sensitivity)
        for row, sensitivity, specificity in _points(here, READER)
    }
    published = {
        f"{row.scored.threshold:.2f}": (1 - specificity, sensitivity)
        for row, sensitivity, specificity in _points(here, CUTOFF)
    }
    groups = (
        {"networks": networks}
        if len(networks) <= MOST_CURVES
        else {
            words + ", extended" * extended: [row for row in networks if is_of(row, model, extended)]
            for extended in (False, True)
            for model, words in MODELS.items()
        }
    )
    paths = []
    for name, group in {**groups, "older methods": older}.items():
        if group:
            paths.append(folder / f"roc_{_stem(task)}_{name.replace(' ', '_').lower()}.png")
            is_older = group is older
            curves = [_curve(row) for row in group] + clock * (not is_older)
            title = f"{POSITIVE[task]}: {name}\n{cases(group)}"
            roc_plots.draw_rocs(paths[-1], curves, readers, published if is_older else {}, title)
    return paths


def _points(rows: Sequence[Row], kind: str) -> list[tuple[Row, float, float]]:
    """Rows that are a point of the ROC plane, with sensitivity and specificity."""
    return [
        (row, shares.sensitivity.value, shares.specificity.value)
        for row in rows
        if row.kind == kind and (shares := row.scored.shares).sensitivity and shares.specificity
    ]


def draw_bars(folder: Path, rows: Sequence[Row], task: str) -> list[Path]:
    """Draw the AUCs of a task by first weights, 2D and 3D (Figs 6 and 7); what was not run is a gap that says so."""
    here = [row for row in rows if row.task == task]
    networks = [row for row in here if row.kind == NETWORK]
    groups = {}
    for model, extended in product(MODELS, (False, True)):
        own = [row for row in networks if is_of(row, model, extended)]
        slots = [
            kind
            for kind in SLOTS
            if (kind != IMAGENET or model == "2d")  # the paper has none in 3D
            and (kind != ATTENTION or any(row.attention for row in networks))
            and (not extended or any(kind_of(row) == kind for row in own))  # the paper's rows are not missed there
        ]
        if own:
            groups[model.upper() + " extended" * extended] = [bar for kind in slots for bar in _bars(own, kind)]
    if older := where_used(here):
        groups["older"] = [
            _bar("FLAIR ratio" if row.method == FLAIR_CLOCK else row.method or "", row)
            for row in older
            if row.method in OLDER_DRAWN
        ]
    if not any(bar.auc is not None for bars in groups.values() for bar in bars):
        return []
    path = folder / f"auc_{_stem(task)}.png"
    best = {
        f"the best possible on average on such phantoms: {row.ceiling.value:.3f}{chance_text(row.ceiling)}": row.ceiling
        for row in networks
        if row.ceiling is not None
    }
    roc_plots.draw_bars(path, groups, best, f"{POSITIVE[task]}: {cases(networks or older)}")
    return [path]


def _bars(rows: Sequence[Row], kind: int) -> list[roc_plots.Bar]:
    run = [row for row in rows if kind_of(row) == kind and row.scores]
    if not run:
        return [roc_plots.Bar(SLOTS[kind], None, None, kind, NOT_RUN)]
    return [_bar(SLOTS[kind] if len(run) == 1 else row.name, row) for row in run]


def _bar(label: str, row: Row) -> roc_plots.Bar:
    value, ci = row.scored.auc or (None, None)
    return roc_plots.Bar(label, value, ci, kind_of(row), "no AUC")


def draw_calibration(folder: Path, rows: Sequence[Row], task: str) -> list[Path]:
    """Draw calibration and decision curve of the last networks, in the latter the older methods beside them."""
    last = [row for row in last_networks(rows, task) if row.scored.calibration]
    if not last:
        return []
    names = [folder / f"{name}_{_stem(task)}.png" for name in ("calibration", "decision")]
    title = f"{POSITIVE[task]}: {cases(last)}"
    curves = {
        f"{row.name}: Brier score {with_interval(row.scored.brier, 3)}": row.scored.calibration or [] for row in last
    }
    calibration_plots.draw_calibration(names[0], curves, title)
    same = {row.scored.cases_sha256 for row in last}
    beside = [
        row
        for row in rows
        if row.task == task and row.method in OLDER_DRAWN and row.scores and row.scores.cases_sha256 in same
        if row.failures != WRONG  # at one neutral score, or without failures
    ]
    calibration_plots.draw_decision(
        names[1], {row.name: row.scored.decision_curve or [] for row in last + beside}, title
    )
    return names


def is_of(row: Row, model: str, extended: bool) -> bool:
    """Is this network 2D or 3D as asked, of the extended recipe or the paper's?"""
    return row.model == model and (row.recipe == "extended") == extended


def where_used(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of older methods that are of the patients that the method can process."""
    return [row for row in rows if row.kind == OLDER and row.scores and not row.about_everybody]


def cases(rows: Sequence[Row]) -> str:
    """Write how many cases some rows have, and what they are: a picture is copied without its page."""
    counts = {(row.scores.n, row.scores.n_positive): row for row in rows if row.scores}
    if len(counts) != 1:
        return "the rows have different cases: see Table 2"
    (n, positive), row = counts.popitem()
    return f"{n} {'phantom ' * (row.ceiling is not None)}{row.unit}s, {positive} positive"


def kind_of(row: Row) -> int:
    """Return which colour a row has: of a network the one of SLOTS that it belongs to."""
    if row.kind == OLDER:
        return OLDER_DRAWN.get(row.method or "", OTHERS)
    return ATTENTION if row.attention else kind_of_weights(row.weights)


def _curve(row: Row) -> roc_plots.Curve:
    found, roc = row.scored, row.scored.roc
    label = f"{row.method or row.name}: AUC {with_interval(found.auc, 3)}, n = {found.n}"
    x, y = (roc.false_positive_rate, roc.true_positive_rate) if roc else ([], [])
    return roc_plots.Curve(label, x, y, kind_of(row))


def _stem(task: str) -> str:
    return task.replace("<", "_")
