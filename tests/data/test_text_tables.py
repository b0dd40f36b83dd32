"""Tables as people save them, read cell by cell, or refused in words."""

import pytest

from tss.data.text_tables import read_text_table, same_name
from tss.errors import InputError

EXPECTED = ["a", "b", "c"], [(2, ["1", "2", "3"]), (3, ["4", "5", "6"])]


def read(folder, text, encoding="utf-8"):
    path = folder / "table.csv"
    path.write_bytes(text.encode(encoding))
    return read_text_table(path)


@pytest.mark.parametrize(
    "text",
    [
        "a,b,c\n1,2,3\n4,5,6\n",
        "a;b;c\r\n1;2;3\r\n4;5;6",
        "a\tb\tc\n 1\t2 \t3\n4\t5\t6\n\t\t\n  \t\n",
        "a,b,c,,\n1,2,3,,\n4,5,6,,\n,,,,\n",
        "a,b,c\n1,2,3,\n4,5,6,,\n",  # separators at the end of the lines alone
        '"a","b","c"\n"1","2","3"\n4,5,6\n',
        ",a,b,c\n0,1,2,3\n1,4,5,6\n",  # pandas' index, without a name
        "a,b,c\r1,2,3\r4,5,6\r",  # an old Macintosh
    ],
)
def test_separators_blanks_and_empty_columns(tmp_path, text):
    table = read(tmp_path, text)
    assert (table.header, table.lines, table.problems) == (*EXPECTED, [])


def test_excels_own_first_line_and_its_unicode_text(tmp_path):
    table = read(tmp_path, "sep=;\na;b;c\n1;2;3\n4;5;6\n")
    assert table.header == EXPECTED[0] and [cells for _, cells in table.lines] == [cells for _, cells in EXPECTED[1]]
    assert read(tmp_path, "a\tb\tc\n1\t2\t3\n4\t5\t6\n", "utf-16")[:2] == EXPECTED
    with pytest.raises(InputError, match="perhaps a spreadsheet's own. Save the table as CSV"):
        read(tmp_path, "PK\x03\x04\0\0")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('a,b,c\n1,2,"3\n4,5,6\n', 2),  # to the end of the file
        ('a,b,c\n1,2,3\n4,5,"6\n7,8,9"\n1,1,1\n', 3),  # to a quote that ends a later line
        ('a,b,c\n"1,2,3\n4",5,6\n', 2),  # ... and the number of cells is right
        ('a,b,c\n1,2,"3\n4,5,"6\n', 2),
    ],
)
def test_a_stray_quote_does_not_swallow_lines(tmp_path, text, line):
    with pytest.raises(InputError, match=f"table.csv line {line}: .*is not closed, or stands where none belongs"):
        read(tmp_path, text)


def test_cells_of_several_lines_and_inches_stay(tmp_path):
    table = read(tmp_path, 'a,b,c\n1,"two\nlines, a comma",5" coil\n4,5,6\n')
    assert table.lines == [(2, ["1", "two\nlines, a comma", '5" coil']), (4, ["4", "5", "6"])]


def test_lines_that_do_not_fit_are_named(tmp_path):
    table = read(tmp_path, "a,b,c\n1,2\n1,2,3,x\n4,5,6\n")
    assert table.problems == ["line 2: 2 cells where the header has 3", "line 3: 4 cells where the header has 3"]


def test_names_of_columns():
    assert same_name(" Onset to MRI (min)") == "onset_to_mri_min" and same_name("Stroke-Side") == "stroke_side"
