"""How well classes are told apart: ROC curves with readers on them, and bars of AUC.

In:  false and true positive rates, AUCs with their intervals, as plain numbers.
Out: PNG files, written whole.
Paper: Figs 6 and 7 (bars of AUC), Fig. 8 (ROC).
See: tests/display/test_roc_plots.py
"""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tss.display import panel
from tss.display.panel import KIND_COLOURS, KIND_DASHES, MARKERS, Style

CUTOFF_COLOUR, CUTOFF_MARKERS = "#F0E442", "oX<>"


def draw_roc(
    path: str | os.PathLike,
    curve: tuple[np.ndarray, np.ndarray],
    auc: float,
    interval: tuple[float, float],
    point: tuple[float, float],
    threshold: float,
    title: str,
    cases: str,
) -> None:
    """Draw one ROC curve with the operating point that was fixed before the test.

    curve: false and true positive rates, rising from (0, 0) to (1, 1).
    auc, interval: the area and its 95 % confidence interval.
    point: false and true positive rate at `threshold`, which was chosen on validation.
    title: the positive class, for instance "TSS < 4.5 h".
    cases: how many, for instance "82 patients, 42 positive".
    """
    figure, axes = panel.open_panel(f"{title}\n{cases}", width=4.2, height=4.4)
    panel.draw_diagonal(axes, "chance")
    area = f"AUC {auc:.3f} [{interval[0]:.3f}-{interval[1]:.3f}]"
    axes.plot(*curve, color="tab:blue", linewidth=1.8, clip_on=False, zorder=3, label=area)
    at = f"validation threshold {threshold:.3f}:\nsensitivity {point[1]:.2f}, specificity {1 - point[0]:.2f}"
    axes.plot(*point, "o", color="tab:red", markersize=7, clip_on=False, zorder=4, label=at)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity")
    axes.legend(loc="lower right", fontsize=8, frameon=True, edgecolor="none", framealpha=0.9)
    panel.save(figure, path, dpi=300)


class Curve(NamedTuple):
    """An ROC curve: its name in the legend, false and true positive rates, and which of KIND_COLOURS it has."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    kind: int


def draw_rocs(
    path: str | os.PathLike,
    curves: Sequence[Curve],
    readers: Mapping[str, tuple[float, float]],
    cutoffs: Mapping[str, tuple[float, float]],
    title: str,
) -> None:
    """Draw the ROC curves of a task, readers and published cut-offs as points (Fig. 8), the legend beneath.

    readers, cutoffs: name -> false and true positive rate; a published cut-off's name is the FLAIR ratio. Nothing is
        written between the curves, where it would touch one.
    """
    places = [*dict.fromkeys(cutoffs.values())]  # several may fall on one point
    figure, axes = panel.open_panel(title, len(curves) + len(readers) + len(places) + 1, height=4.9)
    panel.draw_diagonal(axes, "chance: AUC 0.5")
    for number, curve in enumerate(curves):
        nth = sum(other.kind == curve.kind for other in curves[:number])
        style: Style = {"color": KIND_COLOURS[curve.kind], "linestyle": KIND_DASHES[nth % len(KIND_DASHES)]}
        axes.plot(curve.x, curve.y, linewidth=1.8, clip_on=False, label=curve.label, **style)
    for (name, point), marker in zip(readers.items(), MARKERS * len(readers), strict=False):
        style = {"color": "black", "markerfacecolor": "white", "linestyle": "none"}
        axes.plot(*point, marker, markersize=7, clip_on=False, zorder=5, label=name, **style)
    for point, marker in zip(places, CUTOFF_MARKERS * len(places), strict=False):
        names = ", ".join(name for name in cutoffs if cutoffs[name] == point)
        label = f"FLAIR ratio <= {names}: sensitivity {point[1]:.2f}, specificity {1 - point[0]:.2f}"
        style = {"color": CUTOFF_COLOUR, "markeredgecolor": "black", "linestyle": "none"}
        axes.plot(*point, marker, markersize=7, clip_on=False, zorder=6, label=label, **style)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity")
    axes.grid(color="0.92")
    panel.save_with_legend(figure, path)


class Bar(NamedTuple):
    """An AUC with its interval; or, where there is none, a gap with a word in it."""

    label: str
    auc: float | None
    interval: tuple[float, float] | None
    kind: int
    word: str = ""


def draw_bars(
    path: str | os.PathLike,
    groups: Mapping[str, Sequence[Bar]],
    lines: Mapping[str, tuple[float, tuple[float, float]]],
    title: str,
) -> None:
    """Draw bars of AUC from chance, 0.5, with their intervals, in groups (Figs 6 and 7).

    lines: name -> an AUC with its interval, drawn as a horizontal line in a band, such as the best on average.
    """
    count = sum(map(len, groups.values())) + len(groups) - 1
    figure, axes = panel.open_panel(title, len(lines), width=max(4.6, 0.55 * count + 1.2), height=4.2)
    first, lowest = 0, 0.4
    ticks: list[tuple[int, str]] = []
    for name, bars in groups.items():
        middle, above = first + (len(bars) - 1) / 2, axes.get_xaxis_transform()
        axes.text(middle, 1.0, name, ha="center", va="bottom", fontsize=10, weight="bold", transform=above)
        for place, bar in enumerate(bars, first):
            ticks.append((place, bar.label))
            if bar.auc is None or bar.interval is None:
                axes.text(place, 0.5, f" {bar.word}", rotation=90, ha="center", va="bottom", color="0.35", fontsize=9)
                continue
            low, high = bar.interval
            lowest = min(lowest, low)
            axes.bar(place, bar.auc - 0.5, bottom=0.5, width=0.8, color=KIND_COLOURS[bar.kind], alpha=0.85)
            axes.errorbar(place, bar.auc, [[bar.auc - low], [high - bar.auc]], color="black", capsize=4, linewidth=1.2)
            axes.text(place, high + 0.012, f"{bar.auc:.2f}", ha="center", va="bottom", fontsize=8)
        first += len(bars) + 1
    axes.axhline(0.5, color="0.3", linewidth=1)
    for (label, (value, interval)), dash in zip(lines.items(), KIND_DASHES[1:] * len(lines), strict=False):
        axes.axhspan(*interval, color="#CC79A7", alpha=0.15, linewidth=0)
        axes.axhline(value, color="#CC79A7", linestyle=dash, linewidth=1.5, label=label)
    axes.set(xlim=(-0.6, first - 1.4), ylim=(max(0.0, lowest - 0.05), 1.06), ylabel="AUC (bars begin at 0.5 = chance)")
    axes.set_title(title, fontsize=10, pad=18)
    places, labels = zip(*ticks, strict=True)
    axes.set_xticks(places, labels, fontsize=8, rotation=45, ha="right", rotation_mode="anchor")
    panel.save_with_legend(figure, path)
