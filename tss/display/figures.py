"""Pictures: learning, restoration, ROC, AUC, calibration, Grad-CAM, quality. The only module that knows matplotlib.

In:  plain arrays and numbers; volumes are (X, Y, Z) on canonical RAS axes.
Out: PNG files, written whole.
Paper: Fig. 2 (visual check), Figs 6 and 7 (bars of AUC), Fig. 8 (ROC), Fig. 9 (Grad-CAM).
See: tests/display/test_figures.py

Slices are shown as radiologists hang them: the patient's right is on the left of the picture, front at the top.
"""

import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure  # not pyplot: a Figure of its own draws to a file with Agg and asks for no screen

from tss.data.files import write_whole

MAP_COLOURS = "inferno"
MAP_OPACITY = 0.6  # our choice: at the map's peak; it falls to 0 with the map, so that the scan stays readable
QC_SLICES = 7
QC_DPI = 100
PIXEL = 72 / QC_DPI  # points
QC_PIXELS_PER_MM = 0.9  # our choice: DWI has voxels of 1.7 mm, so nothing is lost
QC_HISTOGRAM, QC_TITLE = 220, 18  # pixels: width of the panel of histograms, height of the line above
QC_WHITE = {"dwi": 2.5, "t2w": 3.5, "flair": 2.0}  # our choice: medians of healthy brain that are drawn white
QC_COLOURS = {"mask": "#00c8ff", "atlas": "#ff9000", "lesion": "#ff50ff", "midline": "#ffff00"}
QC_RAW = "#ff4040"  # the histogram of the raw scan
GREYS = 48  # our choice: no steps are seen yet, and the file is small
WINDOW = (1.0, 99.5)  # percentiles of the head that become black and white
AIR = 0.04  # our choice: share of a scan's maximum below which there is only noise

