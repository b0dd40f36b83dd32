"""The paper's Table 2 for one's own patients: a row for each checkpoint, older method and reader.

In:  metrics as tss.evaluation.evaluate and tss.evaluation.older_methods leave them, the readers' figures among them; paired comparisons.
Out: rows; table2.csv (every figure in a column of its own, in full) and table2.md (for people).
Paper: Table 2; intervals, counts, coverage and the hash of the cases are ours (FIELD 2d: its rows cannot be of one
     test set, and it does not say which set its thresholds are from).
See: tests/evaluation/test_table2.py
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from tss.data.files import write_text
from tss.data.tasks import POSITIVE, TASKS
from tss.evaluation.auc_comparison import TRAINED_ONCE, comparisons_table, rank
from tss.evaluation.readers import MAJORITY, TASK, readers_table
from tss.evaluation.scores import with_interval
from tss.phantom.ideal_observer import CEILING_NOTE, PHANTOM_NOTE

NAMES = ("table2.md", "table2.csv")
CUTOFF = "published cut-off"
KINDS = ("network", "older method", CUTOFF, "reader")  # in this order within a task
FIGURES = {"auc": 3, "sensitivity": 2, "specificity": 2, "accuracy": 2}  # digits in table2.md
COUNTS = ("tp", "fp", "tn", "fn")
COVERED = ("patients", "scored", "label_unknown", "no_answer")  # the first is the sum of the others
HASH_SHOWN = 8  # hexadecimal digits in table2.md; our choice
NOT_RUN = "not run"  # the stage of such a row
BEST = "youden_on_this_split_optimistic"
WEIGHTS = {
    "phase 0": "Models Genesis, own (phase 0)",
    "Models Genesis": "Models Genesis, published",
    "ResNet-18": "ResNet-18, published (paper: ImageNet)",
}  # the other words of tss.training.run_setup.origin_of say enough
EXPLAINED = (
    "Sensitivity, specificity and accuracy are at the threshold that was chosen on validation; a reader has "
    "none, and a published cut-off is its own. 95 % intervals: DeLong's for the AUC (of hemispheres the "
    "bootstrap's by patient), Wilson's for the others. "
    "Cases: the first digits of the SHA-256 of the cases and their labels; rows with the same digits are of "
    "the same test set."
)


def rows_of(results: Sequence[dict], older: Sequence[dict] = (), not_run: Sequence[dict] = ()) -> list[dict]:
    """Return metrics as rows of the table, in the order of Table 2: by task, then networks, older methods, readers.

    results: of networks, as `tss.evaluate.evaluate` returns them. older: as `tss.baselines.figures` returns them.
    not_run: name, task and reason of what the table should have and has not; of a network "kind", phase, model and
        weights too.
    """
    rows = [_row(metrics, "network", _stage(metrics)) for metrics in results]
    rows += [_row(metrics, "older method", f"{POSITIVE[metrics['task']]}: older methods") for metrics in older]
    rows += [row for metrics in older for row in _cutoff_rows(metrics)]
    rows += [{"kind": "older method", "stage": NOT_RUN, **missing} for missing in not_run]
    if reading := next((metrics for metrics in results if "readers" in metrics), None):
        rows += _reader_rows(reading)
    best = {metrics["task"]: metrics["ceiling"] for metrics in results if "ceiling" in metrics}
    for row in rows:
        row |= {"ceiling": best[row["task"]], "phantoms": True} if row["task"] in best else {}
    tasks = list(TASKS)
    return sorted(
        rows,
        key=lambda row: (
            tasks.index(row["task"]),
            KINDS.index(row["kind"]),
            row.get("phase", 0),
            row.get("model", ""),
            rank(row.get("weights", "")),
        ),
    )


def _stage(metrics: dict) -> str:
    gates = ", attention and fine-tuning" if metrics["attention"] else ""
    return f"Phase {metrics['phase']}: {POSITIVE[metrics['task']]}{gates}"


def _row(metrics: dict, kind: str, stage: str) -> dict:
    covered = metrics["coverage"]
    counts = (covered["patients"], covered["scored"], len(covered["label_unknown"]), len(covered["no_probability"]))
    return metrics | {"kind": kind, "stage": stage} | dict(zip(COVERED, counts, strict=True))


def _cutoff_rows(metrics: dict) -> list[dict]:
    """The tissue clock's published cut-offs, on the patients whose ratio could be measured."""
    covered = {name: _row(metrics, "", "")[name] for name in COVERED}
    same = {name: metrics[name] for name in ("task", "positive_class", "split", "unit", "n_positive", "cases_sha256")}
    return [
        point
        | same
        | covered
        | {
            "kind": CUTOFF,
            "stage": f"{POSITIVE[metrics['task']]}: FLAIR ratio at most a published cut-off",
            "name": f"{point['cutoff']:.2f}, {point['source']}",
            "auc": None,
            "auc_ci": None,
            "threshold": point["cutoff"],
            "threshold_from": point["source"],
        }
        for point in metrics.get("cutoffs", ())
    ]


