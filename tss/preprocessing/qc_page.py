"""The page on which a person looks at every patient and judges: accept, reject or unsure.

In:  the cohort's table, the patients' records, and their pictures in DATA/qc.
Out: qc/index.html, all in one file; from it the person downloads cohort.csv with the columns verdict, verdict_remark.
Paper: 2.1 ("a visual quality check was manually performed for all cases").
See: tests/preprocessing/test_qc_page.py

Nothing is fetched and nothing is sent: pictures, table and script are in the file. A verdict is kept by the browser
the moment it is given, under the patient's name and the hash of the picture that was judged.
"""

import hashlib
import html
import json
from pathlib import Path

from tss.display import html_page
from tss.preprocessing.quality_control import LIMITS

ORDER = ("failed", "flagged", "ok")
KEY_LENGTH = 16  # our choice: hexadecimal digits of a picture's hash; enough that no two of a study are alike


def index_page(table: list[list[str]], records: list[dict | None], folder: Path) -> str:
    """Return qc/index.html: failed patients first, then flagged ones, then the rest, each with its picture.

    Args:
        table: cohort.csv's header and lines, as it is written.
        records: for each line patient, status, reason, flags (list) and figures (dict); None = not preprocessed yet.
        folder: where the pictures lie, <patient>.png; whoever has none there has none on the page.
    """
    found = [(_mark(record), line, record) for line, record in enumerate(records) if record]
    found.sort(key=lambda entry: ORDER.index(entry[0]))
    figures = list(dict.fromkeys(name for _, _, record in found for name in record["figures"]))
    columns = ["patient", "status", "verdict", *figures]
    heads = "".join(
        f'<button data-column="{number}">{html.escape(name.replace("_", " "))}</button>'
        for number, name in enumerate(columns)
    )
    cards = "\n".join(_card(mark, line, record, figures, folder) for mark, line, record in found)
    marks = [mark for mark, _, _ in found]
    counts = ", ".join(f"{marks.count(mark)} {mark}" for mark in ORDER)
    missing = len(records) - len(found)
    note = (
        f"<p class='warning'>{missing} of {len(records)} patients are not preprocessed yet. Load this page again "
        "when the run has ended, and download only then.</p>"
    ) * bool(missing)
    rows = _json({"columns": table[0], "rows": table[1:]})
    style = f":root {{ --figures: {max(len(figures), 1)} }}{STYLE}"
    return html_page.frame(
        f"Quality control: {len(found)} patients",
        style,
        f"""<h1>Quality control: {counts}</h1>
{HOW_TO}{note}
<nav><div class="bar"><label>show <select id="filter">{OPTIONS}</select></label>
<span id="progress"></span><button id="download">Download cohort.csv</button>
<button id="forget">Forget what is only here</button></div>
<div class="line">{heads}</div></nav>
<main>
{cards}
</main>
<script type="application/json" id="table">{rows}</script>
<script>{SCRIPT}</script>""",
        script=True,
    )


def _mark(record: dict) -> str:
    return "failed" if record["status"] != "ok" else "flagged" if record["flags"] else "ok"


def _card(mark: str, line: int, record: dict, figures: list[str], folder: Path) -> str:
    """Return one patient: a line of figures, what is wrong, the picture, and where the verdict is given."""
    name = html.escape(record["patient"])
    cells = [
        _cell(name, name, "name"),
        _cell(ORDER.index(mark), mark, mark),
        '<span class="verdict" data-value=""></span>',
        *(_figure(key, record["figures"].get(key)) for key in figures),
    ]
    remarks = "".join(
        f"<li>{html.escape(text)}</li>" for text in ([record["reason"]] if record["reason"] else []) + record["flags"]
    )
    judging, key = "", ""
    if mark != "failed":
        picture = folder / f"{record['patient']}.png"
        content = picture.read_bytes() if picture.is_file() else b""
        key = f"tss verdict {name} {hashlib.sha256(content).hexdigest()[:KEY_LENGTH]}"
        image = (
            html_page.picture(content, record["patient"], 'loading="lazy" decoding="async"')
            if content
            else (f"<p class='warning'>{name}.png is missing. Run run_preprocess.py again with --overwrite.</p>")
        )
        judging = image + JUDGING
    return (
        f'<article class="{mark}" data-mark="{mark}" data-line="{line}" data-key="{key}">'
        f'<div class="line">{"".join(cells)}</div><ul>{remarks}</ul>{judging}</article>'
    )


def _cell(value: object, text: str, kind: str = "") -> str:
    return f'<span class="{kind}" data-value="{value}">{text}</span>'


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return _cell("", "")
    low, high, _ = LIMITS.get(name, (value, value, ""))
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return _cell(value, text, "" if low <= value <= high else "beyond")


def _json(content: object) -> str:
    """Return JSON that may stand within <script>: no "<", so nothing in it can end the element."""
    return json.dumps(content).replace("<", "\\u003c")


