"""What predictions are worth: scores with their intervals, who is behind them, and a table for the screen.

In:  Predictions, and the threshold that validation chose.
Out: Scores and Coverage; what has no answer is None, with the reason beside it.
Paper: 3, Table 2; the intervals, the counts and the coverage are ours (STARD 2015).
See: tests/evaluation/test_scores.py
"""

from collections.abc import Sequence

import numpy as np

from tss import metrics
from tss.data import tasks
from tss.data.tasks import POSITIVE
from tss.display.tables import aligned
from tss.evaluation.inference import BY_PHASE_1, MOST_NAMES, Prediction
from tss.evaluation.results import (
    VALIDATION,
    Counted,
    Coverage,
    Estimate,
    Optimistic,
    OverAll,
    RocCurve,
    Row,
    Scores,
    Shares,
    with_interval,
)
from tss.metrics.failures import NEUTRAL, WRONG


def score(predictions: Sequence[Prediction], threshold: float) -> Scores:
    """Score predictions at a threshold that was chosen on validation; what has no answer is None, with why."""
    y, p = labels_and_probabilities(predictions)
    counts, positives = metrics.confusion(y, p, threshold), int(y.sum())
    auc = roc = best = reason = None
    if 0 < positives < len(y):
        auc = auc_of(predictions)
        curve, youden = metrics.roc_curve(y, p), metrics.youden_threshold(y, p)
        roc = RocCurve(curve[0].tolist(), curve[1].tolist())
        best = Optimistic(youden, shares_of(metrics.confusion(y, p, youden)))
        if auc.value in (0.0, 1.0):
            reason = f"an AUC of {auc.value:.0f} leaves DeLong's estimate no variance: its interval is Newcombe's"
    else:
        reason = f"no AUC: it needs both classes, and {positives} of {len(y)} are positive"
    return Scores(
        n=len(y),
        n_positive=positives,
        cases_sha256=cases_hash(predictions),
        auc=auc,
        auc_reason=reason,
        shares=shares_of(counts),
        threshold=threshold,
        threshold_from=VALIDATION,
        counts=counts,
        brier=Estimate(metrics.brier(y, p), metrics.brier_ci(y, p)) if len(y) else None,
        calibration=[point._asdict() for point in metrics.calibration_curve(y, p)] if len(y) else None,
        decision_curve=[point._asdict() for point in metrics.decision_curve(y, p)] if len(y) else None,
        roc=roc,
        youden_on_this_split_optimistic=best,
        over_all=over_all(predictions, threshold),
    )


def over_all(predictions: Sequence[Prediction], threshold: float) -> OverAll | None:
    """Score all cases whose label is known, failures counted both ways; None where nothing failed, or all did."""
    known = [line for line in predictions if line.label >= 0]
    answered = counted_lines(known)
    if len(answered) in (0, len(known)):
        return None
    both = (counted_failures(known, how) for how in (WRONG, NEUTRAL))
    return OverAll(
        len(known),
        sum(line.label for line in known),
        len(known) - len(answered),
        *(_counted(lines, threshold) for lines in both),
    )


def counted_failures(predictions: Sequence[Prediction], how: str) -> list[Prediction]:
    """Give lines without a probability one: WRONG or NEUTRAL of tss.metrics.failures. Their labels are known."""
    y = np.array([line.label for line in predictions])
    p = np.array([np.nan if line.probability is None else line.probability for line in predictions], float)
    filled = metrics.failures_as_wrong(y, p) if how == WRONG else metrics.failures_at_neutral(p)
    return [line._replace(probability=float(value)) for line, value in zip(predictions, filled, strict=True)]


def _counted(lines: Sequence[Prediction], threshold: float) -> Counted:
    y, p = labels_and_probabilities(lines)
    counts = metrics.confusion(y, p, threshold)
    auc = auc_of(lines) if 0 < y.sum() < len(y) else None
    return Counted(auc, shares_of(counts), counts)


def over_all_line(found: OverAll) -> str:
    """Say in a line what a method is worth over all, failures counted both ways."""
    ways = ((WRONG, found.as_wrong), (NEUTRAL, found.at_neutral))
    return f"over all {found.n} cases, {found.failures} of them failed: " + "; ".join(
        f"{how}: AUC {with_interval(counted.auc, 3)}, sensitivity {with_interval(counted.shares.sensitivity, 2)}, "
        f"specificity {with_interval(counted.shares.specificity, 2)}"
        for how, counted in ways
    )


