"""The page of quality control: order, escaping, what is embedded; and in a browser, where there is one, its script."""

import base64
import csv
import html
import io
import json
import re
import shutil
import subprocess

import pytest

from tss.data.cohort import Patient, as_table
from tss.data.prepared import hash_of_picture, qc_picture
from tss.preprocessing import qc_page, quality_control

PICTURE = base64.b64decode(  # one pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
)
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
NASTY = 'b0 is "cut, off"\nüber </script><script>document.title = "broken"</script>'


def record(name, reason="", flags=(), **measures):
    return {
        "patient": name,
        "status": "failed" if reason else "ok",
        "reason": reason,
        "flags": list(flags),
        "measures": measures,
    }


RECORDS = [
    record("good", brain_ml=1400.4, dwi_contrast=1.52),
    record("odd", flags=["a < b"], brain_ml=2100.0),
    record("bad", reason=NASTY),
    None,
    record("fine", brain_ml=1300.0),
]


@pytest.fixture
def table(tmp_path):
    """A table of five patients and the pictures of three; one has no record yet."""
    rows = [
        {
            "patient": name,
            "dwi": f"{name}.nii",
            "b0": "b.nii",
            "flair": "c.nii",
            "onset_to_mri_min": "",
            "stroke_side": "",
            "site": 'A, "North"\nZürich',
            "reason": NASTY if name == "bad" else "",
        }
        for name in ("good", "odd", "bad", "late", "fine")
    ]
    rows[4] |= {"verdict": "unsure", "verdict_remark": "ghost?"}
    (tmp_path / "qc").mkdir()
    for name in ("good", "odd", "fine"):
        qc_picture(tmp_path, name).write_bytes(PICTURE)
    return as_table([Patient(row, tmp_path) for row in rows], tmp_path)


def test_failed_patients_come_first_and_everything_is_escaped(table, tmp_path):
    page = qc_page.index_page(table, RECORDS, tmp_path)
    assert re.findall(r'<article class="(\w+)" .*?<span class="name" data-value="(\w+)">', page) == [
        ("failed", "bad"),
        ("flagged", "odd"),
        ("ok", "good"),
        ("ok", "fine"),
    ]
    assert "1 failed, 1 flagged, 2 ok" in page and "1 of 5 patients are not preprocessed yet" in page
    assert html.escape(NASTY) in page and "a &lt; b" in page
    assert page.count("</script>") == page.count("<script") == 2 and NASTY not in page
    assert '<span class="beyond" data-value="2100.0" data-name="brain ml">2100</span>' in page
    assert '<span class="" data-value="1.52" data-name="dwi contrast">1.52</span>' in page  # no limits, no colour


def test_every_column_says_what_it_is_and_no_value_stands_alone(table, tmp_path):
    page = qc_page.index_page(table, RECORDS, tmp_path)
    meanings = dict(re.findall(r"<li><b>([^<]*)</b>: ([^<]*)</li>", page))
    assert meanings["brain ml"].startswith(
        "usually 900 to 2000; beyond: brain mask of \N{HORIZONTAL ELLIPSIS} ml: part of"
    )
    assert meanings["dwi contrast"] == "the lesion over its mirror image, after preprocessing"
    every = qc_page._meanings([*quality_control.LIMITS, "dwi_contrast_raw", "t2w_void_left_ml"])
    assert "{" not in every and "no limits" not in every
    # Where there is no room for columns, each value has its name, on paper too.
    assert "content: attr(data-name)" in page and "@page { size: A4" in page and "width=device-width" in page


