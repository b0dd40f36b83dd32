"""What journals ask for, filled from the run's own files: checklist.md, after CLAIM 2024 and TRIPOD+AI.

In:  the facts that the files of a run hold (tss.evaluation.run_facts).
Out: checklist.md: every item with what the files say and where, or that it must be written.
Paper: none. CLAIM: Tejani et al., Radiology: Artificial Intelligence 2024, 6(4):e240300. TRIPOD+AI: Collins et al.,
     BMJ 2024, 385:e078378 (CC BY 4.0). Both in our own words: numbers and topics are theirs.
See: tests/evaluation/test_checklist.py
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tss.data.files import write_text
from tss.evaluation.run_facts import Fact, Facts
from tss.phantom.ideal_observer import PHANTOM_NOTE

NAME = "checklist.md"
WRITE = "**you must write this**"


class Item(NamedTuple):
    """One item of a checklist."""

    number: str
    topic: str
    facts: tuple[str, ...] = ()  # topics of run_facts that answer it
    still: str = ""  # what no file says


CLAIM = (
    Item("1", "The title or abstract says that AI is used, and of which kind", ("technology",)),
    Item("2", "The abstract sums up design, methods, results and conclusions"),
    Item("3", "Background; what the AI is to be used for"),
    Item("4", "Aims and hypotheses"),
    Item("5", "Prospective or retrospective"),
    Item("6", "What kind of study it is: a model made, tried, compared", ("goal",)),
    Item("7", "Where the data come from", ("sites",), "who collected them, when, and for what"),
    Item("8", "Who was included and excluded", ("excluded", "onset"), "by which criteria patients came into the table"),
    Item("9", "What was done to the data before the model saw them", ("preprocessing",)),
    Item("10", "Which parts of the data were used", ("subsets",)),
    Item("11", "How patients' identities were removed"),
    Item("12", "How missing data were handled", ("unknown", "covered"), "how that may bias the result"),
    Item("13", "How the images were acquired", ("scanners", "training patients"), "the protocol's remaining figures"),
    Item("14", "What counts as the truth", ("outcome", "onset")),
    Item("15", "Why this truth was chosen"),
    Item("16", "Who determined the truth, and how they were qualified"),
    Item("17", "How the test set was annotated", ("readings", "lesions"), "with which tools, by whom, blind to what"),
    Item("18", "How far annotators agree", ("agreement",)),
    Item("19", "How data were divided", ("numbers", "partition seed")),
    Item("20", "At which level the parts are disjoint", ("partition",)),
    Item("21", "The sample size that was intended, and why"),
    Item("22", "The model: inputs, layers, outputs", ("network",)),
    Item("23", "Software and versions", ("software",)),
    Item("24", "How the model's parameters were initialised", ("first weights",)),
    Item("25", "How it was trained", ("training",)),
    Item("26", "How the final model was selected", ("selection", "threshold")),
    Item("27", "Ensembles", ("ensemble",)),
    Item("28", "Measures of performance", ("measures",)),
    Item("29", "Measures of uncertainty and significance", ("intervals", "auc", "tests")),
    Item("30", "Robustness and sensitivity analyses", ("groups", "over all", "differences")),
    Item("31", "Explaining or interpreting the model", ("maps",)),
    Item("32", "Tests on internal data", ("internal",)),
    Item("33", "Tests on external data", ("external",)),
    Item("34", "Registration of a clinical trial"),
    Item("35", "How many were included and excluded, by stage", ("numbers", "excluded", "covered")),
    Item("36", "Demographic and clinical features in each part", ("people",)),
    Item("37", "Performance, with its uncertainty, in each part that was tested", ("cases", "auc", "calibration")),
    Item("38", "Diagnostic accuracy and its precision", ("shares",)),
    Item("39", "An analysis of the cases called wrongly", ("errors",), "what these cases have in common"),
    Item("40", "Limitations", ("limits",), "those of your data and your design"),
    Item("41", "What it means for practice; the intended role"),
    Item("42", "Where the full protocol and technical details are"),
    Item("43", "Where software, model and data can be had", ("files", "cohort hash"), "the addresses, and who may ask"),
    Item("44", "Funding, and what the funders did"),
)
TRIPOD = (
    Item("1", "Title: development or evaluation of a prediction model, in whom, of what", ("goal",), "the title"),
    Item("2", "Abstract: as TRIPOD+AI for abstracts asks"),
    Item("3a", "Context in care, and why a model is developed or evaluated; existing models"),
    Item("3b", "Target population, purpose in the pathway of care, intended users"),
    Item("3c", "Known inequalities in health between groups of people"),
    Item("4", "Objectives: development, evaluation or both"),
    Item("5a", "Sources of the data for development and evaluation; representativeness", ("sites", "numbers"), "why"),
    Item("5b", "Dates: start and end of recruitment"),
    Item("6a", "Setting: kind of care, number and place of centres", ("sites",), "the setting"),
    Item("6b", "Eligibility", ("excluded",), "the criteria"),
    Item("6c", "Treatments received, and how they were handled"),
    Item("7", "Preprocessing and quality checks; alike in all groups of people?", ("preprocessing", "excluded")),
    Item("8a", "The outcome: how, when and why it is defined so", ("outcome", "onset"), "why this outcome"),
    Item("8b", "Who assessed the outcome, if that takes judgement"),
    Item("8c", "Blinding of the outcome's assessment"),
    Item("9a", "Choice of predictors", ("network",), "why these"),
    Item("9b", "Predictors defined: how and when they were measured", ("scanners", "training patients")),
    Item("9c", "Who assessed the predictors, if that takes judgement", ("readings",), "their qualification"),
    Item("10", "How the study's size was arrived at"),
    Item("11", "Missing data", ("unknown", "covered")),
    Item("12a", "How the data were used and divided", ("numbers", "partition", "partition seed")),
    Item("12b", "How predictors were transformed or standardised", ("preprocessing",)),
    Item("12c", "Kind of model, its building, tuning and internal validation", ("network", "training", "selection")),
    Item("12d", "Differences between clusters, such as hospitals: how they were handled", ("differences",)),
    Item("12e", "Measures of performance and comparison, and plots", ("measures", "intervals", "tests")),
    Item("12f", "Updating of the model, such as recalibration", ("recalibration",)),
    Item("12g", "How predictions were calculated", ("files",)),
    Item("13", "Methods against imbalance of classes, if any"),
    Item("14", "Approaches to fairness"),
    Item("15", "The model's output, and how thresholds were chosen", ("threshold", "promise")),
    Item("16", "How development and evaluation data differ", ("differences",)),
    Item("17", "Ethics committee; consent or its waiver"),
    Item("18a", "Funding, and what the funders did"),
    Item("18b", "Conflicts of interest"),
    Item("18c", "The protocol, or that there is none"),
    Item("18d", "Registration, or that there is none"),
    Item("18e", "Availability of the data", ("cohort hash",), "where and for whom"),
    Item("18f", "Availability of the code", ("software",), "the address"),
    Item("19", "How patients and the public were involved, or that they were not"),
    Item("20a", "Flow of participants, with and without the outcome", ("numbers", "excluded", "covered", "cases")),
    Item("20b", "Characteristics, overall and by source", ("people", "scanners", "unknown")),
    Item("20c", "Development and evaluation data side by side", ("people", "differences")),
    Item("21", "Participants and events in each analysis", ("cases", "training patients")),
    Item("22", "The full model, so that others can use it; restrictions", ("network", "files"), "the restrictions"),
    Item("23a", "Performance with intervals, of subgroups too", ("auc", "shares", "calibration", "groups")),
    Item("23b", "Differences in performance between clusters"),
    Item("24", "Results of updating", ("recalibration",)),
    Item("25", "Interpretation of the results, fairness included"),
    Item("26", "Limitations", ("limits",), "those of your data and your design"),
    Item("27a", "How poor or missing input is handled in use", ("covered",), "who checks it"),
    Item("27b", "What users must do, and know"),
    Item("27c", "Next steps"),
)


def is_filled(item: Item, facts: Facts) -> bool:
    """Do the files say anything to it?"""
    return any(facts.get(topic) for topic in item.facts)


def write_checklist(folder: Path, facts: Facts, phantoms: bool) -> None:
    """Write checklist.md."""
    write_text(folder / NAME, checklist(facts, phantoms))


def checklist(facts: Facts, phantoms: bool) -> str:
    """Return checklist.md."""
    parts = ["# Reporting checklists, filled from the files of this evaluation"]
    parts += [f"**{PHANTOM_NOTE}**"] * phantoms
    parts += [
        "Every figure was read from the file named behind it; files are given relative to this one. "
        f"What no file says is marked: {WRITE}. An item that is filled is not yet well reported: read it, and see "
        "that your text says it.",
        *_section("CLAIM 2024 (Tejani et al., Radiology: Artificial Intelligence 2024, 6(4):e240300)", CLAIM, facts),
        *_section("TRIPOD+AI (Collins et al., BMJ 2024, 385:e078378)", TRIPOD, facts),
    ]
    return "\n\n".join(parts) + "\n"


def _section(title: str, items: Sequence[Item], facts: Facts) -> list[str]:
    filled = [item for item in items if is_filled(item, facts)]
    partly = [item.number for item in filled if item.still]
    open_items = [item.number for item in items if item not in filled]
    lines = [
        f"## {title}",
        "Items in our own words; the wording that counts is the publication's. "
        f"Filled: {len(filled)} of {len(items)}"
        + f", of these in part: {', '.join(partly)}" * bool(partly)
        + f". You must write: {', '.join(open_items)}." * bool(open_items),
    ]
    for item in items:
        said: list[Fact] = [fact for topic in item.facts for fact in facts.get(topic, [])]
        answers = [f"- {escaped(fact)}" for fact in said]
        if not said:
            answers = [f"- {WRITE}"]
        elif item.still:
            answers.append(f"- {WRITE} too: {item.still}")
        lines.append(f"### {item.number}. {item.topic}\n\n" + "\n".join(answers))
    return lines


def escaped(fact: Fact) -> str:
    """A name with an underscore or a star is no emphasis; the file's name stands in its own marks."""
    text = fact.text
    for sign in "\\*_<`":
        text = text.replace(sign, "\\" + sign)
    return str(fact._replace(text=" ".join(text.split())))
