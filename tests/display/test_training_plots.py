"""How a training went: what is in the pictures, read back from matplotlib's own objects."""

import numpy as np
from matplotlib.text import Text

from tss.display import training_plots


def words(figure):
    return [text.get_text() for text in figure.findobj(Text)]


def test_curves_mark_the_best_epoch(tmp_path, drawn):
    history = [
        {"epoch": n, "train_loss": 1 / n, "val_loss": 0.7, "val_auc": auc}
        for n, auc in enumerate((0.5, 0.81, 0.7, 0.81), 1)
    ]
    training_plots.draw_curves(tmp_path / "curves.png", history, 4, "phase 1")
    assert "best: 0.810 in epoch 4" in words(drawn[0]) and "phase 1" in words(drawn[0])


def test_a_score_below_chance_is_in_the_picture_at_its_epoch(tmp_path, drawn):
    history = [
        {"epoch": n, "train_loss": 1.0, "val_loss": loss, "val_auc": auc}
        for n, loss, auc in ((1, 0.9, 0.2), (2, 0.5, 0.3), (3, 0.6, 0.25))
    ]
    training_plots.draw_curves(tmp_path / "curves.png", history, 2, "")
    left, right = drawn[0].axes
    assert right.get_ylim()[0] < 0.2 and right.get_ylim()[1] > 1
    assert [line.get_xydata().tolist() for line in right.lines if line.get_marker() == "o"] == [[[2, 0.3]]]
    assert {line.get_label(): line.get_ydata().tolist() for line in left.lines}["validation"] == [0.9, 0.5, 0.6]


def test_curves_of_a_single_epoch_are_visible(tmp_path, drawn):
    training_plots.draw_curves(
        tmp_path / "curves.png", [{"epoch": 1, "train_loss": 1, "val_loss": 2, "val_auc": 0.5}], 1, ""
    )
    assert drawn[0].axes[0].lines[0].get_marker() == "o"


def test_curves_of_phase_0_show_the_error_of_doing_nothing(tmp_path, drawn):
    history = [
        {"epoch": n, "train_loss": 0.1 / n, "val_loss": 0.2 / n, "nothing_loss": 0.3, "mean_loss": 0.25}
        for n in (1, 2, 3)
    ]
    training_plots.draw_curves(tmp_path / "curves.png", history, 3, "Phase 0")
    assert {"doing nothing", "mean hemisphere", "best: 0.0667 in epoch 3", "mean squared error"} <= set(words(drawn[0]))
    assert drawn[0].axes[0].lines[2].get_ydata().tolist() == [0.3] * 3


def test_restoration_has_a_line_a_hemisphere_and_one_scale(tmp_path, drawn):
    slices = [np.full((8, 4), value) for value in (0.2, 0.9, 0.4)]
    slices[0][0] = 1.0  # row 0 is the back of the head: below
    training_plots.draw_restoration(
        tmp_path / "restored.png", {f"p{n} left, {c}": slices for n in (1, 2) for c in "abc"}, "t"
    )
    assert len(drawn[0].axes) == 2 * 9 and "p2 left, c\noriginal" in words(drawn[0])
    images = [axes.images[0] for axes in drawn[0].axes]
    assert all(image.get_clim() == (0, 1) for image in images)
    assert images[0].get_array()[7, 0] == 1.0 and images[2].get_array()[7, 0] == 0.4
