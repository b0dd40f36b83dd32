"""What an evaluation finds, declared: the rows of Table 2, with all that metrics.json says of each.

In:  what scores, readers, subgroups, gradcam_overlap and auc_comparison of this folder compute.
Out: frozen dataclasses; as_json() for metrics.json and comparisons.json. None: no answer, or it does not apply.
Paper: 3, Table 2 (sensitivity, specificity, accuracy, AUC, readers, kappa); intervals, counts and coverage are ours.
See: tests/evaluation/test_results.py
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple, get_args

from tss.metrics import Confusion

COMPARISONS, DIFFERENCES = "comparisons.json", "external.json"  # files that an evaluation leaves
KINDS = ("network", "network on an older method's patients", "older method", "published cut-off", "reader")
NETWORK, SUBSET, OLDER, CUTOFF, READER = KINDS
FLAIR_CLOCK, SOFT_CLOCK, LEE2020 = "tissue clock, FLAIR", "soft tissue clock", "Lee 2020"
VALIDATION, OUT_OF_FOLD = "validation", "out-of-fold predictions"  # what a network's threshold was chosen on
TABLE_ONLY = {"json": "not there"}  # how as_json() writes a field, where that is not as `name: value`
INLINE = {"json": "its fields"}


class Estimate(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    ci: tuple[float, float]


@dataclass(frozen=True)
class Shares:
    """What the calls at a threshold are worth; None where nobody is counted."""

    sensitivity: Estimate | None
    specificity: Estimate | None
    accuracy: Estimate | None

    def values(self) -> tuple[Estimate | None, ...]:
        return self.sensitivity, self.specificity, self.accuracy


@dataclass(frozen=True)
class Optimistic:
    """The threshold that is best for the very cases that are scored: nobody knows it beforehand."""

    threshold: float
    shares: Shares = field(metadata=INLINE)


@dataclass(frozen=True)
class Counted:
    """Scores of all patients, failures counted in one of two ways (tss.metrics.failures)."""

    auc: Estimate | None
    shares: Shares = field(metadata=INLINE)
    counts: Confusion = field(metadata=INLINE)


@dataclass(frozen=True)
class OverAll:
    """Scores of all cases whose label is known, where some have no probability: failures counted both ways."""

    n: int
    n_positive: int
    failures: int
    as_wrong: Counted
    at_neutral: Counted


@dataclass(frozen=True)
class RocCurve:
    false_positive_rate: list[float]
    true_positive_rate: list[float]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What predictions are worth, on the cases whose label is known and that have a probability."""

    n: int
    n_positive: int
    cases_sha256: str  # equal hashes: the same cases with the same labels
    auc: Estimate | None
    auc_reason: str | None = None  # why there is none, or what is wrong with its interval
    shares: Shares = field(metadata=INLINE)
    threshold: float | None = None  # a reader has none
    threshold_from: str | None = None
    counts: Confusion = field(metadata=INLINE)
    brier: Estimate | None = None
    calibration: list[dict] | None = None  # points of tss.metrics.calibration_curve
    decision_curve: list[dict] | None = None  # points of tss.metrics.decision_curve
    roc: RocCurve | None = None
    youden_on_this_split_optimistic: Optimistic | None = None
    over_all: OverAll | None = None  # where every case has a probability these scores are of all


class Covered(NamedTuple):
    """How many patients a row is of; the first is the sum of the others."""

    patients: int
    scored: int
    label_unknown: int
    no_answer: int


@dataclass(frozen=True)
class Coverage:
    """Who is and who is not behind the scores, and why."""

    patients: int
    scored: int
    no_probability: dict[str, str]  # patient -> reason
    label_unknown: list[str]
    side_chosen_by_phase_1: list[str]
    failures_counted: dict[str, str] | None = None  # of an older method on all patients: whom it failed on, and why

    @property
    def counts(self) -> Covered:
        return Covered(self.patients, self.scored, len(self.label_unknown), len(self.no_probability))


@dataclass(frozen=True, kw_only=True)
class Subgroup:
    """Scores of one group of patients, such as those with large lesions."""

    group: str
    cell: str
    n: int
    n_positive: int
    shares: Shares = field(metadata=INLINE)
    auc: Estimate | None
    withheld: list[str] | None = None  # too few patients are behind these
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReaderScores:
    """What one reader is worth."""

    n: int
    n_positive: int
    without_call: int
    cases_sha256: str
    counts: Confusion = field(metadata=INLINE)
    shares: Shares = field(metadata=INLINE)


@dataclass(frozen=True)
class Agreement:
    """A kappa, or why there is none."""

    n: int
    kappa: Estimate | None
    reason: str | None = None


@dataclass(frozen=True)
class ReaderTest:
    """McNemar's test of a model's calls against a reader's."""

    only_model_right: int
    only_reader_right: int
    pvalue: float
    pvalue_holm: float


@dataclass(frozen=True)
class OperatingPoint:
    """The model where it meets a reader on its own ROC curve."""

    model: float
    reader: float
    difference: float
    from_: str
    difference_ci: tuple[float, float] | None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class BesideReader:
    """A model and one reader on the patients that both have judged."""

    n: int
    n_positive: int | None = None
    mcnemar: ReaderTest | None = None
    cohen_kappa: Agreement | None = None
    reason: str | None = None
    sensitivity_at_readers_specificity: OperatingPoint | None = None
    specificity_at_readers_sensitivity: OperatingPoint | None = None


