"""Rows of cells as text in columns, for the screen.

In:  rows of strings, the header first.
Out: one string, a line a row.
Paper: none.
See: tests/data/test_cohort.py
"""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return the rows as lines, each column as wide as its widest cell and two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in rows)
