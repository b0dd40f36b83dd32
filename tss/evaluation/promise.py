"""A promised PPV and NPV: whom a model calls, and of whom it says "unsure".

In:  a model with its validation's, or its ensemble's out-of-fold, logits; the promise.
Out: the model with two cuts; what came of the promise on the patients that were scored.
Paper: none (our choice; the paper calls everybody).
See: tests/evaluation/test_promise.py, and tests/metrics/test_unsure.py for the guarantee

Of one network, or an ensemble of seeds, the guarantee is exact. Of an ensemble of folds it is approximate: the cuts
are chosen on out-of-fold logits, each of the members of one fold, and applied to the mean of all members, which spreads
less.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from scipy.special import logit as logit_of

from tss import metrics
from tss.data.tasks import POSITIVE, TASKS
from tss.errors import InputError
from tss.evaluation.inference import CALLED_NEGATIVE, CALLED_POSITIVE, Cuts, Model, Prediction
from tss.evaluation.results import OUT_OF_FOLD, VALIDATION, Estimate, Promise
from tss.evaluation.scores import counted_lines
from tss.metrics.unsure import CONFIDENCE, check_promise, fewest_to_promise, patients_needed, unsure_band
from tss.training.epoch import probability

OF_FOLDS = (
    " Of an ensemble of folds the promise is approximate: out-of-fold scores are of single members, the answers are "
    "their mean."
)


def with_promise(model: Model, promise: float) -> Model:
    """Return the model with the cuts that keep the promise; of hemispheres (task "stroke") as it is.

    Raises InputError: it cannot be promised, or the checkpoint does not hold validation's logits.
    """
    check_promise(promise)
    if TASKS[model.task] is None:
        print(f"{model.name}: no promise, since a patient's two hemispheres are not independent", flush=True)
        return model
    labels, logits = of_patients(model)
    line = model.line
    threshold = float((logit_of(model.threshold) - line.intercept) / line.slope)
    band = unsure_band(labels, logits, promise, threshold)
    lower, upper = (None if cut is None else probability(line.of(cut)).item() for cut in (band.lower, band.upper))
    found = Cuts(promise, lower, upper, *(patients_needed(labels, logits, promise)), band.n, band.n_positive)
    for words in too_few(found):
        print(f"{model.name}: {words}", flush=True)
    return model._replace(cuts=found)


def of_patients(model: Model) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and logits (n,) of the patients that the threshold was chosen on.

    Each counts once, with the higher logit of two sides (decision 14).
    """
    given = model.checkpoint["validation"]
    if not given.get("patients"):
        raise InputError(f"{model.path} holds no predictions of its validation patients. Train its phase again.")
    logits, labels = defaultdict[str, list[float]](list), dict[str, int]()
    for patient, logit, label in zip(given["patients"], given["logits"], given["labels"], strict=True):
        logits[patient].append(logit)
        labels[patient] = label
    return np.array(list(labels.values())), np.array([max(values) for values in logits.values()])


def too_few(cuts: Cuts) -> list[str]:
    """Say which promise has no cut, and how many patients it takes."""
    fewest = fewest_to_promise(cuts.promise)
    words = []
    for name, cut, takes in (("PPV", cuts.upper, cuts.takes_for_ppv), ("NPV", cuts.lower, cuts.takes_for_npv)):
        if cut is None:
            kind = "positive" if name == "PPV" else "negative"
            more = (
                f"by these scores it takes about {takes} patients"
                if takes
                else "by these scores no number of patients does it"
            )
            words.append(
                f"nobody is called {kind}: {cuts.n} patients are too few to promise {name} {cuts.promise:g} (it takes "
                f"{fewest} called rightly, and nobody wrongly, at the very least; {more})"
            )
    return words


def kept_on(model: Model, predictions: Sequence[Prediction]) -> Promise | None:
    """Return what came of the promise on the scored patients; None where nothing was promised."""
    if not model.cuts:
        return None
    lines = counted_lines(predictions)
    called = {
        verdict: [line.label for line in lines if model.verdict(line.chance) == verdict]
        for verdict in (CALLED_POSITIVE, CALLED_NEGATIVE)
    }
    positive, negative = called.values()
    n = len(lines)
    return Promise(
        promised=model.cuts.promise,
        confidence=CONFIDENCE,
        chosen_on=model.cuts.n,
        chosen_from=OUT_OF_FOLD if model.of_folds else VALIDATION,
        lower=model.cuts.lower,
        upper=model.cuts.upper,
        too_few=too_few(model.cuts) or None,
        n=n,
        unsure=n - len(positive) - len(negative),
        ppv=_share(sum(positive), len(positive)),
        npv=_share(len(negative) - sum(negative), len(negative)),
    )


def _share(k: int, n: int) -> Estimate | None:
    return Estimate(k / n, metrics.wilson(k, n)) if n else None


def promise_note(model: Model, found: Promise) -> str:
    """Say what was promised, from what, and what came of it."""
    kept = "; ".join(
        f"{name} {share.value:.2f} [{share.ci[0]:.2f}-{share.ci[1]:.2f}]" if share else f"no {name}, nobody called so"
        for name, share in (("PPV", found.ppv), ("NPV", found.npv))
    )
    missing = f" {' '.join(words[0].upper() + words[1:] + '.' for words in found.too_few)}" if found.too_few else ""
    return (
        f"{model.name}, {POSITIVE[model.task]}: promised PPV and NPV {found.promised:g}, both kept in "
        f"{found.confidence:.0%} of studies like that of the {found.chosen_on} patients whose {found.chosen_from} "
        f"chose the cuts, with as many positives; {found.unsure} of {found.n} are unsure "
        f"({found.unsure / max(found.n, 1):.0%}), and of those called here: {kept}.{missing}"
        + OF_FOLDS
        * model.of_folds
    )