@dataclass(frozen=True)
class Readings:
    """The readers of the patients, how far they agree, and a model beside them."""

    positive_call: str
    n_onset_known: int
    each: dict[str, ReaderScores]
    fleiss_kappa: Agreement | None
    cohen_kappa: dict[str, Agreement]
    model: dict[str, BesideReader]


@dataclass(frozen=True)
class Mean:
    mean: float | None
    ci: tuple[float, float] | None


@dataclass(frozen=True)
class MapMean(Mean):
    """A mean over patients' maps; `above_chance` is the mean over lesions of own map minus the others' maps."""

    above_chance: Mean | None


@dataclass(frozen=True)
class MapShare:
    """A share of patients' maps: k of n."""

    k: int
    n: int
    share: float | None
    ci: tuple[float, float] | None
    above_chance: Mean | None


@dataclass(frozen=True)
class Overlap:
    """How much of the maps of one kind of network lies in the lesions."""

    share_in_lesion: MapMean
    overlap_over_half: MapShare
    pointing: MapShare
    chance: dict[str, float | None]
    empty_maps: int


@dataclass(frozen=True)
class GradcamScores:
    """The Grad-CAM laid on the lesion masks, beside what untrained networks get."""

    patients_with_lesion: int
    measured: int
    not_measured: dict[str, str]  # patient -> reason
    trained: Overlap = field(metadata=INLINE)
    uniform: dict[str, float | None]
    randomised: Overlap
    definition: str


@dataclass(frozen=True)
class Comparison:
    """DeLong's test of two rows: second minus first."""

    first: str
    second: str
    n: int
    n_positive: int
    left_out: int  # cases that only one of the two has
    auc_first: float | None = None
    auc_second: float | None = None
    difference: float | None = field(kw_only=True)
    difference_ci: tuple[float, float] | None = None
    z: float | None = None
    pvalue: float | None = field(kw_only=True)
    pvalue_holm: float | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Promise:
    """A promised PPV and NPV: the cuts that keep it, and what came of it on the patients that were scored."""

    promised: float
    confidence: float  # the share of studies in which both are kept
    chosen_on: int  # patients
    chosen_from: str
    lower: float | None  # a probability below it is called negative; None: none is
    upper: float | None  # one above it is called positive
    too_few: list[str] | None = None  # which promise has no cut, and how many patients it takes
    n: int
    unsure: int
    ppv: Estimate | None
    npv: Estimate | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of results: a network, an older method, a published cut-off or a reader, in one task."""

    kind: str = field(metadata=TABLE_ONLY)  # one of KINDS
    covered: Covered | None = field(default=None, metadata=TABLE_ONLY)  # of a reader, who has no coverage
    name: str
    task: str
    split: str = ""
    phase: int | None = None  # from here to `cohort` of networks
    model: str | None = None
    attention: bool | None = None
    recipe: str | None = None
    weights: str | None = None  # what they were at first
    parent: str | None = None
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    members: int | None = None  # of an ensemble: so many checkpoints
    cohort: str | None = None
    unit: str = "patient"
    positive_class: str = ""
    ceiling: Estimate | None = None  # of phantoms: the best AUC on average; where as many patients put it
    notes: tuple[str, ...] = ()
    scores: Scores | None = field(default=None, metadata=INLINE)  # None: not run
    coverage: Coverage | None = None
    subgroups: list[Subgroup] | None = None
    readers: Readings | None = None
    gradcam: GradcamScores | None = None
    promise: Promise | None = None
    recalibration: str | None = None  # the site's file
    failures: str | None = None  # of an older method on all patients: how its failures are counted
    method: str | None = None  # of older methods: its name, and what was chosen on training and validation patients
    chosen: str | None = None
    reason: str | None = None  # why it was not run

    @property
    def scored(self) -> Scores:
        """The scores of a row that was run."""
        if self.scores is None:
            raise ValueError(f"{self.name} was not run ({self.reason}): it has no scores.")
        return self.scores

    @property
    def covering(self) -> Covered | None:
        """How many patients the row is of; None where it was not run."""
        return self.coverage.counts if self.coverage else self.covered

    @property
    def about_everybody(self) -> bool:
        """Is it an older method on all patients, failures counted in whichever way?"""
        return self.failures is not None


def as_json(found: Any) -> Any:
    """Return results as plain values, in the order of their fields.

    An Estimate `x` becomes `x` and `x_ci`; a field that is None by default appears only where it is known.
    """
    if isinstance(found, Mapping):
        return {key: as_json(value) for key, value in found.items()}
    if isinstance(found, (list, tuple)):
        return [as_json(value) for value in found]
    if not is_dataclass(found):
        return found
    plain: dict[str, Any] = {}
    for part in fields(found):
        value, name = getattr(found, part.name), part.name.rstrip("_")
        if (value is None and part.default is None) or part.metadata == TABLE_ONLY:
            continue
        if part.metadata == INLINE:
            plain |= value._asdict() if isinstance(value, Confusion) else as_json(value)
        elif Estimate in get_args(part.type):
            plain |= {name: value and value.value, f"{name}_ci": value and list(value.ci)}
        else:
            plain[name] = as_json(value)
    return plain


def with_interval(estimate: Estimate | None, digits: int) -> str:
    """Write a value with its interval, or a dash."""
    if estimate is None:
        return "-"
    return f"{estimate.value:.{digits}f} [{estimate.ci[0]:.2f}-{estimate.ci[1]:.2f}]"


def p_text(pvalue: float) -> str:
    """Write a p-value with three digits; a very small one is not written as zero."""
    return f"{pvalue:.3f}" if pvalue >= 0.001 else "<0.001"
