"""The paper's Table 2 for one's own patients: a row for each checkpoint, older method and reader.

In:  rows of tss.evaluation.evaluate and tss.evaluation.older_methods, those of networks with readers; comparisons.
Out: rows in order; table2.csv (every number in a column of its own, in full) and table2.md (for people).
Paper: Table 2; intervals, counts, coverage and the hash of the cases are ours (its rows cannot be of one test set, and
     it does not say which set its thresholds are from).
See: tests/evaluation/test_table2.py
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tss.data.files import as_csv, write_text
from tss.data.tasks import POSITIVE, TASKS
from tss.display.tables import aligned
from tss.evaluation.auc_comparison import TRAINED_ONCE, comparisons_rows, kind_of_weights
from tss.evaluation.readers import MAJORITY, TASK, readers_table
from tss.evaluation.results import (
    CUTOFF,
    KINDS,
    NETWORK,
    READER,
    SUBSET,
    Comparison,
    Covered,
    Estimate,
    OverAll,
    Row,
    Scores,
    with_interval,
)
from tss.evaluation.scores import over_all_line
from tss.phantom.ideal_observer import CEILING_NOTE, PHANTOM_NOTE

NAMES = ("table2.md", "table2.csv")
SHARES = ("sensitivity", "specificity", "accuracy")
HASH_SHOWN = 8  # hexadecimal digits in table2.md; our choice
NOT_RUN = "not run"  # in the place of such a row's stage in table2.csv, and of its number of cases for people
YES_NO = {True: "yes", False: "no"}
WEIGHTS = {
    "phase 0": "Models Genesis, own (phase 0)",
    "Models Genesis": "Models Genesis, published",
    "ResNet-18": "ResNet-18, published (paper: ImageNet)",
}  # the other words of tss.training.checkpoint.Parent.origin say enough
INTERVALS = (
    "95 % intervals: DeLong's on the logit scale for the AUC (hemispheres: by patient, Obuchowski 1997), Wilson's "
    "for sensitivity, specificity and accuracy. In simulated studies of 82 patients they hold the truth in 93 to 97 of "
    "100; a subgroup's AUC with 5 to 15 patients of a class in 93 to 99; a difference of AUCs over 0.9 with 15 "
    "patients of each class in 91."
)
EXPLAINED = (
    "Sensitivity, specificity and accuracy are at the threshold that was chosen on validation; a reader has none, and "
    f"a published cut-off is its own. {INTERVALS} Cases: the first digits of the SHA-256 of the cases and their "
    "labels; rows with the same digits are of the same test set."
)


def in_order(results: Sequence[Row], older: Sequence[Row] = ()) -> list[Row]:
    """Return the table's rows in the order of Table 2: by task, then networks, older methods, cut-offs, readers.

    results: networks that were evaluated; the readers beside the first that has any become rows. older: rows of older
    methods and of what was not run. Where a task's networks have a ceiling, all its rows get it.
    """
    rows = [*results, *older, *_reader_rows(next((row for row in results if row.readers), None))]
    ceilings = {row.task: row.ceiling for row in results}
    tasks = list(TASKS)
    return sorted(
        (replace(row, ceiling=ceilings.get(row.task)) for row in rows),
        key=lambda row: (
            tasks.index(row.task),
            KINDS.index(row.kind),
            row.phase or 0,
            row.model or "",
            row.recipe == "extended",
            kind_of_weights(row.weights),
        ),
    )


def _reader_rows(network: Row | None) -> list[Row]:
    """Readers judge the patients of the split whose onset is known; `network` is one beside them."""
    if not network or not network.readers or not network.coverage:
        return []
    readers, patients = network.readers, network.coverage.patients
    return [
        Row(
            kind=READER,
            name="readers' majority" if name == MAJORITY else name,
            task=TASK,
            split=network.split,
            positive_class=network.positive_class,
            covered=Covered(patients, found.n, patients - readers.n_onset_known, found.without_call),
            scores=Scores(
                n=found.n,
                n_positive=found.n_positive,
                cases_sha256=found.cases_sha256,
                auc=None,
                shares=found.shares,
                counts=found.counts,
            ),
        )
        for name, found in readers.each.items()
    ]


def stage_of(row: Row) -> str:
    """Return under which heading a row appears; what was not run, under the one that it would have had."""
    task = POSITIVE[row.task]
    if row.kind == NETWORK:
        return f"Phase {row.phase}: {task}{', attention and fine-tuning' * bool(row.attention)}"
    if row.kind == SUBSET:
        return f"{task}: networks on the patients that {row.method} can process"
    if row.kind == CUTOFF:
        return f"{task}: FLAIR ratio at most a published cut-off"
    if row.kind == READER:
        return f"{task}: DWI-FLAIR mismatch{' (simulated)' * (row.ceiling is not None)}"
    return f"{task}: older methods"


def to_csv(rows: Sequence[Row]) -> str:
    """Return the rows as CSV; what a row has no answer for is empty."""
    return as_csv([_flat(row) for row in rows])


def _flat(row: Row) -> dict[str, object]:
    """One value a column; the columns are the same for every row."""
    found = row.scores
    best = found and found.youden_on_this_split_optimistic
    estimates = [
        ("auc", found.auc if found else None),
        *zip(SHARES, found.shares.values() if found else [None] * 3, strict=True),
    ]
    at_best = zip(SHARES, best.shares.values() if best else [None] * 3, strict=True)
    return (
        {"stage": stage_of(row) if found else NOT_RUN}
        | {
            name: getattr(row, name)
            for name in ("kind", "name", "task", "positive_class", "phase", "model", "recipe", "weights")
        }
        | {"attention": None if row.attention is None else YES_NO[row.attention], "split": row.split}
        | {"unit": row.unit if found else None, "n": found and found.n, "n_positive": found and found.n_positive}
        | {column: value for name, estimate in estimates for column, value in _columns(name, estimate).items()}
        | {"threshold": found and found.threshold, "threshold_from": found and found.threshold_from}
        | dict(zip(("tp", "fp", "tn", "fn"), found.counts if found else [None] * 4, strict=True))
        | dict(zip(Covered._fields, row.covering or [None] * 4, strict=True))
        | {"cases_sha256": found and found.cases_sha256, "failures": row.failures}
        | _over_all_columns(found.over_all if found else None)
        | _columns("ceiling", row.ceiling)
        | {"phantoms": None if row.ceiling is None else "yes: not clinical results"}
        | {name: getattr(row, name) for name in ("checkpoint", "checkpoint_sha256", "parent", "cohort", "chosen")}
        | {"threshold_optimistic": best and best.threshold}
        | {column: value for name, share in at_best for column, value in _columns(name, share, "_optimistic").items()}
        | {"not_run": row.reason}
    )


def _over_all_columns(found: OverAll | None) -> dict[str, float | None]:
    """What a method is worth over all cases, failures counted both ways; empty where nothing failed."""
    columns: dict[str, float | None] = {"n_over_all": found.n if found else None}
    for name, counted in (("wrong", found and found.as_wrong), ("neutral", found and found.at_neutral)):
        values = [counted.auc, *counted.shares.values()] if counted else [None] * 4
        for score, estimate in zip(("auc", *SHARES), values, strict=True):
            columns |= _columns(score, estimate, f"_failures_{name}")
    return columns


def _columns(name: str, estimate: Estimate | None, ending: str = "") -> dict[str, float | None]:
    low, high = estimate.ci if estimate else (None, None)
    value = estimate.value if estimate else None
    return {f"{name}{ending}": value, f"{name}_ci_low{ending}": low, f"{name}_ci_high{ending}": high}


def to_markdown(
    rows: Sequence[Row], compared: Mapping[str, Sequence[Comparison]], results: Sequence[Row], chosen: str = ""
) -> str:
    """Return the table for people: rows, what has to be said of them, best thresholds, comparisons, readers.

    compared: task -> what `compare_models` found. chosen: how its pairs were chosen, in words.
    """
    shown = [row for row in rows if row.scores]
    parts = [f"# Table 2, {results[0].split} split", *_of_phantoms(rows), _table(main_rows(shown)), EXPLAINED]
    parts += [*notes(shown), *(f"**{line}**" for line in different_patients(shown)), *not_run(rows)]
    if len(best := best_rows(shown)) > 1:
        parts += ["## Optimistic: the threshold that is best for this very split (Youden on its answers)", _table(best)]
    if compared:
        parts += ["## Paired comparisons, on the cases that both rows have", *[chosen] * bool(chosen), TRAINED_ONCE]
        parts += [
            f"{POSITIVE[task]}\n\n```\n{aligned(comparisons_rows(pairs))}\n```" for task, pairs in compared.items()
        ]
    if readings := readers_table(results):
        parts += ["## Readers", f"```\n{readings}\n```"]
    return "\n\n".join(parts) + "\n"


def _of_phantoms(rows: Sequence[Row]) -> list[str]:
    best = {POSITIVE[row.task]: row.ceiling for row in rows if row.ceiling is not None}
    words = ", ".join(f"{task} {auc.value:.3f}{chance_text(auc)}" for task, auc in best.items())
    return [f"**{PHANTOM_NOTE}** {CEILING_NOTE[0].upper()}{CEILING_NOTE[1:]}: {words}."] if best else []


def chance_text(ceiling: Estimate) -> str:
    """Where the ideal observer's AUC lies on 95 % of cohorts of as many patients; "" where it is certain."""
    low, high = ceiling.ci
    return f" (on 95 % of cohorts of this size {low:.2f}-{high:.2f})" if low < high else ""


