"""The page on which a person looks at every patient and judges: accept, reject or unsure.

In:  the cohort's table, the patients' records, and their pictures in DATA; qc_page.css and qc_page.js beside this file.
Out: qc/index.html; from it the person downloads cohort.csv with the columns verdict, verdict_remark.
Paper: 2.1 ("a visual quality check was manually performed for all cases").
See: tests/preprocessing/test_qc_page.py

Pictures are the files beside the page, each loaded when it is scrolled to, so that the page of 3,000 patients opens as
that of 30 does; with --qc-inline they are in the page, which can then be mailed. Nothing else is fetched and nothing is
sent: table and script are in the page. A verdict is kept by the browser the moment it is given, under the patient's
name and the hash of the picture that was judged; one that is not there cannot be judged.
"""

import html
import json
import re
from pathlib import Path

from tss.data.prepared import hash_of_picture, qc_picture
from tss.display import html_page
from tss.preprocessing.patient_record import Record
from tss.preprocessing.quality_control import LIMITS

ORDER = ("failed", "flagged", "ok")


def index_page(table: list[list[str]], records: list[Record | None], data: Path, inline: bool = False) -> str:
    """Return qc/index.html: failed patients first, then flagged ones, then the rest, each with its picture.

    table: cohort.csv's header and lines, as it is written.
    records: one for each line; None = not preprocessed yet.
    data: DATA, with the pictures; a patient without one has none on the page.
    inline: with the pictures in it, not beside it.
    """
    found = [(_mark(record), line, record) for line, record in enumerate(records) if record]
    found.sort(key=lambda entry: ORDER.index(entry[0]))
    measures = list(dict.fromkeys(name for _, _, record in found for name in record["measures"]))
    columns = ["patient", "status", "verdict", *measures]
    heads = "".join(
        f'<button data-column="{number}">{html.escape(name.replace("_", " "))}</button>'
        for number, name in enumerate(columns)
    )
    cards = "\n".join(_card(mark, line, record, measures, data, inline) for mark, line, record in found)
    marks = [mark for mark, _, _ in found]
    counts = ", ".join(f"{marks.count(mark)} {mark}" for mark in ORDER)
    missing = len(records) - len(found)
    note = (
        f"<p class='warning'>{missing} of {len(records)} patients are not preprocessed yet. Reload this page "
        "when the run has ended, and download only then.</p>"
    ) * bool(missing)
    rows = _json({"columns": table[0], "rows": table[1:]})
    css, script = (Path(__file__).with_name(name).read_text("utf-8") for name in ("qc_page.css", "qc_page.js"))
    return html_page.frame(
        f"Quality control: {len(found)} patients",
        f":root {{ --measures: {max(len(measures), 1)} }}\n{css}",
        f"""<h1>Quality control: {counts}</h1>
{HOW_TO}{note}
<nav><div class="bar"><label>show <select id="filter">{OPTIONS}</select></label>
<span id="progress"></span><button id="download">Download cohort.csv</button>
<button id="forget">Discard what is not in cohort.csv</button></div>
<div class="line">{heads}</div></nav>
<main>
{cards}
</main>
{_meanings(measures)}
<script type="application/json" id="table">{rows}</script>
<script>
{script}</script>""",
        script=True,
        narrow=True,
        beside=not inline,
    )


def _meanings(measures: list[str]) -> str:
    """Say what each column is: what is usual, and what it means where a value is beyond."""
    lines = []
    for name in measures:
        low, high, words = LIMITS.get(name, (None, None, ""))
        fault = re.sub(r"\{[^}]*\}", "\N{HORIZONTAL ELLIPSIS}", words)
        usual = f"usually {low:g} to {high:g}; beyond: {fault}" if words else _other(name)
        lines.append(f"<li><b>{html.escape(name.replace('_', ' '))}</b>: {html.escape(usual)}</li>")
    return f"<h2>What the columns say</h2><ul class='meanings'>{''.join(lines)}</ul>" * bool(lines)


def _other(name: str) -> str:
    """Words for a measure without limits of its own."""
    return next((words for part, words in OTHERS.items() if part in name), "no limits; compare patients")


