"""The row of anybody's method on TSS-Phantom, from its predictions alone: no scan is needed.

In:    a CSV with the columns patient and probability (empty: the method failed), if wished verdict; level, task, split
Out:   the row: AUC with interval, failures counted both ways, the share of the ideal observer's AUC, the cases' hash
Paper: 3, Table 2 (AUC, sensitivity, specificity); the share of the best possible AUC is ours
See:   tests/phantom/test_scoring.py

Times and latents are drawn anew from the law (tss.phantom.benchmark), so that no file can be of another version. The
predictions.csv of run_eval.py fits as it is. Scores on these patients are not clinical results.
"""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tss import metrics
from tss.data.tasks import POSITIVE, TASKS, cases_hash, label_of
from tss.display.tables import aligned
from tss.errors import InputError
from tss.metrics.failures import NEUTRAL, WRONG
from tss.phantom import benchmark
from tss.phantom.ideal_observer import PHANTOM_NOTE, share_of_best

VERDICTS = {"positive": 1.0, "1": 1.0, "negative": 0.0, "0": 0.0, "unsure": None, "": None}  # None: no verdict
HASH_SHOWN = 8  # hexadecimal digits in the row, as in table2.md
HEAD = (
    "method", "TSS-Phantom", "split", "task", "answered", "AUC where answered [95 % CI]", f"all: {WRONG}",
    f"all: {NEUTRAL}", "ideal observer", "share of the ideal AUC [95 % CI]", "sensitivity", "specificity", "cases",
)  # fmt: skip

TIMED = [task for task, limit in TASKS.items() if limit is not None]  # the tasks that a row can be of


class Answer(NamedTuple):
    """One patient's line of a method's file."""

    probability: float | None
    verdict: float | None


def print_row(path: Path, level: str, task: str, split: str) -> None:
    """Print what score_file returns."""
    print(score_file(path, level, task, split), flush=True)


def score_file(path: Path, level: str, task: str, split: str) -> str:
    """Return the row, for the screen and as a line of a Markdown table.

    Raises:
        InputError: the file cannot be used, or this machine draws other patients.
    """
    benchmark.check_table(level)
    everybody = benchmark.patient_table(Path(), level)
    answers = read_answers(path, {patient.id: label_of(patient, task) for patient in everybody})
    chosen = [i for i, patient in enumerate(everybody) if patient.split == split]
    names = [everybody[i].id for i in chosen]
    given = [answers.get(name, Answer(None, None)) for name in names]
    y = np.array([label_of(everybody[i], task) for i in chosen])
    p = np.array([np.nan if answer.probability is None else answer.probability for answer in given], float)
    if np.isnan(p).all():
        raise InputError(f"{path} has a probability for none of the {len(names)} {split} patients. Give --split.")
    cells = [path.stem, f"{benchmark.VERSION} {level}", split, POSITIVE[task], f"{(~np.isnan(p)).sum()} of {len(p)}"]
    cells += scores_of(y, p, benchmark.latents(level)[chosen])
    cells += rates_of(y, np.array([np.nan if one.verdict is None else one.verdict for one in given], float))
    cases = cases_hash((name, "", int(label)) for name, label in zip(names, y, strict=True))
    cells.append(cases[:HASH_SHOWN])
    others = len(answers.keys() - set(names))
    return "\n\n".join([
        aligned([list(pair) for pair in zip(HEAD, cells, strict=True)]),
        f"cases: SHA-256 of the {len(y)} patients and labels, {cases}\n"
        f"share: all patients, {NEUTRAL}; patients are drawn anew, the same for both"
        + f"\n{others} patients of other splits are not counted" * bool(others),
        "\n".join("| " + " | ".join(line) + " |" for line in (HEAD, ["---"] * len(HEAD), cells)),
        PHANTOM_NOTE,
    ])  # fmt: skip


def scores_of(y: np.ndarray, p: np.ndarray, latent: np.ndarray) -> list[str]:
    """Return AUC where answered and of all both ways, the ideal observer's, the share of it; p (N,): NaN = failed."""
    answered, neutral = ~np.isnan(p), metrics.failures_at_neutral(p)
    share = share_of_best(y, latent, [neutral])
    return [
        auc_text(y[answered], p[answered]),
        auc_text(y, metrics.failures_as_wrong(y, p)),
        auc_text(y, neutral),
        f"{metrics.roc_auc(y, -latent):.3f}",
        "{:.3f} [{:.2f}-{:.2f}]".format(share[0], *share[1]),
    ]


def auc_text(y: np.ndarray, p: np.ndarray) -> str:
    """Return an AUC with its interval, or a dash where a class is empty."""
    if len(set(y.tolist())) < 2:
        return "-"
    return "{:.3f} [{:.2f}-{:.2f}]".format(metrics.roc_auc(y, p), *metrics.auc_ci(y, p))


def rates_of(y: np.ndarray, verdicts: np.ndarray) -> list[str]:
    """Return sensitivity and specificity of verdicts (N,), NaN = none, with Wilson's intervals; of those decided."""
    found = []
    for label in (1, 0):
        said = verdicts[(y == label) & ~np.isnan(verdicts)]
        right = int((said == label).sum())
        found.append(
            "{:.2f} [{:.2f}-{:.2f}] of {}".format(right / len(said), *metrics.wilson(right, len(said)), len(said))
            if len(said)
            else "-"
        )
    return found


def read_answers(path: Path, labels: dict[str, int]) -> dict[str, Answer]:
    """Read a method's file; a column label, as run_eval.py writes it, must be TSS-Phantom's.

    Args:
        labels: patient -> 1 or 0, of all patients of the level.

    Raises:
        InputError: a column is missing; a patient is unknown, appears twice or has another label; a cell says nothing.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}. Give a CSV file.") from error
    if missing := [name for name in ("patient", "probability") if not rows or name not in rows[0]]:
        raise InputError(f"{path} has no column {' and no column '.join(missing)}. Its header: patient,probability")
    answers: dict[str, Answer] = {}
    for number, row in enumerate(rows, 2):
        patient, label = row["patient"], row.get("label")
        where = f"{path}, line {number}: "
        if patient not in labels:
            raise InputError(f"{where}{patient!r} is no patient of TSS-Phantom, which has p001 to p{len(labels)}.")
        if patient in answers:
            raise InputError(f"{where}{patient} appears twice. Give one line a patient.")
        if label and label != str(labels[patient]):
            raise InputError(
                f"{where}the label of {patient} is {label}, in TSS-Phantom {benchmark.VERSION} it is "
                f"{labels[patient]}: these are predictions of another task or version. "
                "Give --task, or other predictions."
            )
        answers[patient] = Answer(_probability(row["probability"], where), _verdict(row.get("verdict"), where))
    return answers


def _probability(cell: str | None, where: str) -> float | None:
    if not (cell or "").strip():
        return None
    try:
        value = float(cell or "")
    except ValueError:
        value = np.nan
    if not 0 <= value <= 1:
        raise InputError(
            f"{where}the probability {cell!r} is no number in 0..1. Leave it empty where the method failed."
        )
    return value


def _verdict(cell: str | None, where: str) -> float | None:
    word = (cell or "").strip().lower()
    if word not in VERDICTS:
        raise InputError(f"{where}the verdict {cell!r} is none of {', '.join(filter(None, VERDICTS))}.")
    return VERDICTS[word]
