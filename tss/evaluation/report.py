"""The whole evaluation on one page that can be sent to a clinician: report.html.

In:  the rows of Table 2 (tss.evaluation.table2), the cohort's patients, paired comparisons, pages of Grad-CAM.
Out: report.html, all in one file; its pictures as files too, in figures/.
Paper: 3, Figs 6 to 9, Table 2; patient flow (STARD 2015), calibration, subgroups, hashes and limits are ours.
See: tests/evaluation/test_report.py

Nothing is computed here: each number is a row's, as table2.csv and metrics.json have it. The style is report.css. Where
the patients are phantoms every caption says so, since a picture or a table is copied without its page.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import tss
from tss.data.cohort import EXTERNAL, Patient
from tss.data.cohort_profile import Difference
from tss.data.files import write_text
from tss.data.tasks import POSITIVE, TASKS
from tss.display import html_page
from tss.display.tables import table1_rows
from tss.evaluation import report_plots, table2
from tss.evaluation.auc_comparison import TRAINED_ONCE, comparisons_rows, last_networks
from tss.evaluation.patient_flow import IN_TABLE, TAKING_PART, patient_flow
from tss.evaluation.readers import EXPLAINED, readers_rows
from tss.evaluation.results import (
    CUTOFF,
    FLAIR_CLOCK,
    NETWORK,
    OLDER,
    OUT_OF_FOLD,
    READER,
    SOFT_CLOCK,
    VALIDATION,
    Comparison,
    MapMean,
    MapShare,
    Mean,
    Row,
    with_interval,
)
from tss.evaluation.subgroups import WHY_WITHHELD, subgroups_rows
from tss.phantom.ideal_observer import CEILING_NOTE, PHANTOM_NOTE

NAMES = ("report.html", "figures")
PHANTOMS = "Phantoms: not clinical results."  # ends every caption
MOST_PICTURES = 12e6  # bytes of Grad-CAM in the page; our choice: a mail with it stays under 20 MB
MOST_WITHOUT = 50  # our choice: patients without a prediction, in the page
MOST_REASONS = 10  # our choice: shown of a step; all are in cohort.csv
GRADCAM = {
    "share_in_lesion": "share of the map in the lesion",
    "overlap_over_half": "over half of the lesion lit",
    "pointing": "hottest place in the lesion",
}  # of tss.evaluation.results.Overlap
TAKING_PART_MEANS = {  # are the patients external?
    False: "Taking part: the networks learn from those in train; those in val choose epoch and threshold; those in "
    "test are kept for the end.",
    True: "Taking part: those whose answers are scored; external patients have no other use.",
}
LIMITS = (
    "With few patients the intervals are wide: a difference that is smaller than they are has not been shown.",
    "Whether a patient was scanned within 3 h or 4.5 h is known from the recorded onset; a wrong or "
    "unwitnessed one is counted as if it were right.",
    TRAINED_ONCE,
    "ImageNet's weights were given hemispheres in [0, 1], not standardised as photographs were, and its early layers "
    "are frozen: they see less contrast than they were trained with.",
    "The clock's ratios are measured after histogram matching, which may move a contrast by 4 %: as much as lies "
    "between published cut-offs.",
    "The older methods find the infarct automatically and fail on some patients; they are reported on those that "
    "they can process, and twice on all: with failures as wrong, the worst that can be, and at one neutral score.",
    "Sensitivity at a reader's specificity is read off this test set's own curve: it ranks readers and networks and "
    "predicts nothing.",
    "A Grad-CAM map shows where evidence came from, coarsely; it does not show that the verdict is right.",
    "Subgroups were looked at afterwards; their intervals are not corrected for how many there are.",
)


ONE_NUMBER = {  # of older methods, in words
    FLAIR_CLOCK: "how bright the lesion is on FLAIR beside its mirror region, where it can be measured",
    SOFT_CLOCK: "how bright FLAIR is where DWI is bright",
}


ONE_COHORT = (
    "All patients come from one cohort; the networks were trained on another part of it. No other hospital, scanner or "
    "population was tested."
)
ONE_SITE = (
    "These external patients are of the sites that the table above names, or of one: how the networks do elsewhere is "
    "not known from them. "
)
FITTED_HERE = {  # was a network recalibrated?
    False: "Nothing was fitted or chosen here; thresholds are those of the training cohort.",
    True: "Probabilities and thresholds were recalibrated on others of these patients, who are not scored; nothing "
    "else was fitted or chosen here.",
}
OF_OLDER = "The older methods' are of the patients that they can process. "
IN_EVERY_PANEL = {  # older methods that a network must beat
    FLAIR_CLOCK: "black: the FLAIR ratio alone, of the patients in whom it can be measured",
    SOFT_CLOCK: "brown: the soft tissue clock, FLAIR where DWI is bright, of all",
}


class Findings(NamedTuple):
    """What an evaluation found."""

    patients: list[Patient]  # of the whole cohort, all splits
    scored: Sequence[Patient]  # those of the split that were evaluated: all but those that were recalibrated on
    split: str  # the one that was evaluated
    rows: Sequence[Row]  # of Table 2, in its order
    compared: Mapping[str, Sequence[Comparison]]  # by task
    how_compared: str  # how the pairs were chosen
    maps: Mapping[str, Sequence[Path]]  # name of a network -> its pages of Grad-CAM, <patient>.png
    settings: Mapping  # of preprocessing: DATA/settings.json
    differences: Sequence[Difference] = ()  # of external patients from those that the networks learned from

    @property
    def external(self) -> bool:
        return self.split == EXTERNAL

    @property
    def run(self) -> list[Row]:
        return [row for row in self.rows if row.scores]

    @property
    def networks(self) -> list[Row]:
        return [row for row in self.run if row.kind == NETWORK]

    @property
    def tasks(self) -> list[str]:
        return [task for task in TASKS if any(row.task == task for row in self.networks)]

    @property
    def last_networks(self) -> list[Row]:
        """Of each task about time, the network of the last phase of 2D and of 3D."""
        return [row for task in self.timed for row in last_networks(self.rows, task)]

    @property
    def timed(self) -> list[str]:
        """The tasks about time since stroke."""
        return [task for task in self.tasks if TASKS[task] is not None]

    @property
    def recalibrated(self) -> bool:
        return any(row.recalibration for row in self.networks)

    @property
    def phantoms(self) -> bool:
        return any(row.ceiling is not None for row in self.rows)

    def of_task(self, task: str) -> list[Row]:
        """The task's networks."""
        return [row for row in self.networks if row.task == task]

    def caption(self, text: str) -> str:
        return escape(text) + f" <strong>{PHANTOMS}</strong>" * self.phantoms

    def table(self, rows: Sequence[Sequence[str]], caption: str, kind: str = "") -> str:
        """Return a table; nothing where it has a header alone."""
        return html_page.table(rows, self.caption(caption), kind) if len(rows) > 1 else ""

    def pictures(self, paths: Iterable[Path], caption: str, kind: str = "panels") -> str:
        """Return pictures side by side under one caption; nothing where there are none."""
        shown = "".join(html_page.picture(path.read_bytes(), f"{path.stem}. {caption}") for path in paths)
        return f'<figure class="{kind}"><div>{shown}</div><figcaption>{self.caption(caption)}</figcaption></figure>' * (
            bool(shown)
        )