def not_run(rows: Sequence[Row]) -> list[str]:
    """Return a line for each row that was not run, with the reason."""
    return [f"Not run: {row.name}, {POSITIVE[row.task]}: {row.reason}" for row in rows if not row.scores]


def notes(rows: Sequence[Row]) -> list[str]:
    """Return what has to be said of the rows, each sentence once; that they are phantoms is said elsewhere."""
    said = [note for row in rows for note in row.notes if note != PHANTOM_NOTE]
    said += [f"{row.name}: {over_all_line(row.scores.over_all)}." for row in rows if row.scores and row.scores.over_all]
    said += [f"{row.name}: {row.scores.auc_reason}." for row in rows if row.scores and row.scores.auc_reason]
    return list(dict.fromkeys(said))


def main_rows(rows: Sequence[Row]) -> list[list[str]]:
    """Return the table as cells, the header first; a stage is written in the first row that it holds for.

    What was not run is there too, if it is among the rows, with this word in the place of its number of cases.
    """
    head = [
        "Stage",
        "Row",
        "Model",
        "Weights",
        "Attention",
        "n",
        "Positive",
        "AUC [95 % CI]",
        "Sensitivity",
        "Specificity",
    ]
    lines = [head + ["Accuracy", "Threshold", "TP", "FP", "TN", "FN", "Patients covered", "Cases"]]
    before = None
    for row in rows:
        stage, found = stage_of(row), row.scores
        cells = [
            "" if stage == before else stage,
            row.name,
            (row.model or "-").upper() + ", extended" * (row.recipe == "extended"),
            WEIGHTS.get(row.weights or "-", row.weights or "-"),
            "-" if row.attention is None else YES_NO[row.attention],
        ]
        before = stage
        if not found or not row.covering:
            lines.append(cells + [NOT_RUN] + ["-"] * (len(lines[0]) - len(cells) - 1))
            continue
        cells += [f"{found.n} {row.unit}s", str(found.n_positive), with_interval(found.auc, 3)]
        cells += [with_interval(share, 2) for share in found.shares.values()]
        cells += ["-" if found.threshold is None else f"{found.threshold:.3f}", *map(str, found.counts)]
        lines.append(cells + [f"{row.covering.scored} of {row.covering.patients}", found.cases_sha256[:HASH_SHOWN]])
    return lines