def auc_of(predictions: Sequence[Prediction]) -> Estimate:
    """Return the AUC, of both classes; a patient's two hemispheres count as one patient's in its interval."""
    y, p = labels_and_probabilities(predictions)
    patients = [line.patient for line in counted_lines(predictions)]
    return Estimate(metrics.roc_auc(y, p), metrics.auc_ci(y, p, patients=patients))


def counted_lines(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Return the lines that scores are of: their label is known and they have a probability."""
    return [line for line in predictions if line.label >= 0 and line.probability is not None]


def labels_and_probabilities(predictions: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    """Return y (n,) and p (n,) of the lines that have both."""
    counted = counted_lines(predictions)
    return np.array([line.label for line in counted]), np.array([line.probability for line in counted])


def cases_hash(predictions: Sequence[Prediction]) -> str:
    """Return the SHA-256 of the cases that scores are of and their labels: equal hashes, same test set.

    A TSS line is its patient; the side, which phase 1 may have chosen, is part of the case in task "stroke" alone.
    """
    counted = counted_lines(predictions)
    twice = len({line.patient for line in counted}) < len(counted)
    return tasks.cases_hash((line.patient, line.side if twice else "", line.label) for line in counted)


def shares_of(counts: metrics.Confusion) -> Shares:
    """Return sensitivity, specificity and accuracy, each with its Wilson interval."""
    tp, fp, tn, fn = counts
    return Shares(_share(tp, tp + fn), _share(tn, tn + fp), _share(tp + tn, sum(counts)))


def _share(k: int, n: int) -> Estimate | None:
    return Estimate(k / n, metrics.wilson(k, n)) if n else None


def coverage(predictions: Sequence[Prediction]) -> Coverage:
    """Return who is and who is not behind the scores, and why."""

    def who(lines: Sequence[Prediction]) -> list[str]:
        return list(dict.fromkeys(line.patient for line in lines))

    answered = [line for line in predictions if line.probability is not None]
    return Coverage(
        patients=len(who(predictions)),
        scored=len(who(counted_lines(predictions))),
        no_probability={line.patient: line.reason for line in predictions if line.probability is None},
        label_unknown=who([line for line in answered if line.label < 0]),
        side_chosen_by_phase_1=who([line for line in answered if line.side_from == BY_PHASE_1]),
    )


def coverage_line(covered: Coverage) -> str:
    """Say in a line how many patients were scored, and who was not."""
    parts = [f"{covered.scored} of {covered.patients} patients scored"]
    parts += [f"{len(covered.label_unknown)} predicted without a known label"] * bool(covered.label_unknown)
    failed = list(covered.no_probability.items())
    parts += [f"{patient} has no probability ({why})" for patient, why in failed[:MOST_NAMES]]
    parts += [f"{len(failed) - MOST_NAMES} more have none"] * (len(failed) > MOST_NAMES)
    return "; ".join(parts)


def summary_table(results: Sequence[Row]) -> str:
    """Return a line a network, for the screen; those of phantoms have the best possible AUC on average beside theirs.

    In brackets there: where the ideal observer's AUC lies on 95 % of cohorts of as many patients.
    """
    phantoms = any(row.ceiling is not None for row in results)
    head = ["", "positive class", "n", "positive", "AUC [95% CI]"] + ["best on average"] * phantoms
    lines, remarks, optimistic = [head + ["sensitivity", "specificity", "accuracy", "threshold"]], [], []
    for row in results:
        found = row.scored
        lines.append(
            [row.name, POSITIVE[row.task], str(found.n), str(found.n_positive), with_interval(found.auc, 3)]
            + [with_interval(row.ceiling, 3)] * phantoms
            + [with_interval(share, 2) for share in found.shares.values()]
            + [f"{found.threshold:.3f}"]
        )
        if found.over_all:
            remarks.append(f"{row.name}: {over_all_line(found.over_all)}.")
        if found.auc_reason:
            remarks.append(f"{row.name}: {found.auc_reason}.")
        if best := found.youden_on_this_split_optimistic:
            optimistic.append(
                f"{row.name}: with the best threshold for this very split, {best.threshold:.3f}, it would be "
                f"{', '.join(f'{share.value:.2f}' for share in best.shares.values() if share)} (optimistic: chosen on "
                "the answers)."
            )
    notes = dict.fromkeys(note for row in results for note in row.notes)
    return "\n".join([aligned(lines), *remarks, *optimistic, *notes])