OPTIONS = "".join(
    f'<option value="{value}">{text}</option>'
    for value, text in (
        ("all", "all"),
        ("failed", "failed"),
        ("flagged", "flagged"),
        ("ok", "ok"),
        ("open", "not yet judged"),
        ("accept", "accepted"),
        ("reject", "rejected"),
        ("unsure", "unsure"),
    )
)

JUDGING = (
    '<div class="judge"><button data-verdict="accept">1 accept</button><button data-verdict="reject">2 reject'
    '</button><button data-verdict="unsure">3 unsure</button><textarea rows="1" placeholder="remark"></textarea>'
    "</div>"
)

HOW_TO = """<p>Look at every picture. The patient's right is on the left. The mask (blue) should hold the brain and
nothing else and lie within the atlas' outline (orange); the fissure should lie on the dotted line; FLAIR should lie
as DWI does; a lesion's outline (magenta) should lie on the lesion. Black is 0 and white is the same in every patient,
so many medians of healthy brain as is written there. Histograms of the brain, in medians: red the raw scan, white the
result, grey the reference patient; white should follow grey. Click on a column's name to sort.</p>
<p><kbd>1</kbd> accept and go on, <kbd>2</kbd> reject, <kbd>3</kbd> unsure (then a remark, <kbd>Enter</kbd> goes on),
<kbd>0</kbd> take back, <kbd>j</kbd> next, <kbd>k</kbd> previous, <kbd>r</kbd> remark. This browser keeps your verdicts
until you download cohort.csv: put it in place of the cohort.csv in the folder above this page's. Rejected patients
take no part in training and evaluation, and every table counts them.</p>"""

STYLE = """
body { font: 14px/1.35 sans-serif; margin: 0 1em } h1 { font-size: 1.3em } p { max-width: 75em }
nav { position: sticky; top: 0; background: white; border-bottom: 2px solid #888; z-index: 1; padding: 4px 0 }
.bar { display: flex; gap: 1.5em; align-items: center; padding: 0 8px 4px } #progress { flex: 1 }
.line { display: grid; gap: 0 6px; grid-template-columns: 9em 5em 5em repeat(var(--figures), minmax(0, 1fr)) }
nav .line { padding-left: 16px; align-items: end }
nav .line button { border: 0; background: none; padding: 0; text-align: left; font: bold 10px/1.1 sans-serif;
 cursor: pointer; overflow-wrap: anywhere }
nav .line button[aria-sort=ascending]::after { content: " \\25B2" }
nav .line button[aria-sort=descending]::after { content: " \\25BC" }
article { border-left: 8px solid #ddd; border-bottom: 1px solid #bbb; padding: 6px 0 6px 8px; scroll-margin-top: 72px }
article.current { background: #eef4ff } .name { font-weight: bold; overflow-wrap: anywhere }
article[data-verdict=accept] { border-left-color: #1a9850 } article[data-verdict=unsure] { border-left-color: #e8a200 }
article[data-verdict=reject] { border-left-color: #c00000 }
.failed { color: #c00000 } article.failed .line, article.flagged .line, article.flagged { color: black }
.flagged, .beyond, .warning { color: #b45000; font-weight: bold } article.flagged { font-weight: normal }
ul { margin: 2px 0 4px; padding-left: 1.3em; color: #b45000 } .failed ul { color: #c00000 }
img { display: block; width: 100%; height: calc(100vh - 210px); min-height: 34vw; max-height: 46vw; object-fit: contain;
 object-position: left top }
.judge { display: flex; gap: 6px; margin-top: 4px } .judge button { padding: 4px 12px }
.judge button[aria-pressed=true] { background: #333; color: white } textarea { flex: 1; max-width: 60em; font: inherit }
kbd { border: 1px solid #999; border-radius: 3px; padding: 0 4px }
"""

