"""The networks of a report, each on a card for those who are to use or to judge it: model-card.md.

In:  the facts that the files of a run hold (tss.evaluation.run_facts).
Out: model-card.md.
Paper: none; the headings are those of model cards (Mitchell et al., FAT* 2019).
See: tests/evaluation/test_checklist.py
"""

from pathlib import Path

from tss.data.files import write_text
from tss.evaluation.checklist import WRITE, escaped
from tss.evaluation.run_facts import Facts
from tss.phantom.ideal_observer import PHANTOM_NOTE

NAME = "model-card.md"
SECTIONS = (  # heading, topics of run_facts, what no file says
    ("The model", ("technology", "network", "first weights", "training", "selection", "ensemble", "files"), ""),
    ("Its output", ("outcome", "threshold", "promise", "recalibration"), ""),
    ("What it may be used for", (), "who is meant to use it, for which patients; what it must not be used for"),
    ("What its results may depend on", ("scanners", "training patients", "groups"), ""),
    ("Training and validation data", ("numbers", "people", "cohort hash"), ""),
    ("The data that it was tested on", ("goal", "cases", "covered", "sites", "differences"), "where they come from"),
    ("How good it is", ("auc", "shares", "calibration", "over all", "tests"), ""),
    ("Whom it gets wrong", ("errors",), ""),
    ("Where it looks", ("maps",), ""),
    ("How scans must be prepared for it", ("preprocessing", "software"), ""),
    ("Ethics", (), "consent, privacy, who may be harmed by a wrong answer"),
    ("Limits", ("limits",), "what you know of it that no file says"),
)
NO_DEVICE = "A research result, not a medical device: not to be used to diagnose or to treat anyone."


def write_model_card(folder: Path, facts: Facts, phantoms: bool) -> None:
    """Write model-card.md."""
    parts = ["# Model card", NO_DEVICE, *[f"**{PHANTOM_NOTE}**"] * phantoms]
    for heading, topics, still in SECTIONS:
        lines = [f"- {escaped(fact)}" for topic in topics for fact in facts.get(topic, [])]
        if still or not lines:
            lines.append(f"- {WRITE}{f': {still}' if still else ''}")
        parts += [f"## {heading}", "\n".join(lines)]
    write_text(folder / NAME, "\n\n".join(parts) + "\n")
