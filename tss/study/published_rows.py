"""Which patients can be behind a published row? The counts that give its sensitivity, specificity and accuracy.

    python -m tss.study.published_rows TABLE

In:  a CSV table: row, sensitivity, specificity as printed; where known accuracy, n (82, or 70-90), n_positive, auc,
     and group (rows that are said to share a test set). Other columns are ignored.
Out: for each row the smallest counts that give it, or why none can; for each group whether one test set fits all rows.
Paper: Table 2; the test shows what comes out for it.
See: tests/study/test_published_rows.py

A printed figure tells its own precision: 0.7027 can be 26/37, and 0.703 many more fractions. Tables truncate digits as
well as round them, so three readings are tried in turn, and the one that fits is named. The fewest patients come first:
counts that fit once fit again when all are doubled.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import tss
from tss.data.text_tables import read_text_table
from tss.display.tables import aligned
from tss.errors import InputError, exit_code
from tss.metrics.roc import normal_interval, wilson

FIGURES = ("sensitivity", "specificity", "accuracy")
NEEDED = ("row", "sensitivity", "specificity")
COLUMNS = (*NEEDED, "accuracy", "n", "n_positive", "auc", "group")
LARGEST = 250  # patients searched where n is not given; our choice, three times the paper's 82
# How far the true share may lie below and above the printed one, in halves of its last digit.
READINGS = {"rounded": (1, 1), "truncated": (1, 2), "last digit one off": (3, 3)}
FIGURE = r"(?:0?\.\d{1,17}|[01](?:\.0{1,17})?)|(?:\d{1,2}(?:\.\d{1,15})?|100(?:\.0{1,15})?)\s*%"
SHOWN = (
    "Shown: the fewest patients that give the printed figures, with Wilson's interval; the AUC's is Hanley and "
    "McNeil's (1982)."
)
NAME = "python -m tss.study.published_rows"


def main(argv: Sequence[str] | None = None) -> int:
    """Print what can be behind a table; 0, or 2 where the table cannot be used."""
    args = build_parser().parse_args(argv)
    return exit_code(NAME, lambda: print(explain_table(args.table)), rerun="the same command")


def build_parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(NAME, description=__doc__, formatter_class=formatter, allow_abbrev=False)
    parser.add_argument("table", metavar="TABLE", help="the CSV table")
    parser.add_argument("--version", action="version", version=f"tss {tss.__version__}")
    return parser


class Row(NamedTuple):
    """One published row: the figures as printed, with all their digits; the sizes searched, (fewest, most)."""

    name: str
    figures: tuple[Decimal, Decimal, Decimal | None]  # as FIGURES; the accuracy may be unknown
    n: tuple[int, int]
    positives: int | None
    auc: float | None
    group: str


class Fit(NamedTuple):
    """A set of patients that can give a row: positives and negatives, the first counts, how many counts there are."""

    patients: tuple[int, int]
    tp: int
    tn: int
    ways: int


def explain_table(path: str | os.PathLike) -> str:
    """Read a table of published rows and return what can be behind them, as text.

    Raises InputError: all that is wrong with the table, line by line.
    """
    rows, unused = read_rows(path)
    found = {row.name: explain_row(row) for row in rows}
    table = [["", "positives + negatives", "TP", "FN", "TN", "FP", "sensitivity", "specificity", "AUC", "remark"]]
    for row in rows:
        reading, fits = found[row.name]
        if not fits:
            table.append([row.name, *["-"] * 8, why_no_counts(row)])
            continue
        (p, n), tp, tn, ways = fits[0]
        remarks = [f"figures taken as {reading}"] * (reading != "rounded")
        remarks += [f"{ways} ways on these patients"] * (ways > 1) + _others(fits)
        remarks += ["figures of different precision: were trailing zeros lost?"] * (len(set(_units(row))) > 1)
        auc = "-" if row.auc is None else "{:.3f} [{:.2f}-{:.2f}]".format(row.auc, *hanley_mcneil(row.auc, p, n))
        counts = [f"{p} + {n} = {p + n}", *map(str, (tp, p - tp, tn, n - tn))]
        table.append([row.name, *counts, _share(tp, p), _share(tn, n), auc, "; ".join(remarks)])
    lines = [aligned(table)]
    for group in dict.fromkeys(row.group for row in rows):
        members = [row for row in rows if row.group == group]
        lines += ["", *_one_test_set(group, members, found)] if len(members) > 1 else []
    return "\n".join([*lines, "", SHOWN, *unused])


def explain_row(row: Row) -> tuple[str, list[Fit]]:
    """Return the first reading that any patients fit, and all that do, the fewest first; "" and none."""
    for reading in READINGS:
        if fits := list(fits_of(row, reading)):
            return reading, fits
    return "", []


def fits_of(row: Row, reading: str = "rounded") -> Iterator[Fit]:
    """Yield the patients that can give the row's figures, fewest first."""
    sensitivity, specificity, accuracy = (
        [range(n + 1) if figure is None else _wholes(figure, reading, n) for n in range(row.n[1] + 1)]
        for figure in row.figures
    )
    for size in range(row.n[0], row.n[1] + 1):
        for p in range(1, size) if row.positives is None else [row.positives] * (row.positives < size):
            right, negative = accuracy[size], specificity[size - p]
            found = [
                (tp, tns)
                for tp in sensitivity[p]
                if (tns := range(max(negative.start, right.start - tp), min(negative.stop, right.stop - tp)))
            ]
            if found:
                tp, tns = found[0]
                yield Fit((p, size - p), tp, tns[0], sum(len(tns) for _, tns in found))