SCRIPT = """
"use strict";
const table = JSON.parse(document.getElementById("table").textContent);
const VERDICT = column("verdict"), REMARK = column("verdict_remark");
const given = table.rows.map(row => [row[VERDICT], row[REMARK]]);  // as in cohort.csv when this page was made
const main = document.querySelector("main"), heads = [...document.querySelectorAll("nav .line button")];
const cards = [...main.children];
const progress = document.getElementById("progress"), select = document.getElementById("filter");
let current = null, sorted = -1, ascending = true, trouble = "";

function column(name) {
  if (!table.columns.includes(name)) { table.columns.push(name); table.rows.forEach(row => row.push("")); }
  return table.columns.indexOf(name);
}
function rowOf(card) { return table.rows[card.dataset.line]; }
function isChanged(card) {
  const row = rowOf(card), [verdict, remark] = given[card.dataset.line];
  return row[VERDICT] !== verdict || row[REMARK] !== remark;
}

// What the browser keeps. Some refuse to for a file on the disk: then it is said, not lost in silence.
function recall(card) {
  if (!card.dataset.key) return;
  try {
    const kept = JSON.parse(localStorage.getItem(card.dataset.key));
    if (kept) { [rowOf(card)[VERDICT], rowOf(card)[REMARK]] = kept; keep(card); }
  } catch (error) { trouble = "This browser keeps nothing: download before you close the page!"; }
}
function keep(card) {
  try {
    if (isChanged(card)) localStorage.setItem(card.dataset.key,
                                              JSON.stringify([rowOf(card)[VERDICT], rowOf(card)[REMARK]]));
    else localStorage.removeItem(card.dataset.key);
  } catch (error) { trouble = "This browser keeps nothing: download before you close the page!"; }
}

function show(card) {
  const row = rowOf(card), cell = card.querySelector(".verdict");
  card.dataset.verdict = cell.textContent = cell.dataset.value = row[VERDICT];
  for (const button of card.querySelectorAll(".judge button"))
    button.setAttribute("aria-pressed", button.dataset.verdict === row[VERDICT]);
  const remark = card.querySelector("textarea");
  if (remark && remark.value !== row[REMARK]) remark.value = row[REMARK];
}
function report() {
  const open = cards.filter(card => card.dataset.key);
  const count = word => open.filter(card => rowOf(card)[VERDICT] === word).length;
  const [accept, reject, unsure] = ["accept", "reject", "unsure"].map(count);
  const here = open.filter(isChanged).length;
  progress.textContent = `${accept + reject + unsure} of ${open.length} judged: ${accept} accepted, `
    + `${reject} rejected, ${unsure} unsure. ` + (here ? `${here} not in cohort.csv yet. ` : "") + trouble;
  document.getElementById("forget").disabled = !here;
}

function choose(card) {
  if (current) current.classList.remove("current");
  current = card;
  card.classList.add("current");
}
function go(step) {
  const shown = [...main.children].filter(card => !card.hidden), place = shown.indexOf(current);
  const next = shown[place < 0 ? 0 : place + step];
  if (next) { choose(next); next.scrollIntoView({block: "start"}); }
}
function start() {
  if (current) current.classList.remove("current");
  current = null;
  go(0);
}
function judge(card, verdict) {
  if (!card) return;
  if (!card.dataset.key) { go(1); return; }  // failed: nothing to judge
  rowOf(card)[VERDICT] = verdict;
  keep(card); show(card); report();
  if (verdict === "accept") go(1);
  else if (verdict) card.querySelector("textarea").focus();
}

function sortBy(number) {
  ascending = sorted === number ? !ascending : true;
  sorted = number;
  const value = card => card.firstChild.children[number].dataset.value;
  const compare = (a, b) => a.localeCompare(b, "en", {numeric: true});
  const isNumber = cards.every(card => !Number.isNaN(Number(value(card))));
  cards.sort((one, other) => {
    const a = value(one), b = value(other);
    if (a === "" || b === "") return (a === "") - (b === "");  // whoever has none comes last
    return (isNumber ? a - b : compare(a, b)) * (ascending ? 1 : -1);
  });
  main.append(...cards);
  heads.forEach(head => head.removeAttribute("aria-sort"));
  heads[number].setAttribute("aria-sort", ascending ? "ascending" : "descending");
  start();
}
function filter() {
  for (const card of cards) {
    const verdict = rowOf(card)[VERDICT], is = [card.dataset.mark, verdict];
    if (card.dataset.key && !verdict) is.push("open");
    card.hidden = select.value !== "all" && !is.includes(select.value);
  }
  start();
}

function csv() {  // as Python's csv module writes it
  const cell = text => /[",\\r\\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  return [table.columns, ...table.rows].map(row => row.map(cell).join(",") + "\\n").join("");
}
function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], {type: "text/csv"}));
  link.download = "cohort.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
function forget() {
  if (!confirm("Go back to the verdicts in cohort.csv?")) return;
  for (const card of cards.filter(isChanged)) {
    [rowOf(card)[VERDICT], rowOf(card)[REMARK]] = given[card.dataset.line];
    keep(card); show(card);
  }
  report();
}

main.addEventListener("click", event => {
  const card = event.target.closest("article"), button = event.target.closest(".judge button");
  if (!card) return;
  choose(card);
  if (button) judge(card, button.dataset.verdict);
});
main.addEventListener("input", event => {
  const card = event.target.closest("article");
  rowOf(card)[REMARK] = event.target.value;
  keep(card); report();
});
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.tagName === "TEXTAREA") {
    if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); event.target.blur(); go(1); }
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const act = {j: () => go(1), k: () => go(-1), 1: () => judge(current, "accept"), 2: () => judge(current, "reject"),
               3: () => judge(current, "unsure"), 0: () => judge(current, ""),
               r: () => current && current.dataset.key && current.querySelector("textarea").focus()}[event.key];
  if (act) { event.preventDefault(); act(); }
});
heads.forEach((head, number) => head.addEventListener("click", () => sortBy(number)));
select.addEventListener("change", () => { filter(); select.blur(); });
document.getElementById("download").addEventListener("click", download);
document.getElementById("forget").addEventListener("click", forget);
for (const card of cards) { recall(card); show(card); }
report();
if (cards.length) choose(cards[0]);
"""
