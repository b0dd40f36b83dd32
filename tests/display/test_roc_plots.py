"""ROC curves and bars of AUC: what is in the pictures, read back from the file or from matplotlib's own objects."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread
from matplotlib.text import Text

from tss.display import roc_plots


def words(figure):
    return [text.get_text() for text in figure.findobj(Text)]


def test_the_roc_shows_the_point_at_validations_threshold(tmp_path, drawn):
    roc_plots.draw_roc(
        tmp_path / "roc.png",
        (np.array([0, 0.5, 1]), np.array([0, 1, 1])),
        0.75,
        (0.6, 0.9),
        (0.25, 0.5),
        0.4,
        "phase4: TSS < 4.5 h",
        "test split: 8 patients, 4 positive",
    )
    said = words(drawn[0])
    assert "AUC 0.750 [0.600-0.900]" in said
    assert "validation threshold 0.400:\nsensitivity 0.50, specificity 0.75" in said
    drawn_lines = [line.get_xydata().tolist() for line in drawn[0].axes[0].lines]
    assert drawn_lines == [[[0, 0], [1, 1]], [[0, 0], [0.5, 1], [1, 1]], [[0.25, 0.5]]]  # chance, curve, point
    height, width = imread(tmp_path / "roc.png").shape[:2]
    assert min(height, width) >= 1200  # 4 inches at 300 dpi: fit to print


def test_all_roc_curves_of_a_panel_are_told_apart_and_the_legend_hides_none(tmp_path, drawn):
    curves = [roc_plots.Curve(f"c{n}", [0, 0.5, 1], [0, 0.7, 1], kind) for n, kind in enumerate((0, 1, 0, 3))]
    roc_plots.draw_rocs(
        tmp_path / "roc.png",
        curves,
        {"reader_1": (0.1, 0.4), "reader_2": (0.2, 0.4)},
        {"1.07": (0.3, 0.6), "1.18": (0.4, 0.9), "1.20": (0.4, 0.9)},
        "TSS < 4.5 h\n8 patients",
    )
    (axes,) = drawn[0].axes
    named = {line.get_label(): line for line in axes.lines}
    styles = {(named[curve.label].get_color(), str(named[curve.label].get_linestyle())) for curve in curves}
    assert len(styles) == 4 and named["reader_1"].get_marker() != named["reader_2"].get_marker()
    one, two = (f"FLAIR ratio <= {text}" for text in (
        "1.07: sensitivity 0.60, specificity 0.70", "1.18, 1.20: sensitivity 0.90, specificity 0.60"
    ))  # fmt: skip
    assert {one, two, "sensitivity", "1 - specificity"} <= set(words(drawn[0]))
    assert named[one].get_marker() != named[two].get_marker() and list(named[two].get_xdata()) == [0.4]
    assert not axes.texts  # nothing is written among the curves
    FigureCanvasAgg(drawn[0]).draw()  # measured at the figure's own resolution, not the file's
    (legend,) = drawn[0].legends
    boxes = [part.get_window_extent() for part in (legend, axes)]
    assert boxes[0].y1 <= boxes[1].y0 and boxes[0].y0 >= 0  # beneath the axes, whole
    assert axes.title.get_window_extent().y1 <= drawn[0].bbox.y1


def test_bars_begin_at_chance_and_what_was_not_run_is_a_gap_with_the_word(tmp_path, drawn):
    groups = {
        "2D": [roc_plots.Bar("random", 0.4, (0.2, 0.5), 0), roc_plots.Bar("medical", None, None, 2, "not run")],
        "3D": [roc_plots.Bar("random", 0.9, (0.8, 1.0), 0)],
    }
    roc_plots.draw_bars(tmp_path / "bars.png", groups, {"ceiling: 0.95": (0.95, (0.9, 0.98))}, "TSS < 3 h")
    (axes,) = drawn[0].axes
    assert [(bar.get_y(), round(bar.get_y() + bar.get_height(), 6)) for bar in axes.patches[:2]] == [
        (0.5, 0.4),
        (0.5, 0.9),
    ]
    ends = [collection.get_segments()[0][:, 1].tolist() for collection in axes.collections]
    assert [[round(end, 6) for end in pair] for pair in ends] == [[0.2, 0.5], [0.8, 1.0]]
    assert axes.patches[2].get_extents().height > 0  # the band of the best
    assert {" not run", "0.40", "0.90", "2D", "3D", "ceiling: 0.95"} <= set(words(drawn[0]))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["random", "medical", "random"]
    low, high = axes.get_ylim()
    assert low <= 0.2 and high >= 1.0  # the intervals are whole