def _reader_rows(metrics: dict) -> list[dict]:
    """Readers judge the patients of the split whose onset is known; `metrics` are of a network beside them."""
    readers, patients = metrics["readers"], metrics["coverage"]["patients"]
    simulated = " (simulated)" * ("ceiling" in metrics)
    return [
        entry
        | {
            "kind": "reader",
            "stage": f"{POSITIVE[TASK]}: {readers['positive_call']}{simulated}",
            "task": TASK,
            "positive_class": metrics["positive_class"],
            "split": metrics["split"],
            "unit": "patient",
            "name": "readers' majority" if name == MAJORITY else name,
            "auc": None,
            "auc_ci": None,
            "patients": patients,
            "scored": entry["n"],
            "label_unknown": patients - readers["n_onset_known"],
            "no_answer": entry["without_call"],
        }
        for name, entry in readers["each"].items()
    ]


def to_csv(rows: Sequence[dict]) -> str:
    """Return the rows as CSV; what a row has no answer for is empty."""
    flat = [_flat(row) for row in rows]
    table = io.StringIO()
    writer = csv.DictWriter(table, flat[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return table.getvalue()


def _flat(row: dict) -> dict:
    """One value a column; the columns are the same for every row."""

    def plain(*names: str) -> dict:
        return {name: row.get(name) for name in names}

    def figures(found: dict, ending: str = "") -> dict:
        ends = {name: found.get(f"{name}_ci") or (None, None) for name in FIGURES}
        return {
            f"{column}{ending}": value
            for name in FIGURES
            for column, value in (
                (name, found.get(name)),
                (f"{name}_ci_low", ends[name][0]),
                (f"{name}_ci_high", ends[name][1]),
            )
        }

    best = row.get(BEST, {})
    optimistic = {name: value for name, value in figures(best, "_optimistic").items() if not name.startswith("auc")}
    attention = {True: "yes", False: "no"}.get(row.get("attention"))
    return (
        plain("stage", "kind", "name", "task", "positive_class", "phase", "model", "weights")
        | {"attention": attention}
        | plain("split", "unit", "n", "n_positive")
        | figures(row)
        | plain("threshold", "threshold_from", *COUNTS, *COVERED, "cases_sha256", "ceiling")
        | {"phantoms": "yes: not clinical results" if row.get("phantoms") else None}
        | plain("checkpoint", "checkpoint_sha256", "parent", "cohort", "chosen")
        | {"threshold_optimistic": best.get("threshold")}
        | optimistic
        | {"not_run": row.get("reason") if row["stage"] == NOT_RUN else None}
    )


def to_markdown(
    rows: Sequence[dict], compared: Mapping[str, Sequence[dict]], results: Sequence[dict], chosen: str = ""
) -> str:
    """Return the table for people: rows, what has to be said of them, best thresholds, comparisons, readers.

    compared: task -> what `tss.evaluation.auc_comparison.compare_models` found. chosen: how its pairs were chosen, in words.
    """
    shown = [row for row in rows if row["stage"] != NOT_RUN]
    missing = [why_not_run(row) for row in rows if row["stage"] == NOT_RUN]
    parts = [f"# Table 2, {results[0]['split']} split", *_of_phantoms(rows), _table(main_rows(shown)), EXPLAINED]
    parts += [*notes(shown), *(f"**{line}**" for line in different_patients(shown)), *missing]
    if best := [row for row in shown if BEST in row]:
        parts += [
            "## Optimistic: the threshold that is best for this very split (Youden on its answers)",
            _table(best_rows(best)),
        ]
    if compared:
        parts += ["## Paired comparisons, on the cases that both rows have", *[chosen] * bool(chosen), TRAINED_ONCE]
        parts += [f"{POSITIVE[task]}\n\n```\n{comparisons_table(pairs)}\n```" for task, pairs in compared.items()]
    if readings := readers_table(results):
        parts += ["## Readers", f"```\n{readings}\n```"]
    return "\n\n".join(parts) + "\n"


def _of_phantoms(rows: Sequence[dict]) -> list[str]:
    best = {POSITIVE[row["task"]]: f"{row['ceiling']:.3f}" for row in rows if "ceiling" in row}
    words = ", ".join(f"{task} {auc}" for task, auc in best.items())
    return [f"**{PHANTOM_NOTE}** {CEILING_NOTE[0].upper()}{CEILING_NOTE[1:]}: {words}."] if best else []


def why_not_run(row: dict) -> str:
    return f"Not run: {row['name']}, {POSITIVE[row['task']]}: {row['reason']}"


def notes(rows: Sequence[dict]) -> list[str]:
    """Return what has to be said of the rows, each sentence once; that they are phantoms is said elsewhere."""
    said = [note for row in rows for note in row.get("notes", ()) if note != PHANTOM_NOTE]
    return list(dict.fromkeys(said + [f"{row['name']}: {row['auc_reason']}." for row in rows if "auc_reason" in row]))


def main_rows(rows: Sequence[dict]) -> list[list[str]]:
    """Return the table as cells, the header first; a stage stands in the first row that it holds for.

    What was not run stands there too, if it is among the rows, with this word in the place of its number of cases.
    """
    lines = [
        [
            "",
            "",
            "Model",
            "Weights",
            "Attention",
            "n",
            "Positive",
            "AUC [95 % CI]",
            "Sensitivity",
            "Specificity",
            "Accuracy",
            "Threshold",
            *map(str.upper, COUNTS),
            "Patients covered",
            "Cases",
        ]
    ]
    stage = None
    for row in rows:
        weights, before, stage = row.get("weights", "-"), stage, _planned_stage(row)
        cells = [
            "" if stage == before else stage,
            row["name"],
            row.get("model", "-").upper(),
            WEIGHTS.get(weights, weights),
            {True: "yes", False: "no"}.get(row.get("attention"), "-"),
        ]
        if row["stage"] == NOT_RUN:
            lines.append(cells + [NOT_RUN] + ["-"] * (len(lines[0]) - len(cells) - 1))
            continue
        lines.append(
            cells
            + [
                f"{row['n']} {row['unit']}s",
                str(row["n_positive"]),
                *(with_interval(row, name, digits) for name, digits in FIGURES.items()),
                f"{row['threshold']:.3f}" if "threshold" in row else "-",
                *(str(row[name]) for name in COUNTS),
                f"{row['scored']} of {row['patients']}",
                row["cases_sha256"][:HASH_SHOWN],
            ]
        )
    return lines


def _planned_stage(row: dict) -> str:
    """The stage, of what was not run the one that it would have had."""
    if row["stage"] != NOT_RUN:
        return row["stage"]
    return _stage({"attention": False} | row) if row["kind"] == "network" else f"{POSITIVE[row['task']]}: older methods"


def best_rows(rows: Sequence[dict]) -> list[list[str]]:
    """Return the figures at the threshold that is best for this very split as cells, the header first."""
    names = [name for name in FIGURES if name != "auc"]
    return [["", "Threshold (optimistic)", *(f"{name.capitalize()} (optimistic)" for name in names)]] + [
        [
            f"{row['name']}, {POSITIVE[row['task']]}",
            f"{row[BEST]['threshold']:.3f}",
            *(with_interval(row[BEST], name, FIGURES[name]) for name in names),
        ]
        for row in rows
    ]


def different_patients(rows: Sequence[dict]) -> list[str]:
    """Return a line for each task whose rows are not all of the same cases."""
    lines = []
    for task, positive in POSITIVE.items():
        sets: dict[str, list[str]] = {}
        for row in rows:
            if row["task"] == task and row["n"] and row["kind"] != CUTOFF:  # theirs is the tissue clock's set
                sets.setdefault(row["cases_sha256"], []).append(row["name"])
        if len(sets) > 1:
            who = "; ".join(f"{cases[:HASH_SHOWN]}: {' + '.join(names)}" for cases, names in sets.items())
            lines.append(
                f"{positive}: the rows are of different sets of patients ({who}). Only paired comparisons are "
                "of the same patients."
            )
    return lines


def _table(lines: Sequence[Sequence[str]]) -> str:
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in (cells[0], ["---"] * len(cells[0]), *cells[1:]))


def write_table(
    folder: Path,
    rows: Sequence[dict],
    compared: Mapping[str, Sequence[dict]],
    results: Sequence[dict],
    chosen: str = "",
) -> None:
    """Write table2.md and table2.csv."""
    write_text(folder / "table2.md", to_markdown(rows, compared, results, chosen))
    write_text(folder / "table2.csv", to_csv(rows))