def write_report(folder: Path, found: Findings) -> None:
    """Write report.html and the pictures of figures/."""
    parts = [_heading(found), _in_short(found), _flow(found), _differences(found), _table2(found)]
    parts += [_roc(folder, found), _bars(folder, found)]
    parts += [_comparisons(found), _readers(found), _calibration(folder, found), _subgroups(found), _measured(found)]
    parts += [_thresholds(found), _limits(found), _origin(found), _maps(found)]
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    title = "Time since stroke from MRI" + ", phantoms: not clinical results" * found.phantoms
    write_text(folder / NAMES[0], html_page.frame(title, style, "\n".join(filter(None, parts)), narrow=True))


def _section(title: str, *parts: str, kind: str = "") -> str:
    content = "\n".join(filter(None, [f"<h2>{escape(title)}</h2>", *parts]))
    return f'<section class="{kind}">{content}\n</section>' * any(parts)


def _paragraphs(lines: Iterable[str]) -> str:
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" * bool(items)


def _heading(found: Findings) -> str:
    """What this is, of which patients, and what it may not be used for."""
    scored = sum(patient.status == "ok" for patient in found.scored)
    times = " or ".join(POSITIVE[task].removeprefix("TSS < ") for task in found.timed)
    asked = (
        f"the probability that it began less than {times} before the scan"
        if times
        else "the probability of a stroke in each half of the brain"
    )
    beside = [
        words
        for kind, words in ((OLDER, "simpler methods"), (READER, "readers of the same scans"))
        if any(row.kind == kind for row in found.run)
    ]
    seen = (
        "They are external patients, of another hospital or new: none of them was used to train the programs or to "
        "choose their thresholds, by the content of their scans."
        if found.external
        else "None of them was used to train the programs or to choose their thresholds."
        if found.split == "test"
        else f"They are the {found.split} patients, which were used to make the programs: the scores are optimistic."
    )
    made_up = (
        " <strong>These patients are phantoms: made-up scans with a known answer. Phantom scores are not "
        "clinical results, and say nothing about any real patient.</strong>" * found.phantoms
    )
    return (
        "<h1>Time since stroke from MRI: how well it was told</h1>\n<p class='about'>Computer programs (neural "
        f"networks after Zhang, Polson et al. 2021) were given the MRI scans of {scored} patients with an "
        f"ischaemic stroke, of {len(found.scored)} in the {found.split} {'cohort' if found.external else 'group'}, and "
        f"answered with {asked}. This page says how often they were right, how sure one can be of "
        f"that{', and how ' * bool(beside)}{' and '.join(beside)}"
        f"{' did' * bool(beside)}. {seen}{made_up} It is a research result, not a medical device: it may not be "
        "used to diagnose or to treat anyone, nor to choose patients for thrombolysis.</p>"
    )