@pytest.mark.skipif(not BROWSER, reason="needs Chromium")
@pytest.mark.parametrize("width", [400, 800])
def test_in_a_browser_no_label_is_printed_over_another(table, tmp_path, width):
    records = [record and record | {"measures": dict.fromkeys(quality_control.LIMITS, 1234.5)} for record in RECORDS]
    boxes = """<script>addEventListener("load", () => {
      const spans = [...document.querySelectorAll("article .line span")].filter(one => one.textContent);
      const boxes = spans.map(one => {  // a text may be wider than the box that it is in
        const text = document.createRange(), box = one.getBoundingClientRect();
        text.selectNodeContents(one);
        return {left: box.left, right: Math.max(box.right, text.getBoundingClientRect().right), top: box.top,
          bottom: box.bottom}; });
      const over = boxes.filter((a, i) => boxes.some((b, j) => i < j && a.left < b.right - 1 && b.left < a.right - 1 &&
        a.top < b.bottom - 1 && b.top < a.bottom - 1));
      document.title = over.length + " of " + boxes.length + " at " + innerWidth;
      const wide = document.documentElement.scrollWidth - innerWidth;
      parent.postMessage(document.title + ", " + wide, "*"); });</script>"""
    (tmp_path / "page.html").write_text(qc_page.index_page(table, records, tmp_path) + boxes, encoding="utf-8")
    (tmp_path / "frame.html").write_text(
        f"<iframe src='page.html' style='border:0;width:{width}px;height:900px'></iframe>"
        "<script>onmessage = said => { document.body.id = said.data }</script>"
    )
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom"]
    done = subprocess.run(
        [BROWSER, *words, f"--user-data-dir={tmp_path / 'browser'}", (tmp_path / "frame.html").as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    over, wide = re.search(r'<body id="(\d+) of \d+ at ' + str(width) + r', (-?\d+)"', done.stdout).groups()
    assert (over, int(wide) <= 0) == ("0", True)


def test_pictures_are_the_files_beside_the_page_and_loaded_when_they_are_scrolled_to(table, tmp_path):
    page = qc_page.index_page(table, RECORDS, tmp_path)
    sources = re.findall(r'<img ([^>]*) alt="(\w+)" src="([^"]+)">', page)
    version = hash_of_picture(tmp_path, "odd")
    assert sources == [
        ('decoding="async" loading="lazy"', name, f"{name}.png?{version}") for name in ("odd", "good", "fine")
    ]
    assert "default-src 'none'; img-src data: 'self' file:; style-src" in page and "base64," not in page
    assert "content-visibility: auto" in page  # a card is laid out when it is scrolled to


def test_on_request_the_page_holds_the_pictures_too_and_no_address(table, tmp_path):
    page = qc_page.index_page(table, RECORDS, tmp_path, inline=True)
    assert page.count(base64.b64encode(PICTURE).decode()) == 3
    content = json.loads(re.search(r'<script type="application/json" id="table">(.*?)</script>', page, re.DOTALL)[1])
    assert [content["columns"], *content["rows"]] == table and content["rows"][2][-3] == NASTY
    ours = re.sub(r"<script type.*?</script>|base64,[^\"]*", "", page)
    assert not re.search(r"https?:|//[a-z]|src=\"(?!data:)", ours) and "img-src data:; style-src" in page
    assert page.count('class="judge"') == 3  # nobody judges a picture that is not there


def test_a_verdict_belongs_to_the_picture_that_was_judged(table, tmp_path):
    def keys():
        return re.findall(r'data-key="([^"]+)"', qc_page.index_page(table, RECORDS, tmp_path))

    before = keys()
    qc_picture(tmp_path, "odd").write_bytes(PICTURE + b"another")
    after = keys()
    assert before[0].startswith("tss verdict odd ") and before[0] != after[0] and before[1:] == after[1:]
    qc_picture(tmp_path, "odd").unlink()
    assert "odd.png is missing" in qc_page.index_page(table, RECORDS, tmp_path)


STEPS = """<script>
const said = {}, order = () => [...main.children].filter(card => !card.hidden).map(nameOf);
function nameOf(card) { return card.querySelector(".name").textContent; }
function press(key) { document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true})); }
function type(text) {
  const field = document.activeElement;
  field.value = text;
  field.dispatchEvent(new Event("input", {bubbles: true}));
}
function work() {
said.first = order();
heads[0].click(); said.patients = order();
heads[3].click(); said.brain = order();
heads[3].click(); said.reversed = order();
select.value = "open"; select.dispatchEvent(new Event("change")); said.open = order();
press("1"); said.then = nameOf(current);
press("2"); type(REMARK_TYPED);
document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", bubbles: true, cancelable: true}));
select.value = "reject"; select.dispatchEvent(new Event("change")); said.rejected = order();
said.progress = progress.textContent;
HTMLAnchorElement.prototype.click = function () { said.file = this.download; };
window.Blob = class extends Blob { constructor(parts, kind) { super(parts, kind); said.csv = parts.join(""); } };
document.getElementById("download").click();
}
if (location.hash) work(); else said.csv = csv();
document.body.textContent = JSON.stringify(said);
</script>"""


@pytest.fixture
def visit(tmp_path):
    """A function that opens a page in Chromium, the same person's each time, and returns what its script has said."""

    def open_page(address):
        told = subprocess.run(
            [
                BROWSER,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--dump-dom",
                f"--user-data-dir={tmp_path / 'profile'}",
                "--virtual-time-budget=2000",
                address,
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
        return json.loads(html.unescape(re.search(r"<body>(.*)</body>", told.stdout, re.DOTALL)[1]))

    return open_page


@pytest.mark.skipif(not BROWSER, reason="needs Chromium")
def test_in_a_browser_sorting_keys_and_download_work_and_a_closed_page_loses_nothing(table, tmp_path, visit):
    remark = 'eyes, "kept"\r\nünd </script> more'.replace("\r", "")
    page = qc_page.index_page(table, RECORDS, tmp_path)
    steps = STEPS.replace("REMARK_TYPED", qc_page._json(remark))
    file = tmp_path / "qc" / "index.html"
    file.write_text(page.replace("</body>", steps + "</body>"), encoding="utf-8")
    said = visit(file.as_uri() + "#work")
    assert said["first"] == ["bad", "odd", "good", "fine"] and said["patients"] == ["bad", "fine", "good", "odd"]
    assert said["brain"] == ["fine", "good", "odd", "bad"] and said["reversed"] == ["odd", "good", "fine", "bad"]
    assert said["open"] == ["odd", "good"] and said["then"] == "good" and said["rejected"] == ["good"]
    assert said["progress"].startswith("3 of 3 judged: 1 accepted, 1 rejected, 1 unsure. 2 not in cohort.csv yet")
    assert said["file"] == "cohort.csv"
    lines = list(csv.reader(io.StringIO(said["csv"], newline="")))
    expected = [list(line) for line in table]
    expected[1][-2:], expected[2][-2:] = ["reject", remark], ["accept", ""]
    assert lines == expected
    assert visit(file.as_uri())["csv"] == said["csv"]  # the browser was closed in between


SEEN = """<script>
addEventListener("load", () => {
  const said = {seen: [...document.images].filter(image => image.naturalWidth).map(image => image.alt)};
  judge(cards.find(card => card.querySelector(".name").textContent === "odd"), location.hash.slice(1));
  said.warnings = [...document.querySelectorAll(".lost")].map(lost => lost.textContent);
  said.verdict = table.rows[1][VERDICT];
  document.body.textContent = JSON.stringify(said);
});
</script>"""


@pytest.mark.skipif(not BROWSER, reason="needs Chromium")
def test_in_a_browser_a_picture_that_is_not_beside_the_page_is_said_and_cannot_be_judged(table, tmp_path, visit):
    page = qc_page.index_page(table, RECORDS, tmp_path).replace("</body>", SEEN + "</body>")
    file = tmp_path / "qc" / "index.html"
    file.write_text(page, encoding="utf-8")
    assert visit(file.as_uri() + "#accept") == {"seen": ["odd", "good", "fine"], "warnings": [], "verdict": "accept"}
    qc_picture(tmp_path, "odd").unlink()
    said = visit(file.as_uri() + "#reject")
    assert said["seen"] == ["good", "fine"] and said["verdict"] == "accept" and len(said["warnings"]) == 1
    assert said["warnings"][0].startswith("The picture odd.png is not beside this page, or damaged. Open the page in")
