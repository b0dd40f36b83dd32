"""Is one model's AUC higher than another's? Pairs of a table's rows, on the same patients.

In:  the predictions of several models for one task; which pairs: every two, or those that the paper makes claims about.
Out: a Comparison for each pair, and their table.
Paper: none: Table 2 compares without tests, and on different patients.
See: tests/evaluation/test_auc_comparison.py
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from tss.data.tasks import TASKS
from tss.errors import InputError
from tss.evaluation.inference import Prediction
from tss.evaluation.results import FLAIR_CLOCK, LEE2020, NETWORK, SOFT_CLOCK, Comparison, Row, p_text
from tss.evaluation.scores import counted_lines
from tss.metrics import delong_test, holm, roc_auc

CLAIMS = (
    "Compared are the pairs that the paper makes claims about, chosen before any result was seen: the weights of the "
    "phase before against random, ImageNet and medical ones; attention against none; the extended recipe against the "
    "paper's; 2D against 3D; the ensemble of folds against the single network; the last phase of each against Lee "
    "2020, the FLAIR tissue clock and the soft tissue clock."
)
# Said wherever networks are compared: a study trains each once.
TRAINED_ONCE = (
    "Each network was trained once. A test says whether these two networks differ, not whether their training "
    "procedures do: with another seed each would have come out differently."
)
AGAINST = (FLAIR_CLOCK, SOFT_CLOCK, LEE2020)  # our choice: not all clocks, since each test more costs power
RANDOM, IMAGENET, MEDICAL, PREVIOUS = range(4)  # in the order of Table 2


def kind_of_weights(weights: str | None) -> int:
    """Return which of Table 2's kinds of first weights these are; what is none of the others is medical."""
    kinds = {"random": RANDOM, "ResNet-18": IMAGENET, "ImageNet": IMAGENET, "Models Genesis": PREVIOUS}
    return kinds.get(weights or "", PREVIOUS if (weights or "").startswith("phase ") else MEDICAL)


def last_networks(rows: Sequence[Row], task: str) -> list[Row]:
    """Return the network of each recipe's last phase, 2D and 3D; of several, one that started from the phase before."""
    last: dict[tuple[str | None, str | None], Row] = {}
    for row in rows:
        if row.task == task and row.kind == NETWORK and row.scores:
            which = row.model, row.recipe
            if which not in last or _schedule(row) > _schedule(last[which]):
                last[which] = row
    return list(last.values())


def _schedule(row: Row) -> tuple[bool, int]:
    return kind_of_weights(row.weights) == PREVIOUS, row.phase or 0


def claimed_pairs(networks: Sequence[Row], older: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of one task's rows that the paper makes claims about (CLAIMS), for `compare_models`.

    Testing every two of a table's rows would cost the few tests that matter their power, by Holm's correction.

    older: names of older methods.
    """
    own = {}  # (model, extended?, phase) -> the row of the recipe's own schedule; phase 1 has no other
    for row in (row for row in networks if not row.members):
        if row.phase == 1 or kind_of_weights(row.weights) == PREVIOUS:
            own[row.model or "", row.recipe == "extended", row.phase or 0] = row.name
    pairs = []
    for (model, extended, phase), name in sorted(own.items()):
        rivals = [
            row
            for row in networks
            if (row.model, row.recipe == "extended", row.phase) == (model, extended, phase)
            and row.name != name
            and not row.members
        ]
        pairs += [(row.name, name) for row in sorted(rivals, key=lambda row: kind_of_weights(row.weights))]
        if (model, extended, phase - 1) in own:
            pairs.append((own[model, extended, phase - 1], name))
    last = {(model, extended): name for (model, extended, _), name in sorted(own.items())}
    for one, other in (
        *(((model, False), (model, True)) for model in ("2d", "3d")),
        *((("3d", extended), ("2d", extended)) for extended in (False, True)),
    ):
        if one in last and other in last:
            pairs.append((last[one], last[other]))
    for row in networks:
        single = own.get((row.model or "", row.recipe == "extended", row.phase or 0))
        if row.members and single:
            pairs.append((single, row.name))
    return pairs + [(method, name) for name in last.values() for method in AGAINST if method in older]


def compare_models(
    rows: Mapping[str, Sequence[Prediction]], task: str, pairs: Sequence[tuple[str, str]] | None = None
) -> list[Comparison]:
    """Return DeLong's test of each pair, second minus first in the order given, Holm-corrected over all pairs.

    pairs: names of rows; None = every two.

    Only cases that both models have a probability for are compared; how many others there are is "left_out". What has
    no answer is None, with the reason, and does not count in the correction.
    """
    lines = {name: {_key(line, task): line for line in counted_lines(row)} for name, row in rows.items()}
    compared = [
        _compare(first, lines[first], second, lines[second])
        for first, second in (combinations(rows, 2) if pairs is None else pairs)
    ]
    corrected = iter(holm([pair.pvalue for pair in compared if pair.pvalue is not None]))
    return [pair if pair.pvalue is None else replace(pair, pvalue_holm=next(corrected)) for pair in compared]


def _compare(first: str, a: Mapping[tuple, Prediction], second: str, b: Mapping[tuple, Prediction]) -> Comparison:
    shared = [key for key in a if key in b]
    y = np.array([a[key].label for key in shared])
    p, q = (np.array([lines[key].probability for key in shared]) for lines in (a, b))
    about = (first, second, len(y), int(y.sum()), len(a.keys() ^ b.keys()))
    try:
        test = delong_test(y, q, p, [patient for patient, _ in shared])
    except InputError as error:
        return Comparison(*about, difference=None, pvalue=None, reason=str(error))
    return Comparison(
        *about, roc_auc(y, p), roc_auc(y, q), test.ci, test.z, difference=test.difference, pvalue=test.pvalue
    )


def _key(line: Prediction, task: str) -> tuple[str, str]:
    """What makes two lines the same case: the hemisphere in task "stroke", otherwise the patient."""
    return line.patient, line.side if TASKS[task] is None else ""


def comparisons_rows(compared: Sequence[Comparison]) -> list[list[str]]:
    """Return what `compare_models` found as rows of cells, the header first; AUCs in the order of the names."""
    rows = [["AUC of one - other", "n", "one", "other", "difference [95% CI]", "p (DeLong)", "p (Holm)", "remark"]]
    for pair in compared:
        remark = f"{pair.left_out} cases that only one of them has are left out" if pair.left_out else ""
        name, n = f"{pair.second} - {pair.first}", str(pair.n)
        if pair.difference is None or pair.difference_ci is None:
            rows.append([name, n, *["-"] * 5, pair.reason or ""])
            continue
        low, high = pair.difference_ci
        rows.append([
            name, n, f"{pair.auc_second:.3f}", f"{pair.auc_first:.3f}",
            f"{pair.difference:+.3f} [{low:+.2f} to {high:+.2f}]",
            *(p_text(pvalue) for pvalue in (pair.pvalue, pair.pvalue_holm) if pvalue is not None), remark,
        ])  # fmt: skip
    return rows
