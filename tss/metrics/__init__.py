"""Numbers out of labels and probabilities: the public names of the modules here."""

from tss.metrics.agreement import cohen_kappa, cohen_kappa_ci, fleiss_kappa, fleiss_kappa_ci, mcnemar
from tss.metrics.bootstrap import bootstrap_ci
from tss.metrics.calibration import brier, brier_ci, calibration_curve, decision_curve
from tss.metrics.failures import failures_as_wrong, failures_at_neutral
from tss.metrics.roc import (
    Confusion,
    auc_ci,
    confusion,
    delong_ci,
    delong_test,
    holm,
    mean_ci,
    roc_auc,
    roc_curve,
    wilson,
    youden_threshold,
)

__all__ = [
    "Confusion", "auc_ci", "bootstrap_ci", "brier", "brier_ci", "calibration_curve", "cohen_kappa", "cohen_kappa_ci",
    "confusion", "decision_curve", "delong_ci", "delong_test", "failures_as_wrong", "failures_at_neutral",
    "fleiss_kappa", "fleiss_kappa_ci", "holm", "mcnemar", "mean_ci", "roc_auc", "roc_curve", "wilson",
    "youden_threshold",
]  # fmt: skip
