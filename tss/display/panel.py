"""What all pictures share: a panel and its legend, the colours, and how a picture is saved.

In:  a title, sizes in inches, curves drawn by the other modules of this folder.
Out: matplotlib's Figure and Axes; PNG files, written whole.
Paper: none.
See: tests/display/test_panel.py
"""

import os
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure  # not pyplot: a Figure of its own draws to a file with Agg and needs no screen

from tss.data.files import write_whole

# Colours that people who confuse red and green can tell apart (Okabe and Ito 2008), in this order by kind: random,
# ImageNet, medical, phase before, attention, older methods. Dashes too, for prints in black and white.
KIND_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#000000", "#777777", "#CC79A7", "#8C510A")
KIND_DASHES = ("-", (0, (1, 1)), (0, (4, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (2, 1)))
MARKERS = "s^vDP*"
Style = dict[str, Any]  # keywords of matplotlib
PANEL_DPI = 200  # our choice: sharp on paper at half a page's width, small enough to be mailed


def open_panel(title: str, entries: int = 0, width: float = 4.6, height: float = 4.6) -> tuple[Figure, Axes]:
    """Open a picture of one panel with room for so many lines of legend beneath; sizes in inches."""
    figure = Figure(figsize=(width, height + 0.19 * entries), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def draw_diagonal(axes: Axes, label: str) -> None:
    """Draw the line from (0, 0) to (1, 1) and make the panel the unit square."""
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")


def save_with_legend(figure: Figure, path: str | os.PathLike) -> None:
    """Save a panel with its legend beneath, where it hides no curve."""
    if figure.axes[0].get_legend_handles_labels()[1]:
        figure.legend(loc="outside lower left", fontsize=8, frameon=False, handlelength=3)
    save(figure, path, PANEL_DPI)


def save(figure: Figure, path: str | os.PathLike, dpi: int = 150) -> None:
    # No date and no version in the file: the same numbers give the same bytes.
    write_whole(path, lambda beside: figure.savefig(beside, dpi=dpi, metadata={"Software": None}))
