"""Tables as people save them: separated by commas, semicolons or tabs, with what spreadsheets do to them.

In:  a text file: a header line, one line a row.
Out: TextTable(header, lines), cells without blanks around them; what is doubtful is refused, never guessed.
Paper: none (our choice: Excel writes semicolons and decimal commas in half of Europe).
See: tests/data/test_text_tables.py
"""

import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

from tss.data.files import read_bytes
from tss.errors import InputError

DELIMITERS = (",", ";", "\t")
SAVE = "Save the table as CSV (UTF-8)."


class TextTable(NamedTuple):
    """The cells of a table, as text; each line with its number in the file."""

    header: list[str]
    lines: list[tuple[int, list[str]]]
    problems: list[str]  # of lines that do not fit the header; they are not among `lines`
    decimal_comma: bool  # is 3,5 a number here? It is where commas do not separate the cells


def read_text_table(path: Path) -> TextTable:
    """Read a table. Lines of blanks and separators are none; neither are columns without a name.

    Raises InputError: unreadable, or a quote that is not closed.
    """
    text = _read_text(path)
    first, _, rest = text.partition("\n")
    if said := re.fullmatch(r'"?sep=(.)"?', first.strip("\r ")):  # Excel's own first line
        delimiter, text = said[1], "\n" + rest
    else:
        named = next((line for line in text.splitlines() if line.strip()), "")
        delimiter = max(DELIMITERS, key=named.count)
    records = _records(path, text, delimiter)
    if not records:
        return TextTable([], [], [], False)
    (_, header), *lines = records
    named_columns = [k for k, name in enumerate(header) if name]  # pandas and R leave the row's number without a name
    width = max(named_columns, default=-1) + 1
    kept, problems = [], []
    for number, cells in lines:
        if any(cells[width:]) or len(cells) < width:
            filled = max((k for k, cell in enumerate(cells, 1) if cell), default=0)
            count = len(cells) if len(cells) < width else filled
            problems.append(f"line {number}: {count} cells where the header has {width}")
        else:
            kept.append((number, [cells[k] for k in named_columns]))
    return TextTable([header[k] for k in named_columns], kept, problems, delimiter != ",")


def same_name(name: str) -> str:
    """Return a column's name without capitals, blanks and brackets: "Onset to MRI (min)" is onset_to_mri_min."""
    return re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_")


def _read_text(path: Path) -> str:
    content = read_bytes(path, "Give the path of your table.")
    # Excel writes a byte-order mark, and "Unicode text" in UTF-16.
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file in UTF-8. {SAVE}") from error
    if "\0" in text or text.startswith("PK\x03\x04"):
        raise InputError(f"{path} is not a text file, but perhaps a spreadsheet's own. {SAVE}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _records(path: Path, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """Return (number of the first line, cells) of each record that has any text.

    A quote that someone forgot swallows lines until the next one: it is refused, not believed.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    records: list[tuple[int, list[str]]] = []
    start = 1
    try:
        for cells in reader:
            inner = [line for cell in cells for line in cell.split("\n")] if reader.line_num > start else []
            whole = len(records[0][1]) - 1 if records else 1
            if any(line.count(delimiter) >= whole for line in inner):
                raise csv.Error("a cell holds whole lines of the table")
            if any(cell.strip() for cell in cells):
                records.append((start, [cell.strip() for cell in cells]))
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f'{path} line {start}: {error}: a quote (") is not closed, or stands where none belongs. '
            f"Remove it, or double it within a cell. {SAVE}"
        ) from error
    return records
