"""Pages in one file: what is plain text stays plain text, and nothing is fetched."""

import base64
import re

from tss.display import html_page

NASTY = 'a < b & "c" </td><script>alert(1)</script>'


def test_the_frame_forbids_the_browser_to_fetch_and_to_run_anything_unless_asked():
    whole = html_page.frame("a < b", "p { color: red }", "<p>text</p>", narrow=True)
    assert "<title>a &lt; b</title>" in whole and "default-src 'none'; img-src data:" in whole
    assert "script-src" not in whole and "width=device-width" in whole
    other = html_page.frame("t", "", "", script=True)
    assert "script-src 'unsafe-inline'" in other and "viewport" not in other


def test_a_picture_is_in_the_page_byte_for_byte():
    shown = html_page.picture(b"\x89PNG", 'of "p1"', 'loading="lazy"')
    assert base64.b64decode(re.search(r"base64,([^\"]+)", shown)[1]) == b"\x89PNG"
    assert 'alt="of &quot;p1&quot;"' in shown and 'loading="lazy"' in shown


def test_a_picture_beside_the_page_is_allowed_where_it_is_said_and_loaded_late():
    shown = html_page.picture_beside("p 1.png", "3f", 'of "p1"')
    assert re.fullmatch(r'<img +loading="lazy" alt="of &quot;p1&quot;" src="p%201.png\?3f">', shown)
    assert "img-src data: 'self' file:;" in html_page.frame("t", "", shown, beside=True)
    assert "img-src data:;" in html_page.frame("t", "", shown)


def test_a_table_has_its_cells_as_text_groups_span_it_and_intervals_stay_whole():
    made = html_page.table(
        [["", NASTY, "AUC"], ["Group"], ["<b>"], [NASTY, "-", "0.9 [0.8-1.0]"]], "<b>said</b>", "kind"
    )
    assert (
        "<script" not in made
        and made.count("&lt;script&gt;") == 2
        and made.count("<tr>") == 4
        and "<span>&lt;b&gt;</span>" in made
    )
    assert '<th class="group" colspan="3" scope="rowgroup"><span>Group</span></th>' in made
    assert '<td>0.9 <span class="whole">[0.8-1.0]</span></td>' in made
    assert "<figcaption><b>said</b></figcaption>" in made and 'class="table kind"' in made