OTHERS = {
    "_void_left": "of the void, what lies in the left half, ml",
    "_void_right": "of the void, what lies in the right half, ml",
    "lesion_right": "of the lesion, what lies in the right hemisphere",
    "_contrast_raw": "the lesion over its mirror image, in the scan as it came",
    "_contrast": "the lesion over its mirror image, after preprocessing",
}


def _mark(record: Record) -> str:
    return "failed" if record["status"] != "ok" else "flagged" if record["flags"] else "ok"


def _card(mark: str, line: int, record: Record, measures: list[str], data: Path, inline: bool) -> str:
    """Return one patient: a line of measures, what is wrong, the picture, and the buttons of the verdict."""
    name = html.escape(record["patient"])
    cells = [
        _cell(name, name, "name"),
        _cell(ORDER.index(mark), mark, mark),
        '<span class="verdict" data-value=""></span>',
        *(_measure(key, record["measures"].get(key)) for key in measures),
    ]
    remarks = "".join(
        f"<li>{html.escape(text)}</li>" for text in ([record["reason"]] if record["reason"] else []) + record["flags"]
    )
    judging, key = "", ""
    if mark != "failed":
        picture = qc_picture(data, record["patient"])
        version = hash_of_picture(data, record["patient"])
        key = f"tss verdict {name} {version}"
        if not version:
            image = f"<p class='warning'>{name}.png is missing. Run run_preprocess.py again with --overwrite.</p>"
        elif inline:
            image = html_page.picture(picture.read_bytes(), record["patient"], DECODING)
        else:
            image = html_page.picture_beside(picture.name, version, record["patient"], DECODING)
        judging = image + JUDGING
    return (
        f'<article class="{mark}" data-mark="{mark}" data-line="{line}" data-key="{key}">'
        f'<div class="line">{"".join(cells)}</div><ul>{remarks}</ul>{judging}</article>'
    )


def _cell(value: object, text: str, kind: str = "", column: str = "") -> str:
    named = f' data-name="{html.escape(column)}"' * bool(column)  # shown where there is no room for columns
    return f'<span class="{kind}" data-value="{value}"{named}>{text}</span>'


def _measure(name: str, value: float | None) -> str:
    if value is None:
        return _cell("", "")
    low, high, _ = LIMITS.get(name, (value, value, ""))
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return _cell(value, text, "" if low <= value <= high else "beyond", name.replace("_", " "))


def _json(content: object) -> str:
    """Return JSON for a <script> element: no "<", so nothing in it can end the element."""
    return json.dumps(content).replace("<", "\\u003c")


DECODING = 'decoding="async"'
VERDICTS = {"open": "not yet judged", "accept": "accepted", "reject": "rejected", "unsure": "unsure"}
OPTIONS = "".join(
    f'<option value="{value}">{VERDICTS.get(value, value)}</option>' for value in ("all", *ORDER, *VERDICTS)
)

JUDGING = (
    '<div class="judge"><button data-verdict="accept">1 accept</button><button data-verdict="reject">2 reject'
    '</button><button data-verdict="unsure">3 unsure</button><textarea rows="1" placeholder="remark"></textarea>'
    "</div>"
)

HOW_TO = """<p>Look at every picture.
The patient's right is on the left. The mask (blue) should hold the brain and nothing
else and lie within the atlas' outline (orange); the fissure should lie on the dotted line; FLAIR should lie as
DWI does; a lesion's outline (magenta) should lie on the lesion. Black is 0 and white is the same in every
patient, as many medians of healthy brain as is written there. Histograms of the brain, in medians: red the raw
scan, white the result, grey the reference patient; white should follow grey. Click on a column's name to sort;
what each says is below the last patient.</p>
<p class="by-hand"><kbd>1</kbd> accept and go on, <kbd>2</kbd> reject, <kbd>3</kbd> unsure (then a remark,
<kbd>Enter</kbd> goes on), <kbd>0</kbd> withdraw, <kbd>j</kbd> next, <kbd>k</kbd> previous, <kbd>r</kbd> remark.
This browser keeps your verdicts until you download cohort.csv: put it in place of the cohort.csv in the folder
above this page's. Rejected patients are excluded from training and evaluation, and every table counts them.</p>"""
