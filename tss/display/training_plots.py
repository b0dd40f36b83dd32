"""How a training went: losses and the validation score over epochs; hemispheres restored in phase 0.

In:  the history of a training, a dict an epoch; slices (H, W) of hemispheres.
Out: PNG files, written whole.
Paper: 2.4 (early stopping on validation AUC), 2.2 (Models Genesis).
See: tests/display/test_training_plots.py
"""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tss.display.panel import save

SCORES = {"val_auc": "validation AUC", "val_accuracy": "validation accuracy", "val_dice": "validation Dice"}


def draw_curves(path: str | os.PathLike, history: Sequence[dict], best_epoch: int, title: str) -> None:
    """Draw losses and the validation score over epochs; the epoch kept as best.pt is marked.

    history: one dict per epoch with epoch, train_loss, val_loss and one of SCORES; in phase 0, where volumes are
    restored, nothing_loss and mean_loss in place of the score.
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
    label = f"best: {auc[best]:.3f} in epoch {epochs[best]:.0f}"
    right.plot(epochs[best], auc[best], "o", color="tab:red", label=label)
    if score == "val_auc":
        right.axhline(0.5, color="0.7", linestyle="--", linewidth=1)
    right.set(xlabel="epoch", ylabel=SCORES[score], ylim=(min(0.4, auc.min() - 0.05), 1.02))
    for axes in (left, right):
        _frame(axes)
    save(figure, path)


def _draw_errors(path: str | os.PathLike, history: Sequence[dict], best_epoch: int, title: str) -> None:
    """Draw phase 0: errors of training and validation, and those of two trivial restorations."""
    figure = Figure(figsize=(4.5, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10)
    epochs = [row["epoch"] for row in history]
    marker = "o" if len(epochs) < 3 else None
    for name, colour, label in (
        ("train_loss", "0.5", "training"),
        ("val_loss", "tab:blue", "validation"),
        ("nothing_loss", "0.7", "doing nothing"),
        ("mean_loss", "0.3", "mean hemisphere"),
    ):
        line = "--" if name in ("nothing_loss", "mean_loss") else "-"
        axes.plot(epochs, [row[name] for row in history], line, color=colour, label=label, marker=marker)
    least = next(row["val_loss"] for row in history if row["epoch"] == best_epoch)
    axes.plot(best_epoch, least, "o", color="tab:red", label=f"best: {least:.4f} in epoch {best_epoch}")
    axes.set(xlabel="epoch", ylabel="mean squared error", ylim=(0, None))
    _frame(axes)
    save(figure, path)


def _frame(axes: Axes) -> None:
    """Whole epochs on the x axis, a legend, no lines above and on the right."""
    axes.locator_params("x", integer=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


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
    save(figure, path)
