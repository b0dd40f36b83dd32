"""Which rows of Table 2 are drawn together: ROC curves, bars of AUC, calibration and decision curves.

In:  the rows of tss.evaluation.table2.
Out: PNG files, one panel each; panels of one picture stand side by side where there is room.
Paper: Figs 6 and 7 (bars), Fig. 8 (ROC); calibration and decision curves are ours.
See: tests/evaluation/test_report_plots.py
"""

from collections.abc import Sequence
from pathlib import Path

from tss.data.tasks import POSITIVE
from tss.display import calibration_plots, roc_plots
from tss.evaluation.auc_comparison import IMAGENET, MEDICAL, PREVIOUS, RANDOM, rank
from tss.evaluation.scores import with_interval
from tss.evaluation.table2 import CUTOFF, NOT_RUN

ATTENTION = PREVIOUS + 1  # kinds after those of first weights
SLOTS = {RANDOM: "random", IMAGENET: "ImageNet", MEDICAL: "medical", PREVIOUS: "phase before", ATTENTION: "attention"}
MODELS = {"2d": "2D networks", "3d": "3D networks"}
CLOCK, LEE = "tissue clock, FLAIR", "Lee 2020"
OLDER = {CLOCK: ATTENTION + 1, LEE: ATTENTION + 3}
OTHERS = ATTENTION + 2  # the other tissue clocks
MOST_CURVES = 4  # our choice: of networks in one panel; more are hard to follow


def draw_roc(folder: Path, rows: Sequence[dict], task: str) -> list[Path]:
    """Draw all ROC curves of a task: networks of each kind, then the older methods with the published cut-offs.

    Readers are points of every panel, and the FLAIR ratio is a curve of every one: it is what must be beaten.
    """
    drawn = [row for row in rows if row["task"] == task and "roc" in row]
    networks = [row for row in drawn if row["kind"] == "network"]
    older = where_used(drawn)
    clock = [_curve(row) for row in older if row["method"] == CLOCK]
    points = {
        name: {
            f"{row['name']}: sensitivity {row['sensitivity']:.2f}, specificity {row['specificity']:.2f}"
            if name == "reader"
            else f"{row['threshold']:.2f}": (1 - row["specificity"], row["sensitivity"])
            for row in rows
            if row["task"] == task and row["kind"] == name and None not in (row["sensitivity"], row["specificity"])
        }
        for name in ("reader", CUTOFF)
    }
    groups = (
        {"networks": networks}
        if len(networks) <= MOST_CURVES
        else {words: [row for row in networks if row["model"] == model] for model, words in MODELS.items()}
    )
    paths = []
    for name, group in {**groups, "older methods": older}.items():
        if group:
            paths.append(folder / f"roc_{_stem(task)}_{name.replace(' ', '_').lower()}.png")
            curves, cutoffs = (
                ([_curve(row) for row in older], points[CUTOFF])
                if group is older
                else ([_curve(row) for row in group] + clock, {})
            )
            roc_plots.draw_rocs(
                paths[-1], curves, points["reader"], cutoffs, f"{POSITIVE[task]}: {name}\n{cases(group)}"
            )
    return paths


def draw_bars(folder: Path, rows: Sequence[dict], task: str) -> list[Path]:
    """Draw the AUCs of a task by first weights, 2D and 3D (Figs 6 and 7); what was not run is a gap that says so."""
    here = [row for row in rows if row["task"] == task]
    networks = [row for row in here if row["kind"] == "network"]
    groups = {}
    for model in MODELS:
        own = [row for row in networks if row["model"] == model]
        slots = [
            kind
            for kind in SLOTS
            if (kind != IMAGENET or model == "2d")  # the paper has none in 3D
            and (kind != ATTENTION or any(row.get("attention") for row in networks))
        ]
        if own:
            groups[model.upper()] = [bar for kind in slots for bar in _bars(own, kind)]
    if older := where_used(here):
        groups["older"] = [
            _bar("FLAIR ratio" if row["method"] == CLOCK else row["method"], row)
            for row in older
            if row["method"] in OLDER
        ]
    if not any(bar.auc is not None for bars in groups.values() for bar in bars):
        return []
    path = folder / f"auc_{_stem(task)}.png"
    best = {
        f"the best that can be reached on average on such phantoms: {row['ceiling']:.3f}": row["ceiling"]
        for row in networks
        if "ceiling" in row
    }
    roc_plots.draw_bars(path, groups, best, f"{POSITIVE[task]}: {cases(networks or older)}")
    return [path]