# Colours that are told apart by those who confuse red and green (Okabe and Ito 2008); in this order by kind: random,
# ImageNet, medical, phase before, attention, older methods. Dashes too, for whoever prints in black and white.
KIND_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#000000", "#777777", "#CC79A7")
KIND_DASHES = ("-", (0, (1, 1)), (0, (4, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (2, 1)))
MARKERS = "s^vDP*"
CUTOFF_COLOUR = "#F0E442"
FEW_COLOURS = ("#0072B2", "#D55E00", "#000000", "#009E73")  # where few curves are shown
MAP_DPI = 100  # our choice: 0.6 MB a page, so that 16 networks' pages of a patient fit into a report
PANEL_DPI = 200  # our choice: sharp on paper at half a page's width, small enough to be mailed
LEAST_BENEFIT = -0.1  # our choice: treating everybody falls without end, and would press all else together


SCORES = {"val_auc": "validation AUC", "val_accuracy": "validation accuracy", "val_dice": "validation Dice"}


def draw_curves(path: str | os.PathLike, history: Sequence[dict], best_epoch: int, title: str) -> None:
    """Draw losses and the validation score over epochs; the epoch that best.pt was kept from is marked.

    history: one dict an epoch with epoch, train_loss, val_loss and one of SCORES; or, where volumes are restored, with
    nothing_loss and mean_loss instead.
    """
    score = next((name for name in SCORES if name in history[0]), None)
    if score is None:
        _draw_errors(path, history, best_epoch, title)
        return
    epochs, train_loss, val_loss, auc = (
        np.array([row[name] for row in history], dtype=float) for name in ("epoch", "train_loss", "val_loss", score)
    )
    best = int(np.flatnonzero(epochs == best_epoch)[0])
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    figure.suptitle(title, fontsize=10)
    left, right = figure.subplots(1, 2)
    marker = "o" if len(epochs) < 3 else None  # a line needs two points to be seen
    left.plot(epochs, train_loss, color="0.5", marker=marker, label="training")
    left.plot(epochs, val_loss, color="tab:blue", marker=marker, label="validation")
    left.set(xlabel="epoch", ylabel="loss (binary cross-entropy)" if score == "val_auc" else "loss")
    right.plot(epochs, auc, color="tab:blue", marker=marker)
    right.plot(
        epochs[best], auc[best], "o", color="tab:red", label=f"best: {auc[best]:.3f} in epoch {epochs[best]:.0f}"
    )
    if score == "val_auc":
        right.axhline(0.5, color="0.7", linestyle="--", linewidth=1)
    right.set(xlabel="epoch", ylabel=SCORES[score], ylim=(min(0.4, auc.min() - 0.05), 1.02))
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def _draw_errors(path: str | os.PathLike, history: Sequence[dict], best_epoch: int, title: str) -> None:
    figure = Figure(figsize=(4.5, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10)
    epochs = [row["epoch"] for row in history]
    for name, colour, label in (
        ("train_loss", "0.5", "training"),
        ("val_loss", "tab:blue", "validation"),
        ("nothing_loss", "0.7", "doing nothing"),
        ("mean_loss", "0.3", "mean hemisphere"),
    ):
        axes.plot(
            epochs,
            [row[name] for row in history],
            color=colour,
            label=label,
            marker="o" if len(epochs) < 3 else None,
            linestyle="-" if label[0] in "tv" else "--",
        )
    least = next(row["val_loss"] for row in history if row["epoch"] == best_epoch)
    axes.plot(best_epoch, least, "o", color="tab:red", label=f"best: {least:.4f} in epoch {best_epoch}")
    axes.set(xlabel="epoch", ylabel="mean squared error", ylim=(0, None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def draw_restoration(path: str | os.PathLike, rows: dict[str, Sequence[np.ndarray]], title: str) -> None:
    """Draw slices of hemispheres: original, distorted, restored, all from black = 0 to white = 1.

    rows: caption -> three slices (H, W) = (row y, column x with the midline last), front at the top.
    """
    groups = [list(rows.items())[start : start + 3] for start in range(0, len(rows), 3)]  # a hemisphere's channels
    columns = 9
    height, width = next(iter(rows.values()))[0].shape
    figure = Figure(figsize=(columns * 1.1, len(groups) * (1.1 * height / width + 0.25) + 0.5), layout="constrained")
    figure.suptitle(title, fontsize=9)
    grid = figure.subplots(len(groups), columns, squeeze=False)
    for line, group in zip(grid, groups, strict=True):
        for axes in line:
            axes.set_axis_off()
        pictures = [
            (caption, word, picture)
            for caption, pictures in group
            for word, picture in zip(("original", "distorted", "restored"), pictures, strict=True)
        ]
        for axes, (caption, word, picture) in zip(line, pictures, strict=False):
            axes.imshow(picture[::-1], cmap="gray", vmin=0, vmax=1)
            axes.set_title(f"{caption}\n{word}" if word == "original" else word, fontsize=6, loc="left")
    _save(figure, path)


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

    Args:
        curve: false and true positive rates, rising from (0, 0) to (1, 1).
        auc, interval: the area and its 95 % confidence interval.
        point: false and true positive rate at `threshold`, which was chosen on validation.
        title: the positive class, for instance "TSS < 4.5 h".
        cases: how many, for instance "82 patients, 42 positive".
    """
    figure = Figure(figsize=(4.2, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1, label="chance")
    axes.plot(
        *curve,
        color="tab:blue",
        linewidth=1.8,
        clip_on=False,
        zorder=3,
        label=f"AUC {auc:.3f} [{interval[0]:.3f}-{interval[1]:.3f}]",
    )
    axes.plot(
        *point,
        "o",
        color="tab:red",
        markersize=7,
        clip_on=False,
        zorder=4,
        label=f"validation threshold {threshold:.3f}:\nsensitivity {point[1]:.2f}, specificity {1 - point[0]:.2f}",
    )
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="1 - specificity", ylabel="sensitivity")
    axes.set_title(f"{title}\n{cases}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", fontsize=8, frameon=True, edgecolor="none", framealpha=0.9)
    _save(figure, path, dpi=300)


class Curve(NamedTuple):
    """An ROC curve: what the legend calls it, false and true positive rates, and which of KIND_COLOURS it has."""

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
    """Draw the ROC curves of a task, readers and published cut-offs as points on them (Fig. 8), the legend beneath.

    readers, cutoffs: what it is called -> false and true positive rate. A cut-off is named in the picture too.
    """
    figure, axes = _panel(title, len(curves) + len(readers) + bool(cutoffs) + 1, height=4.9)
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1, label="chance: AUC 0.5")
    for number, curve in enumerate(curves):
        nth = sum(other.kind == curve.kind for other in curves[:number])
        axes.plot(
            curve.x,
            curve.y,
            color=KIND_COLOURS[curve.kind],
            linestyle=KIND_DASHES[nth % len(KIND_DASHES)],
            linewidth=1.8,
            clip_on=False,
            label=curve.label,
        )
    for (name, point), marker in zip(readers.items(), MARKERS * len(readers), strict=False):
        axes.plot(
            *point,
            marker,
            color="black",
            markerfacecolor="white",
            markersize=7,
            clip_on=False,
            zorder=5,
            linestyle="none",
            label=name,
        )
    for name, point in cutoffs.items():
        axes.plot(
            *point,
            "o",
            color=CUTOFF_COLOUR,
            markeredgecolor="black",
            markersize=7,
            clip_on=False,
            zorder=6,
            label="published cut-off of the FLAIR ratio" if name == next(iter(cutoffs)) else None,
        )
    for nth, point in enumerate(dict.fromkeys(cutoffs.values())):  # several may fall on one point
        beside = {"xytext": (-6, 5), "ha": "right"} if nth % 2 else {"xytext": (6, -10)}  # neighbours on either side
        axes.annotate(
            ", ".join(name for name in cutoffs if cutoffs[name] == point),
            point,
            **beside,
            textcoords="offset points",
            fontsize=8,
            zorder=7,
        )
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="1 - specificity", ylabel="sensitivity")
    axes.grid(color="0.92")
    _save_with_legend(figure, path)


class Bar(NamedTuple):
    """An AUC with its interval; or, where there is none, a gap with a word in it."""

    label: str
    auc: float | None
    interval: tuple[float, float] | None
    kind: int
    word: str = ""


def draw_bars(
    path: str | os.PathLike, groups: Mapping[str, Sequence[Bar]], lines: Mapping[str, float], title: str
) -> None:
    """Draw bars of AUC from chance, 0.5, with their intervals, in groups (Figs 6 and 7).

    lines: what it is called -> an AUC that is drawn across, such as the ceiling.
    """
    count = sum(map(len, groups.values())) + len(groups) - 1
    figure, axes = _panel(title, len(lines), width=max(4.6, 0.55 * count + 1.2), height=4.2)
    first, ticks, lowest = 0, [], 0.4
    for name, bars in groups.items():
        axes.text(
            first + (len(bars) - 1) / 2,
            1.0,
            name,
            ha="center",
            va="bottom",
            fontsize=10,
            weight="bold",
            transform=axes.get_xaxis_transform(),
        )
        for place, bar in enumerate(bars, first):
            ticks.append((place, bar.label))
            if bar.auc is None:
                axes.text(place, 0.5, f" {bar.word}", rotation=90, ha="center", va="bottom", color="0.35", fontsize=9)
                continue
            low, high = bar.interval
            lowest = min(lowest, low)
            axes.bar(place, bar.auc - 0.5, bottom=0.5, width=0.8, color=KIND_COLOURS[bar.kind], alpha=0.85)
            axes.errorbar(place, bar.auc, [[bar.auc - low], [high - bar.auc]], color="black", capsize=4, linewidth=1.2)
            axes.text(place, high + 0.012, f"{bar.auc:.2f}", ha="center", va="bottom", fontsize=8)
        first += len(bars) + 1
    axes.axhline(0.5, color="0.3", linewidth=1)
    for (label, value), dash in zip(lines.items(), KIND_DASHES[1:] * len(lines), strict=False):
        axes.axhline(value, color="#CC79A7", linestyle=dash, linewidth=1.5, label=label)
    axes.set(xlim=(-0.6, first - 1.4), ylim=(max(0.0, lowest - 0.05), 1.06), ylabel="AUC (bars begin at 0.5 = chance)")
    axes.set_title(title, fontsize=10, pad=18)
    axes.set_xticks(
        [at for at, _ in ticks],
        [label for _, label in ticks],
        fontsize=8,
        rotation=45,
        ha="right",
        rotation_mode="anchor",
    )
    _save_with_legend(figure, path)


def draw_calibration(path: str | os.PathLike, curves: Mapping[str, Sequence[dict]], title: str) -> None:
    """Draw observed shares with their intervals over predicted probabilities.

    curves: what it is called -> what `tss.metrics.calibration.judge` has under "calibration".
    """
    figure, axes = _panel(title, len(curves) + 1)
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1, label="probabilities that mean what they say")
    for number, (label, points) in enumerate(curves.items()):
        x, y = (np.array([point[name] for point in points]) for name in ("predicted", "observed"))
        ends = np.array([point["observed_ci"] for point in points]).T
        axes.errorbar(
            x,
            y,
            np.abs(ends - y),
            **_few(number),
            marker=MARKERS[number % len(MARKERS)],
            capsize=3,
            label=label,
            clip_on=False,
        )
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1),
        aspect="equal",
        xlabel="mean predicted probability of the group",
        ylabel="share of the group that is positive",
    )
    _save_with_legend(figure, path)


def draw_decision(path: str | os.PathLike, curves: Mapping[str, Sequence[dict]], title: str) -> None:
    """Draw net benefit over the threshold, beside calling everybody and nobody positive.

    curves: what it is called -> what `tss.metrics.calibration.judge` has under "decision_curve", all of the same patients.
    """
    figure, axes = _panel(title, len(curves) + 2)
    for number, (label, points) in enumerate(curves.items()):
        thresholds = [point["threshold"] for point in points]
        if not number:
            axes.plot(
                thresholds,
                [point["treat_all"] for point in points],
                color="0.5",
                linewidth=1.3,
                label="calling everybody positive",
            )
            axes.axhline(0, color="black", linewidth=1, label="calling nobody positive")
        axes.plot(thresholds, [point["net_benefit"] for point in points], **_few(number), label=label)
    highest = max(point["net_benefit"] for points in curves.values() for point in points)
    axes.set(
        xlim=(0, 1),
        ylim=(LEAST_BENEFIT, max(0.1, 1.1 * highest)),
        xlabel="threshold: probability from which one calls positive",
        ylabel="net benefit (true positives a patient)",
    )
    _save_with_legend(figure, path)


def _few(number: int) -> dict:
    """Colour and dash of the curve with this number, where few are shown."""
    return {
        "color": FEW_COLOURS[number % len(FEW_COLOURS)],
        "linestyle": KIND_DASHES[number % len(KIND_DASHES)],
        "linewidth": 1.6,
    }


def _panel(title: str, entries: int, width: float = 4.6, height: float = 4.6) -> tuple[Figure, Axes]:
    """Open a picture of one panel with room for so many lines of legend beneath; sizes in inches."""
    figure = Figure(figsize=(width, height + 0.19 * entries), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save_with_legend(figure: Figure, path: str | os.PathLike) -> None:
    """Save a panel with its legend beneath, where it hides no curve."""
    if figure.axes[0].get_legend_handles_labels()[1]:
        figure.legend(loc="outside lower left", fontsize=8, frameon=False, handlelength=3)
    _save(figure, path, PANEL_DPI)


def draw_gradcam(
    path: str | os.PathLike,
    scans: dict[str, np.ndarray],
    heat: np.ndarray,
    slices: Sequence[int],
    captions: Sequence[str],
    title: str,
    scale: str,
    sizes: Sequence[float],
    lesion: np.ndarray | None = None,
) -> None:
    """Draw slices of each scan twice: as it is, and beneath the map.

    Args:
        scans: name -> (X, Y, Z), all on one grid.
        heat: (X, Y, Z) in [0, 1], one scale for the whole patient; drawn as it is, never stretched.
        slices: which z to show, one column each, with a caption each.
        title: patient, side, probability; `scale`: what the map's 0 and 1 mean.
        sizes: voxel edges (x, y, z) in mm.
        lesion: (X, Y, Z) mask, outlined on every picture.
    """
    # Cropped to the head: the atlas' margins would take half of the page.
    box = _bounding_box([scan[..., list(slices)] for scan in scans.values()])
    width, height = (box[0].stop - box[0].start) * sizes[0], (box[1].stop - box[1].start) * sizes[1]
    column = 1.75
    rows = [(name, with_map) for name in scans for with_map in (False, True)]
    figure = Figure(
        figsize=(column * len(slices) + 1.1, column * height / width * len(rows) + 0.9),
        layout="constrained",
        facecolor="white",
    )
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(len(rows), len(slices), squeeze=False)
    shown = None
    for (name, with_map), line in zip(rows, grid, strict=True):
        low, high = window(scans[name])
        line[0].set_ylabel(name + (" + map" if with_map else ""), fontsize=9)
        for axes, z in zip(line, slices, strict=True):
            axes.set(xticks=[], yticks=[], facecolor="black")
            axes.imshow(_hang(scans[name], z, box), cmap="gray", vmin=low, vmax=high, aspect=sizes[1] / sizes[0])
            if with_map:
                picture = _hang(heat, z, box)
                shown = axes.imshow(
                    picture, cmap=MAP_COLOURS, vmin=0, vmax=1, alpha=MAP_OPACITY * picture, aspect=sizes[1] / sizes[0]
                )
            if lesion is not None and _hang(lesion, z, box).any():
                axes.contour(_hang(lesion, z, box), levels=[0.5], colors="cyan", linewidths=0.8)
    for axes, caption in zip(grid[0], captions, strict=True):
        axes.set_title(caption, fontsize=8)
    for axes, letter, x in ((grid[0, 0], "R", 0.03), (grid[0, -1], "L", 0.97)):
        axes.text(
            x,
            0.97,
            letter,
            color="white",
            fontsize=9,
            va="top",
            ha="left" if letter == "R" else "right",
            transform=axes.transAxes,
        )
    bar = figure.colorbar(shown, ax=grid, shrink=0.6, aspect=30, pad=0.01)
    bar.set_label(scale, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    if not heat.any():
        figure.text(
            0.5,
            0.01,
            "The map is zero everywhere: nothing in these scans argued for this verdict.",
            ha="center",
            color="tab:red",
            fontsize=9,
        )
    _save(figure, path, MAP_DPI)


def draw_qc(
    path: str | os.PathLike,
    scans: dict[str, np.ndarray],
    mask: np.ndarray,
    atlas_brain: np.ndarray,
    sizes: Sequence[float],
    title: str,
    lesion: np.ndarray | None = None,
    histograms: dict[str, dict[str, np.ndarray]] | None = None,
) -> None:
    """Draw slices of each scan on the atlas grid with the outlines by which registration is judged, and histograms.

    Args:
        scans: name -> (X, Y, Z) on the atlas grid in medians of healthy brain, one row each; drawn from black at 0
            to white at QC_WHITE in every patient, so that patients can be compared.
        mask, atlas_brain, lesion: (X, Y, Z) bool, outlined in QC_COLOURS.
        sizes: voxel edges (x, y, z) in mm.
        histograms: name -> edges (B + 1,) in medians; and shares (B,) raw, matched and, where known, reference.
    """
    inside = np.flatnonzero((mask | atlas_brain).any((0, 1)))
    slices = np.unique(np.linspace(inside[0], inside[-1], QC_SLICES + 2).round().astype(int)[1:-1])
    box = _bounding_box([mask | atlas_brain])

    def row(volume: np.ndarray) -> np.ndarray:
        return np.concatenate([_hang(volume, z, box) for z in slices], axis=1)

    rows, columns = row(mask).shape
    wide, tall = round(columns * sizes[0] * QC_PIXELS_PER_MM), round(rows * sizes[1] * QC_PIXELS_PER_MM)
    width = wide + (QC_HISTOGRAM if histograms else 0)
    height = QC_TITLE + len(scans) * tall
    figure = Figure(figsize=(width / QC_DPI, height / QC_DPI), facecolor="black")
    figure.text(4 / width, 1 - 3 / height, title, color="white", fontsize=8, va="top")
    outlines = {"mask": mask, "atlas": atlas_brain} | ({"lesion": lesion} if lesion is not None else {})
    place = 1 - 8 / width
    for name in reversed(["midline", *outlines]):
        figure.text(place, 1 - 3 / height, name, color=QC_COLOURS[name], fontsize=8, va="top", ha="right")
        place -= (len(name) + 2) * 6 / width
    each = columns // len(slices)
    midline = box[0].stop - mask.shape[0] / 2 - 0.5  # between the two middle columns, seen from the picture's left
    for number, (name, scan) in enumerate(scans.items()):
        bottom = (height - QC_TITLE - (number + 1) * tall) / height
        axes = figure.add_axes((0, bottom, wide / width, tall / height))
        axes.imshow(row(scan), cmap="gray", vmin=0, vmax=QC_WHITE[name], aspect="auto", interpolation="bilinear")
        for k in range(len(slices)):
            axes.axvline(
                k * each + midline,
                color=QC_COLOURS["midline"],
                linewidth=PIXEL,
                antialiased=False,
                linestyle=(0, (2, 8)),
            )
        for part, outlined in outlines.items():
            if row(outlined).any():
                axes.contour(row(outlined), levels=[0.5], colors=QC_COLOURS[part], linewidths=PIXEL, antialiased=False)
        axes.set_axis_off()
        axes.text(3, 3, f"R   {name}\nwhite: {QC_WHITE[name]:g}", color="white", fontsize=8, va="top")
        axes.text(columns - 3, 3, "L", color="white", fontsize=8, va="top", ha="right")
        if histograms:
            axes = figure.add_axes(
                ((wide + 10) / width, bottom + 26 / height, (QC_HISTOGRAM - 24) / width, (tall - 34) / height),
                facecolor="black",
            )
            _draw_histogram(axes, histograms[name])
    _save_small(figure, path)


def _draw_histogram(axes, histogram: dict[str, np.ndarray]) -> None:
    """Draw the brain's histogram on the raw scan and at last, over the reference patient's."""
    edges = histogram["edges"]
    if "reference" in histogram:
        axes.stairs(histogram["reference"], edges, color="0.4", fill=True)
    axes.stairs(histogram["raw"], edges, color=QC_RAW, linewidth=PIXEL)
    axes.stairs(histogram["matched"], edges, color="white", linewidth=PIXEL)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, None), yticks=[])
    axes.tick_params(colors="0.7", labelsize=7, length=2, pad=1)
    axes.spines[:].set_visible(False)


def window(scan: np.ndarray) -> tuple[float, float]:
    """Return the values that become black and white: percentiles of what is not background."""
    inside = scan[scan > 0]
    if not inside.size:
        return 0.0, 1.0
    low, high = np.percentile(inside, WINDOW)
    return float(low), float(max(high, low + 1e-6))


def _hang(volume: np.ndarray, z: int, box: tuple[slice, slice]) -> np.ndarray:
    """Cut slice z out of (X, Y, Z) as rows and columns of a picture: patient's right on the left, front at the top."""
    return volume[box[0], box[1], z][::-1, ::-1].T


def _bounding_box(scans: Sequence[np.ndarray], margin: int = 3) -> tuple[slice, slice]:
    """Return the x and y range that holds whatever is brighter than air in any scan, with a margin."""
    head = np.any([scan > AIR * max(float(scan.max()), 1e-6) for scan in scans], axis=(0, 3))  # (X, Y)
    if not head.any():
        return slice(0, head.shape[0]), slice(0, head.shape[1])
    ranges = []
    for axis in (0, 1):
        hit = np.flatnonzero(head.any(axis=1 - axis))
        ranges.append(slice(max(0, int(hit[0]) - margin), min(head.shape[axis], int(hit[-1]) + 1 + margin)))
    return ranges[0], ranges[1]


def _save(figure: Figure, path: str | os.PathLike, dpi: int = 150) -> None:
    # No date and no version in the file: the same numbers give the same bytes.
    write_whole(path, lambda beside: figure.savefig(beside, dpi=dpi, metadata={"Software": None}))


def _save_small(figure: Figure, path: str | os.PathLike) -> None:
    """Write a grey picture with a few colours as a PNG with a palette: half the bytes, or less, of 4 channels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    colours = np.array([to_rgb(colour) for colour in (*QC_COLOURS.values(), QC_RAW)])
    greys = np.repeat(np.linspace(0, 1, GREYS)[:, None], 3, 1)
    palette = np.rint(255 * np.concatenate([greys, colours, colours / 2])).astype(np.uint8)  # half: edges of letters
    index = np.rint(pixels[..., 0] * ((GREYS - 1) / 255)).astype(np.uint8)
    coloured = (pixels[..., 0] != pixels[..., 1]) | (pixels[..., 0] != pixels[..., 2])
    distinct, which = np.unique(pixels[coloured] @ np.array([1 << 16, 1 << 8, 1]), return_inverse=True)
    distinct = distinct[:, None, None] >> np.array([16, 8, 0]) & 255  # (N, 1, 3)
    index[coloured] = np.abs(distinct - palette).sum(-1).argmin(1)[which]
    write_whole(path, lambda beside: beside.write_bytes(_png(index, palette)))


def _png(index: np.ndarray, palette: np.ndarray) -> bytes:
    """Return a PNG file of indices (H, W) into a palette (K, 3), both uint8 (PNG specification, 11.2)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = index.shape
    steps = np.diff(index, axis=0, prepend=np.uint8(0))  # uint8 wraps round, as the filter "up" wants it
    lines = np.pad(steps, [(0, 0), (1, 0)], constant_values=2).tobytes()  # each line begins with its filter: 2 = up
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            chunk(b"PLTE", palette.tobytes()),
            chunk(b"IDAT", zlib.compress(lines, 6)),
            chunk(b"IEND", b""),
        ]
    )