def _in_short(found: Findings) -> str:
    """The results of the last networks in words."""
    lines = []
    for task in found.timed:
        time = POSITIVE[task].removeprefix("TSS < ")
        for row in last_networks(found.rows, task):
            scores, counts = row.scored, row.scored.counts
            lines.append(
                f"{POSITIVE[task]}, {(row.model or '').upper()} network ({row.name}): it answered for "
                f"{len(row.coverage.label_unknown) if row.coverage else 0} patients whose time is not known; there is "
                "nothing to score."
                if not scores.n
                else f"{POSITIVE[task]}, {(row.model or '').upper()} network ({row.name}): it recognised {counts.tp} "
                f"of the {scores.n_positive} patients who were scanned within {time}, and {counts.tn} of the "
                f"{scores.n - scores.n_positive} who were scanned later. AUC {with_interval(scores.auc, 3)}."
                + (
                    f" These are its calls at the threshold; where a PPV and NPV of {row.promise.promised:g} are to be "
                    f"kept, it is unsure of {row.promise.unsure} of {row.promise.n}."
                    if row.promise
                    else ""
                )
            )
        lines += [
            f"{POSITIVE[task]}, one number instead of a network, {ONE_NUMBER[row.method or '']}: AUC "
            f"{with_interval(row.scored.auc, 3)}, in {row.scored.n} patients."
            for row in report_plots.where_used(found.rows)
            if row.task == task and row.method in ONE_NUMBER
        ]
        lines += [
            f"{POSITIVE[task]}: {CEILING_NOTE} is {row.ceiling.value:.3f}{table2.chance_text(row.ceiling)}."
            for row in found.of_task(task)
            if row.ceiling is not None
        ][:1]
    return _section(
        "In short",
        _list(lines),
        "<p>AUC: the chance that, of two patients, one scanned within the time and one later, the first gets the "
        "higher probability; 0.5 is guessing, 1 is perfect. In brackets: 95 % confidence interval.</p>" * bool(lines),
    )


