"""A web page that is one file: its frame, pictures and tables as text; nothing is fetched and nothing is sent.

In:  style and body as HTML; PNG files as bytes, or as names of files beside the page; rows of cells as plain text.
Out: HTML, as strings.
Paper: none (our choice: what can be mailed, and opens without a network, years from now).
See: tests/display/test_html_page.py
"""

import base64
import re
from collections.abc import Sequence
from html import escape
from urllib.parse import quote


def frame(title: str, style: str, body: str, script: bool = False, narrow: bool = False, beside: bool = False) -> str:
    """Return the whole page. The browser is told to fetch nothing, and to run no script unless `script`.

    narrow: the style is made for a telephone too, so that it need not show the page as on a wide screen.
    beside: pictures may be files on the disk or the server that the page is on; nothing else is fetched then either.
    """
    pictures = "data:" + " 'self' file:" * beside
    allowed = f"default-src 'none'; img-src {pictures}; style-src 'unsafe-inline'"
    allowed += "; script-src 'unsafe-inline'" * script
    size = '<meta name="viewport" content="width=device-width, initial-scale=1">' * narrow
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">{size}<title>{escape(title)}</title>
<meta http-equiv="Content-Security-Policy" content="{allowed}">
<style>{style}</style></head><body>
{body}
</body></html>
"""


def picture(png: bytes, alt: str, more: str = "") -> str:
    """Return a picture with its bytes in it. more: further attributes, as HTML."""
    return f'<img {more} alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def picture_beside(name: str, version: str, alt: str, more: str = "") -> str:
    """Return a picture that is loaded when it is scrolled to, from the file of that name in the page's own folder.

    version: what changes with the file's content, so that no browser shows an old one.
    """
    return f'<img {more} loading="lazy" alt="{escape(alt)}" src="{quote(name)}?{quote(version)}">'


def table(rows: Sequence[Sequence[str]], caption: str, kind: str = "") -> str:
    """Return rows of plain text, the header first, as a table that can be scrolled sideways where it is too wide.

    A row of a single cell is a heading that spans the table. caption: HTML. kind: a class for the style.
    """
    head, *lines = rows
    cells = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "\n".join(_line(line, len(head)) for line in lines)
    return (
        f'<figure class="table {kind}"><figcaption>{caption}</figcaption><div class="wide"><table>\n'
        f"<thead><tr>{cells}</tr></thead>\n<tbody>{body}</tbody></table></div></figure>"
    )


def _line(line: Sequence[str], columns: int) -> str:
    """Return a row; an interval in brackets is never broken over two lines."""
    if len(line) == 1:
        return f'<tr><th class="group" colspan="{columns}" scope="rowgroup"><span>{escape(line[0])}</span></th></tr>'
    first, *others = (re.sub(r"\[[^\]]*\]", r'<span class="whole">\g<0></span>', escape(cell)) for cell in line)
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in others)}</tr>'