def best_rows(rows: Sequence[Row]) -> list[list[str]]:
    """Return the scores at the threshold that is best for this very split as cells, the header first."""
    lines = [["Row", "Threshold (optimistic)", *(f"{name.capitalize()} (optimistic)" for name in SHARES)]]
    for row in rows:
        if row.scores and (best := row.scores.youden_on_this_split_optimistic):
            cells = [with_interval(share, 2) for share in best.shares.values()]
            lines.append([f"{row.name}, {POSITIVE[row.task]}", f"{best.threshold:.3f}", *cells])
    return lines


def different_patients(rows: Sequence[Row]) -> list[str]:
    """Return a line for each task whose rows are not all of the same cases."""
    lines = []
    for task, positive in POSITIVE.items():
        sets: dict[str, list[str]] = {}
        for row in rows:
            if row.task == task and row.scores and row.scores.n and row.kind != CUTOFF:  # theirs is the tissue clock's
                sets.setdefault(row.scores.cases_sha256, []).append(row.name)
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
    rows: Sequence[Row],
    compared: Mapping[str, Sequence[Comparison]],
    results: Sequence[Row],
    chosen: str = "",
) -> None:
    """Write table2.md and table2.csv."""
    write_text(folder / "table2.md", to_markdown(rows, compared, results, chosen))
    write_text(folder / "table2.csv", to_csv(rows))