def _wholes(figure: Decimal, reading: str, n: int) -> range:
    """The k in 0..n whose k / n prints as the figure."""
    below, above = READINGS[reading]
    scale = int(2 / _last_digit(figure))  # whole numbers throughout: floats would decide at the edges
    printed = int(figure * scale)
    return range(max(0, -((below - printed) * n // scale)), min(n, (printed + above) * n // scale) + 1)


def why_no_counts(row: Row) -> str:
    """Return why no counts give a row."""
    sensitivity, specificity, accuracy = row.figures
    low, high = sorted((sensitivity, specificity))
    if accuracy is not None and not low - 3 * max(_units(row)) <= accuracy <= high + 3 * max(_units(row)):
        return f"impossible: accuracy {accuracy} is not between {low} and {high}, where it always lies"
    searched = " to ".join(map(str, dict.fromkeys(row.n)))
    return f"no counts of {searched} patients give these figures"


def _units(row: Row) -> list[Decimal]:
    """What the last digit of each figure stands for."""
    return [_last_digit(figure) for figure in row.figures if figure is not None]


def _last_digit(figure: Decimal) -> Decimal:
    """0.7027 -> 0.0001."""
    exponent = figure.as_tuple().exponent
    assert isinstance(exponent, int)  # FIGURE lets finite numbers in, nothing else
    return Decimal(1).scaleb(exponent)


def _others(fits: list[Fit]) -> list[str]:
    """List the other patients that fit."""
    named = ", ".join(f"{p} + {n}" for (p, n), *_ in fits[1:4])
    return [f"also {named}" + f" and {len(fits) - 4} more" * (len(fits) > 4)] if len(fits) > 1 else []


def _one_test_set(group: str, rows: list[Row], found: dict[str, tuple[str, list[Fit]]]) -> list[str]:
    """Say whether one set of patients fits all rows of a group; if not, which sets fit most of them."""
    left = {row.name: [fit.patients for fit in found[row.name][1]] for row in rows}
    parts = []
    while any(left.values()):
        shared: dict[tuple[int, int], list[str]] = {}
        for name, sets in left.items():
            for patients in sets:
                shared.setdefault(patients, []).append(name)
        patients = min(shared, key=lambda patients: (-len(shared[patients]), sum(patients)))
        parts.append((patients, shared[patients]))
        left = {name: sets for name, sets in left.items() if name not in shared[patients]}
    title = f"{group}: " if group else ""
    if len(parts) == 1 and not left:
        (p, n), names = parts[0]
        return [f"{title}one test set of {p} + {n} = {p + n} patients fits all {len(names)} rows."]
    lines = [f"{title}no test set fits all {len(rows)} rows."]
    lines += [f"  {p} + {n} = {p + n}: {', '.join(names)}" for (p, n), names in parts]
    for row in rows:
        if row.name in left:
            lines.append(f"  none: {row.name}" + (f"; {_nearest(row, *parts[0][0])}" if parts else ""))
    return lines


def _nearest(row: Row, p: int, n: int) -> str:
    tp, tn = round(row.figures[0] * p), round(row.figures[1] * n)
    return f"nearest on {p} + {n}: {tp}/{p} = {tp / p:.4f}, {tn}/{n} = {tn / n:.4f}, accuracy {(tp + tn) / (p + n):.4f}"


def _share(k: int, n: int) -> str:
    return "{:.2f} [{:.2f}-{:.2f}]".format(k / n, *wilson(k, n))


def hanley_mcneil(auc: float, positives: int, negatives: int) -> tuple[float, float]:
    """95 % interval of an AUC of which only the numbers of cases are known (Hanley and McNeil 1982)."""
    two_positives, two_negatives = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (
        auc * (1 - auc) + (positives - 1) * (two_positives - auc**2) + (negatives - 1) * (two_negatives - auc**2)
    ) / (positives * negatives)
    return normal_interval(auc, max(0.0, variance), 0.95, 0.0, 1.0)


def read_rows(path: str | os.PathLike) -> tuple[list[Row], list[str]]:
    """Return the rows of a table, and lines about what is ignored in it; InputError as `explain_table`."""
    header, lines, problems, _ = read_text_table(Path(path))
    if missing := [name for name in NEEDED if name not in header]:
        raise InputError(
            f"{path}: column {', '.join(missing)} is missing. The columns are {', '.join(NEEDED)}, and "
            f"where they are known {', '.join(COLUMNS[len(NEEDED) :])}."
        )
    rows: list[Row] = []
    empty: list[str] = []
    for number, line in lines:
        cells = dict.fromkeys(COLUMNS, "") | dict(zip(header, line, strict=True))
        if not any(cells[name] for name in FIGURES):
            empty.append(cells["row"])
            continue
        wrong = _cell_problems(cells)
        if cells["row"] in [row.name for row in rows]:
            wrong.append(f"row {cells['row']!r} appears twice; give it another name")
        problems += [f"line {number}: {problem}" for problem in wrong]
        if not wrong:
            rows.append(_row(cells))
    if not rows and not problems:
        problems = ["there is no row with figures below the header"]
    if problems:
        raise InputError(f"{path} cannot be used:\n  " + "\n  ".join(problems))
    unused = [f"Columns not used: {', '.join(more)}."] if (more := [c for c in header if c not in COLUMNS]) else []
    return rows, unused + [f"Rows without figures: {', '.join(empty)}."] * bool(empty)


def _cell_problems(cells: dict[str, str]) -> list[str]:
    problems = [] if cells["row"] else ["row is empty; give it a name"]
    problems += [
        f"{name} is {cells[name]!r}; write it with all its digits, as 0.7027 or 70.27%"
        for name in (*FIGURES, "auc")
        if (cells[name] or name in NEEDED) and not re.fullmatch(FIGURE, cells[name])
    ]
    if cells["n_positive"] and not re.fullmatch(r"[1-9]\d{0,3}", cells["n_positive"]):
        problems.append(f"n_positive is {cells['n_positive']!r}; write how many, or leave it empty")
    if cells["n"]:
        size = re.fullmatch(r"(\d{1,4})(?:\s*-\s*(\d{1,4}))?", cells["n"])
        if not (size and 2 <= int(size[1]) <= int(size[2] or size[1])):
            problems.append(
                f"n is {cells['n']!r}; write how many patients (up to 9999), a range as 70-90, or leave it empty"
            )
        elif int(size[2] or size[1]) - int(size[1]) > LARGEST:
            problems.append(f"n is {cells['n']!r}; a range may be {LARGEST} wide")
        elif not problems and cells["n_positive"] and int(cells["n_positive"]) >= int(size[2] or size[1]):
            problems.append(f"n_positive is {cells['n_positive']} of n = {cells['n']}; there must be negatives too")
    return problems


def _row(cells: dict[str, str]) -> Row:
    positives = int(cells["n_positive"]) if cells["n_positive"] else None
    ends = [int(end) for end in cells["n"].split("-")] if cells["n"] else [2, (positives or 0) + LARGEST]
    sensitivity, specificity = (_figure(cells[name]) for name in FIGURES[:2])
    accuracy = _figure(cells["accuracy"]) if cells["accuracy"] else None
    auc = float(_figure(cells["auc"])) if cells["auc"] else None
    figures = sensitivity, specificity, accuracy
    return Row(cells["row"], figures, (ends[0], ends[-1]), positives, auc, cells["group"])


def _figure(text: str) -> Decimal:
    return Decimal(text.rstrip("% ")).scaleb(-2) if "%" in text else Decimal(text)


if __name__ == "__main__":
    sys.exit(main())