def _bars(rows: Sequence[dict], kind: int) -> list[roc_plots.Bar]:
    found = [row for row in rows if kind_of(row) == kind]
    run = [row for row in found if row["stage"] != NOT_RUN]
    if not run:
        return [roc_plots.Bar(SLOTS[kind], None, None, kind, NOT_RUN)]
    return [_bar(SLOTS[kind] if len(run) == 1 else row["name"], row) for row in run]


def _bar(label: str, row: dict) -> roc_plots.Bar:
    return roc_plots.Bar(label, row["auc"], row["auc_ci"], kind_of(row), "no AUC")


def draw_calibration(folder: Path, rows: Sequence[dict], task: str) -> list[Path]:
    """Draw calibration and decision curve of the last networks, in the latter the older methods beside them."""
    shown = {row["name"]: row for row in last_networks(rows, task) if "calibration" in row}
    if not shown:
        return []
    names = [folder / f"{name}_{_stem(task)}.png" for name in ("calibration", "decision")]
    title = f"{POSITIVE[task]}: {cases(list(shown.values()))}"
    calibration_plots.draw_calibration(
        names[0],
        {f"{name}: Brier score {with_interval(row, 'brier', 3)}": row["calibration"] for name, row in shown.items()},
        title,
    )
    same = {row["cases_sha256"] for row in shown.values()}
    beside = {
        row["name"]: row
        for row in rows
        if row["task"] == task
        and row.get("method") in OLDER
        and row.get("cases_sha256") in same
        and "counted_against" in row["coverage"]
    }
    calibration_plots.draw_decision(
        names[1], {name: row["decision_curve"] for name, row in (shown | beside).items()}, title
    )
    return names


def last_networks(rows: Sequence[dict], task: str) -> list[dict]:
    """Return the network of the last phase of 2D and of 3D; of several, one that started from the phase before."""
    last = {}
    for row in rows:
        if row["task"] == task and row["kind"] == "network" and row["stage"] != NOT_RUN:
            order = (rank(row["weights"]) == PREVIOUS, row["phase"])
            if row["model"] not in last or order > last[row["model"]][0]:
                last[row["model"]] = order, row
    return [row for _, row in last.values()]


def where_used(rows: Sequence[dict]) -> list[dict]:
    """Return the rows of older methods that are of the patients whom the method can process."""
    return [
        row
        for row in rows
        if row["kind"] == "older method" and row["stage"] != NOT_RUN and "counted_against" not in row["coverage"]
    ]


def cases(rows: Sequence[dict]) -> str:
    """Write how many cases some rows have, and what they are: a picture is copied without its page."""
    counts = {(row["n"], row["n_positive"]): row for row in rows if row["stage"] != NOT_RUN}
    if len(counts) != 1:
        return "the rows have different cases: see Table 2"
    (n, positive), row = counts.popitem()
    unit = f"phantom {row['unit']}" if "ceiling" in row else row["unit"]
    return f"{n} {unit}s, {positive} positive"


def kind_of(row: dict) -> int:
    """Return which colour a row has: of a network the one of SLOTS that it belongs to."""
    if row["kind"] == "older method":
        return OLDER.get(row["method"], OTHERS)
    return ATTENTION if row.get("attention") else rank(row.get("weights", ""))


def _curve(row: dict) -> roc_plots.Curve:
    name = row.get("method") or row["name"]
    return roc_plots.Curve(
        f"{name}: AUC {with_interval(row, 'auc', 3)}, n = {row['n']}", *row["roc"].values(), kind_of(row)
    )


def _stem(task: str) -> str:
    return task.replace("<", "_")