def _flow(found: Findings) -> str:
    tables, reasons = [], []
    names = {patient.id for patient in found.scored}
    used = {p.id: "recalibrated on" for p in found.patients if p.split == found.split and p.id not in names}
    kinds = {POSITIVE[task] if TASKS[task] is None else "Time since stroke": task for task in found.tasks}
    for words, task in kinds.items():
        same = [other for other in found.tasks if (TASKS[other] is None) == (TASKS[task] is None)]
        no_answer = {
            patient: reason
            for row in found.networks
            if row.task in same and row.coverage
            for patient, reason in row.coverage.no_probability.items()
        }
        steps = patient_flow(found.patients, task, found.split, no_answer | used)
        signs = {IN_TABLE: "", TAKING_PART: "= "}
        rows = [["Patients", *steps[0].counts]]
        rows += [[signs.get(s.name, "\N{MINUS SIGN} ") + s.name, *map(str, s.counts.values())] for s in steps]
        reasons += [
            f"{count} {step.name}: {reason}"
            for step in steps
            for reason, count in sorted(step.reasons.items(), key=lambda item: -item[1])[:MOST_REASONS]
        ]
        tables.append(
            found.table(
                rows,
                f"Patient flow, {words}. {TAKING_PART_MEANS[found.external]} This page is about {found.split}. Every "
                "patient of cohort.csv is counted in one line between the first and the last, or in the last.",
            )
        )
    groups = table1_rows(found.patients)
    groups[0][0] = "What"
    return _section(
        "The patients",
        *tables,
        _list(dict.fromkeys(reasons)),
        _without(found),
        found.table(groups, "The cohort (the paper's Table 1): n (%), or median and interquartile range."),
    )


