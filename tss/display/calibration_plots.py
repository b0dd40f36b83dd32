"""What probabilities are worth: observed over predicted shares, and net benefit over the threshold.

In:  points of `tss.metrics.calibration_curve` and `tss.metrics.decision_curve` as dicts, by name.
Out: PNG files, written whole.
Paper: none (TRIPOD+AI asks for both; decision curves: Vickers and Elkin 2006).
See: tests/display/test_calibration_plots.py
"""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from tss.display.panel import KIND_DASHES, MARKERS, Style, draw_diagonal, open_panel, save_with_legend

FEW_COLOURS = ("#0072B2", "#D55E00", "#000000", "#009E73")  # where few curves are shown
LEAST_BENEFIT = -0.1  # our choice: treating everybody falls without end, and would press everything else together


def draw_calibration(path: str | os.PathLike, curves: Mapping[str, Sequence[dict]], title: str) -> None:
    """Draw observed shares with their intervals over predicted probabilities.

    curves: name -> points of `tss.metrics.calibration_curve`.
    """
    figure, axes = open_panel(title, len(curves) + 1)
    draw_diagonal(axes, "probabilities that mean what they say")
    for number, (label, points) in enumerate(curves.items()):
        x, y = (np.array([point[name] for point in points]) for name in ("predicted", "observed"))
        ends = np.array([point["observed_ci"] for point in points]).T
        marks: Style = {"marker": MARKERS[number % len(MARKERS)], "capsize": 3, "clip_on": False}
        axes.errorbar(x, y, np.abs(ends - y), label=label, **_style(number), **marks)
    axes.set(xlabel="mean predicted probability of the group", ylabel="share of the group that is positive")
    save_with_legend(figure, path)


def draw_decision(path: str | os.PathLike, curves: Mapping[str, Sequence[dict]], title: str) -> None:
    """Draw net benefit over the threshold, next to calling everybody and nobody positive.

    curves: name -> points of `tss.metrics.decision_curve`, all for the same patients.
    """
    figure, axes = open_panel(title, len(curves) + 2)
    for number, (label, points) in enumerate(curves.items()):
        thresholds = [point["threshold"] for point in points]
        if not number:
            everybody = [point["treat_all"] for point in points]
            axes.plot(thresholds, everybody, color="0.5", linewidth=1.3, label="calling everybody positive")
            axes.axhline(0, color="black", linewidth=1, label="calling nobody positive")
        axes.plot(thresholds, [point["net_benefit"] for point in points], **_style(number), label=label)
    highest = max(point["net_benefit"] for points in curves.values() for point in points)
    axes.set(xlabel="threshold: probability from which one calls positive", xlim=(0, 1))
    axes.set(ylabel="net benefit (true positives per patient)", ylim=(LEAST_BENEFIT, max(0.1, 1.1 * highest)))
    save_with_legend(figure, path)


def _style(number: int) -> Style:
    """Colour and dash of the curve with this number, where few are shown."""
    colour, dash = FEW_COLOURS[number % len(FEW_COLOURS)], KIND_DASHES[number % len(KIND_DASHES)]
    return {"color": colour, "linestyle": dash, "linewidth": 1.6}