def _without(found: Findings) -> str:
    """Every patient that some network has no answer for, and why."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in found.networks:
        for patient, reason in row.coverage.no_probability.items() if row.coverage else ():
            reasons.setdefault((patient, reason), []).append(row.name)
    rows = [[patient, reason, ", ".join(names)] for (patient, reason), names in reasons.items()]
    more = f" The first {MOST_WITHOUT} of {len(rows)}; without_prediction.csv of each network has all." * (
        len(rows) > MOST_WITHOUT
    )
    return (
        found.table(
            [["Patient", "Why there is no prediction", "Networks"], *rows[:MOST_WITHOUT]],
            f"Patients without a prediction.{more}",
        )
        if rows
        else ""
    )


def _differences(found: Findings) -> str:
    """How external patients differ from those that the networks learned from."""
    rows = [["What", "Training patients", "Here", "Outside?"]] + [
        [line.what, line.training, line.here, "outside" if line.outside else ""] for line in found.differences
    ]
    return _section(
        "How do these patients differ from those that the networks learned from?",
        found.table(
            rows,
            "Scanner columns of the table as value (patients); numbers as median (quartiles; 5th to 95th percentile). "
            "Scanner units are before, lesions after preprocessing. Outside: the median here lies beyond the training "
            "patients' 5th to 95th percentile, or a value is new. Where something is outside, the networks are asked "
            "about what they have not seen.",
        )
        if found.differences
        else "",
    )


def _table2(found: Findings) -> str:
    head, *lines = table2.main_rows(found.rows)
    rows = [head[1:]]
    for stage, *cells in lines:
        rows += [[stage]] * bool(stage) + [cells]
    return _section(
        "All results: Table 2",
        found.table(
            rows,
            f"Table 2 of the paper for these {len(found.scored)} patients, {found.split} split. table2.csv has every "
            "number in full.",
        ),
        _paragraphs([table2.EXPLAINED]),
        _list([*table2.notes(found.run), *table2.different_patients(found.run), *table2.not_run(found.rows)]),
        kind="broad",
    )


def _roc(folder: Path, found: Findings) -> str:
    parts = []
    for task in found.tasks:
        caption = (
            f"ROC curves, {POSITIVE[task]} (the paper's Fig. 8): {report_plots.cases(found.of_task(task))}. AUC with "
            "95 % interval in the legend."
        )
        older = {row.method for row in report_plots.where_used(found.run) if row.task == task and row.scored.roc}
        if shown := [words for method, words in IN_EVERY_PANEL.items() if method in older]:
            caption += f" In every panel, {'; '.join(shown)}. A network that cannot beat that is seen not to."
        if any(row.task == task and row.kind == CUTOFF for row in found.run):
            caption += " Yellow, beside the older methods: published cut-offs of the FLAIR ratio (Table 2 names their "
            caption += "sources)."
        if any(row.task == task and row.kind == READER for row in found.run):
            caption += " White marks: readers, of all patients whose onset is known."
        parts.append(found.pictures(report_plots.draw_roc(folder / NAMES[1], found.rows, task), caption))
    return _section("How well are early and late told apart? ROC curves", *parts)


def _bars(folder: Path, found: Findings) -> str:
    return _section(
        "What did the networks know before? First weights",
        *(
            found.pictures(
                report_plots.draw_bars(folder / NAMES[1], found.rows, task),
                f"AUC by what the weights were at first, {POSITIVE[task]} (the paper's Fig. "
                f"{'6' if task == 'tss<3h' else '7'}): {report_plots.cases(found.of_task(task))}. Lines are 95 % "
                f"intervals. {OF_OLDER * any(row.task == task for row in report_plots.where_used(found.run))}"
                f'"{table2.NOT_RUN}": this network was not trained or not given; the reason, where known, is below '
                "Table 2.",
                "panels single",
            )
            for task in found.timed
        ),
    )


def _comparisons(found: Findings) -> str:
    return _section(
        "Is one better than another?",
        _paragraphs([found.how_compared] * bool(found.how_compared)),
        *(
            found.table(
                comparisons_rows(pairs),
                f"Differences in AUC, {POSITIVE[task]}, on the patients that both rows "
                "have: DeLong's test, with Holm's correction for the tests of this table "
                f"({sum(pair.pvalue is not None for pair in pairs)}). {TRAINED_ONCE}",
            )
            for task, pairs in found.compared.items()
        ),
    )


def _readers(found: Findings) -> str:
    shown = readers_rows(found.last_networks)
    if shown is None:
        return ""
    beside = (
        f"The last network of 2D and of 3D beside each reader. {EXPLAINED} Holm: over one network's readers. "
        "metrics.json has the other networks."
    )
    known = next(row.readers.n_onset_known for row in found.last_networks if row.readers)
    return _section(
        "Beside the readers",
        found.table(shown.readers, f"{shown.heading}; onset known in {known} patients. 95 % intervals by Wilson."),
        _list(shown.remarks),
        found.table(shown.beside, beside),
    )


def _calibration(folder: Path, found: Findings) -> str:
    parts = []
    for task in found.timed:
        parts.append(
            found.pictures(
                report_plots.draw_calibration(folder / NAMES[1], found.rows, task),
                f"{POSITIVE[task]}, the last network of 2D and of 3D: {report_plots.cases(found.of_task(task))}. Left: "
                "patients in fifths by probability, share that was positive with its 95 % interval; on the dashed "
                "line probabilities mean what they say. Right, the decision curve: what calling positive from a "
                "probability on is worth, a false positive costing threshold / (1 - threshold) of a true one.",
            )
        )
    rows = [["Row", "n", "Brier score [95 % CI]"]] + [
        [f"{row.name}, {POSITIVE[row.task]}", str(row.scored.n), with_interval(row.scored.brier, 3)]
        for row in found.run
        if row.task in found.timed and row.scored.brier
    ]
    return _section(
        "Do the probabilities mean what they say?",
        *parts,
        found.table(
            rows,
            "Brier score: mean squared distance of the probability from what was true; 0 is perfect, and 0.25 is "
            "what always saying one half gets.",
        ),
    )


def _subgroups(found: Findings) -> str:
    tables = [
        found.table(
            subgroups_rows(row.subgroups),
            f"{row.name}, {POSITIVE[row.task]}: scores in groups, {row.scored.n} patients in all. {WHY_WITHHELD}",
        )
        for row in found.last_networks
        if row.subgroups
    ]
    return _section(
        "In groups of patients", *tables, "<p>metrics.json has those of the other networks.</p>" * bool(tables)
    )


def _measured(found: Findings) -> str:
    """The Grad-CAM against the lesions that were drawn, where it was measured."""
    heads = [head for name in GRADCAM.values() for head in (name, "by chance", "above chance")]
    rows = [["Network", "Weights", "n", *heads]]
    measured = [row.gradcam for row in found.networks if row.gradcam]
    if not measured:
        return ""
    for row in found.networks:
        if own := row.gradcam:
            for words, part in ((f"trained, first {_weights(row)}", own.trained), ("randomised", own.randomised)):
                cells = [
                    cell
                    for name in GRADCAM
                    for cell in (_share(getattr(part, name)), _chance(part.chance[name]), _above(getattr(part, name)))
                ]
                rows.append([f"{row.name}, {POSITIVE[row.task]}", words, str(own.measured), *cells])
    caption = (
        f"Grad-CAM measured on the lesion masks of {max(own.measured for own in measured)} patients, 95 % intervals in "
        "brackets. Randomised: the same network with random weights. Where the interval of what is above chance "
        f"holds 0, the maps were not shown to know where the lesion is. {measured[0].definition}"
    )
    return _section("Where the networks looked, measured", found.table(rows, caption))


def _weights(row: Row) -> str:
    return table2.WEIGHTS.get(row.weights or "", row.weights or "")


def _share(part: MapMean | MapShare) -> str:
    """Write a mean or a share with its interval, or a dash."""
    value = part.mean if isinstance(part, MapMean) else part.share
    counts = f" ({part.k} of {part.n})" if isinstance(part, MapShare) else ""
    ends = " [{:.3f}-{:.3f}]".format(*part.ci) if part.ci else ""
    return "-" if value is None else f"{value:.3f}{ends}{counts}"


def _chance(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _above(part: MapMean | MapShare) -> str:
    """Write how far a mean or a share lies above chance, with its interval, or a dash."""
    above = part.above_chance or Mean(None, None)
    ends = " [{:+.3f} to {:+.3f}]".format(*above.ci) if above.ci else ""
    return "-" if above.mean is None else f"{above.mean:+.3f}{ends}"


def _maps(found: Findings) -> str:
    """The pages of Grad-CAM, by patient, so that networks are compared on one patient (Fig. 9)."""
    pages: dict[str, list[tuple[Row, Path]]] = {}
    for row in found.networks:
        for path in found.maps.get(row.name, ()):
            pages.setdefault(path.stem, []).append((row, path))
    room, left, parts = MOST_PICTURES, [], []
    for patient, there in pages.items():
        room -= sum(path.stat().st_size for _, path in there)
        if room < 0:
            left.append(patient)
            continue
        shown = "".join(
            found.pictures(
                [path], f"{patient}: {row.name}, {POSITIVE[row.task]}, first weights: {_weights(row)}.", "map"
            )
            for row, path in there
        )
        parts.append(f"<h3>{escape(patient)}</h3><div class='maps'>{shown}</div>")
    more = (
        f"<p>For lack of space the pictures of {escape(', '.join(left))} are not on this page; they lie in the "
        "folder gradcam of each network.</p>" * bool(left)
    )
    return _section("Where the networks looked, patient by patient (the paper's Fig. 9)", *parts, more)


def _thresholds(found: Findings) -> str:
    sources = {row.scored.threshold_from for row in found.networks}
    chosen = ["on the validation patients"] * (VALIDATION in sources)
    chosen += ["on the out-of-fold predictions of all but the test patients"] * (OUT_OF_FOLD in sources)
    kept = "changed for this site alone, by recalibration" if found.recalibrated else "not changed"
    others = {
        OLDER: "The tissue clock and Lee 2020 were fitted to the training patients and had their thresholds chosen in "
        "the same way.",
        CUTOFF: "Published cut-offs are used as published.",
        READER: "A reader needs none.",
    }
    said = " ".join(words for kind, words in others.items() if any(row.kind == kind for row in found.run))
    return _section(
        "How the thresholds were chosen",
        "<p>A network's threshold is the probability from which it calls positive. It was chosen "
        f"{', of an ensemble of folds '.join(chosen)} (the largest sum of sensitivity and specificity, Youden's J), "
        f"before the test patients were looked at, and {kept}. {said}</p>",
        found.table(
            table2.best_rows(found.run),
            "Optimistic, for comparison only: the scores at the threshold that would "
            "be best for these very patients. Nobody knows it beforehand.",
        ),
    )


def _limits(found: Findings) -> str:
    one_site = ONE_SITE + FITTED_HERE[found.recalibrated]
    own = [f"{PHANTOM_NOTE} Their distortions, diseases and readers are simpler than real ones."] * found.phantoms
    return _section(
        "What a reader of this page should doubt", _list([*own, one_site if found.external else ONE_COHORT, *LIMITS])
    )


def _origin(found: Findings) -> str:
    """Hashes and versions: what was evaluated, so that it can be told from something else."""
    rows = [["Network", "Checkpoint, SHA-256", "Started from, SHA-256", "Cases and labels, SHA-256"]] + [
        [row.name, row.checkpoint_sha256 or "", row.parent or "", row.scored.cases_sha256] for row in found.networks
    ]
    grid = " x ".join(map(str, found.settings.get("grid", [])))
    said = [
        f"Software: tss {tss.__version__}. Preprocessing: tools {found.settings.get('tools', '-')}, grid {grid}, "
        f"atlas SHA-256 {found.settings.get('atlas_sha256', '-')}.",
        "Cohort that the networks were trained on, SHA-256: "
        f"{', '.join(sorted({row.cohort or '' for row in found.networks}))}. These patients are in none of its splits; "
        "their scans were compared with those of its training and validation patients, by SHA-256 of the voxels, and "
        "none is among them."
        if found.external
        else "Cohort, who is in which split, SHA-256: "
        f"{', '.join(sorted({row.cohort or '' for row in found.networks}))}. "
        "All networks were trained with this split: no patient scored here was used to train them. Which patients "
        "first weights from elsewhere were learned from is not known here."
        if found.split == "test"
        else f"Cohort, who is in which split, SHA-256: {found.networks[0].cohort}.",
        "Beside this page lie table2.csv and table2.md, comparisons.json, the pictures of figures/, and for each "
        "network metrics.json and predictions.csv; and checklist.md (CLAIM 2024, TRIPOD+AI) and model-card.md, filled "
        "from these files.",
        "The method: Zhang, Polson et al. 2021, Computerized Medical Imaging and Graphics 90:101926.",
    ]
    return _section(
        "Where the numbers come from",
        _paragraphs(said),
        found.table(rows, "The networks that were evaluated, by their files.", "hashes"),
    )
