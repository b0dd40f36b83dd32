"""Pictures: what is on them, read back from the file or from matplotlib's own objects."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from tss.display import figures
from tss.errors import InputError

SIZES = (1.0, 2.0, 5.0)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, still open."""
    kept, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **more: kept.append(self) or save(self, *args, **more))
    return kept


def head():
    scan = np.zeros((20, 24, 4), np.float32)
    scan[4:16, 4:20] = 100.0
    return scan


def words(figure):
    return [text.get_text() for text in figure.findobj(Text)]


def test_curves_mark_the_best_epoch(tmp_path, drawn):
    history = [
        {"epoch": n, "train_loss": 1 / n, "val_loss": 0.7, "val_auc": auc}
        for n, auc in enumerate((0.5, 0.81, 0.7, 0.81), 1)
    ]
    figures.draw_curves(tmp_path / "curves.png", history, 4, "phase 1")
    assert "best: 0.810 in epoch 4" in words(drawn[0]) and "phase 1" in words(drawn[0])


def test_curves_of_a_single_epoch_are_visible(tmp_path, drawn):
    figures.draw_curves(tmp_path / "curves.png", [{"epoch": 1, "train_loss": 1, "val_loss": 2, "val_auc": 0.5}], 1, "")
    assert drawn[0].axes[0].lines[0].get_marker() == "o"


def test_curves_of_phase_0_show_the_error_of_doing_nothing(tmp_path, drawn):
    history = [
        {"epoch": n, "train_loss": 0.1 / n, "val_loss": 0.2 / n, "nothing_loss": 0.3, "mean_loss": 0.25}
        for n in (1, 2, 3)
    ]
    figures.draw_curves(tmp_path / "curves.png", history, 3, "Phase 0")
    assert {"doing nothing", "mean hemisphere", "best: 0.0667 in epoch 3", "mean squared error"} <= set(words(drawn[0]))
    assert drawn[0].axes[0].lines[2].get_ydata().tolist() == [0.3] * 3


def test_restoration_has_a_line_a_hemisphere_and_one_scale(tmp_path, drawn):
    slices = [np.full((8, 4), value) for value in (0.2, 0.9, 0.4)]
    slices[0][0] = 1.0  # row 0 is the back of the head: below
    figures.draw_restoration(tmp_path / "restored.png", {f"p{n} left, {c}": slices for n in (1, 2) for c in "abc"}, "t")
    assert len(drawn[0].axes) == 2 * 9 and "p2 left, c\noriginal" in words(drawn[0])
    images = [axes.images[0] for axes in drawn[0].axes]
    assert all(image.get_clim() == (0, 1) for image in images)
    assert images[0].get_array()[7, 0] == 1.0 and images[2].get_array()[7, 0] == 0.4


def test_the_roc_shows_the_point_at_validations_threshold(tmp_path, drawn):
    figures.draw_roc(
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
    assert [0.25] in [list(line.get_xdata()) for line in drawn[0].axes[0].lines]
    height, width = imread(tmp_path / "roc.png").shape[:2]
    assert min(height, width) >= 1200  # 4 inches at 300 dpi: fit to print


def test_slices_hang_with_the_patients_right_on_the_left_and_front_at_the_top():
    volume = np.zeros((4, 6, 1))
    volume[3, 5, 0] = 1  # x grows to the right, y to the front
    everything = (slice(0, 4), slice(0, 6))
    assert np.argwhere(figures._hang(volume, 0, everything)).tolist() == [[0, 0]]


def test_the_map_is_drawn_on_one_scale_and_never_stretched(tmp_path, drawn):
    heat = np.zeros((20, 24, 4), np.float32)
    heat[8, 8, 1], heat[8, 8, 2] = 1.0, 0.2
    figures.draw_gradcam(
        tmp_path / "cam.png",
        {"DWI": head(), "FLAIR": head()},
        heat,
        [1, 2],
        ["low", "high"],
        "title",
        "evidence for x",
        SIZES,
        lesion=heat > 0.5,
    )
    maps = [image for axes in drawn[0].axes for image in axes.images if image.get_cmap().name == figures.MAP_COLOURS]
    assert {image.get_clim() for image in maps} == {(0, 1)}
    assert sorted(round(float(image.get_array().max()), 3) for image in maps) == [0.2, 0.2, 1.0, 1.0]
    assert {"low", "high", "title", "evidence for x", "R", "L"} <= set(words(drawn[0]))
    assert not any("zero everywhere" in text for text in words(drawn[0]))


def test_an_empty_map_is_said(tmp_path, drawn):
    figures.draw_gradcam(
        tmp_path / "cam.png", {"DWI": head()}, np.zeros((20, 24, 4), np.float32), [1], [""], "", "", SIZES
    )
    assert any("The map is zero everywhere" in text for text in words(drawn[0]))


def test_the_head_fills_the_picture_and_the_voxels_keep_their_proportions(tmp_path, drawn):
    figures.draw_gradcam(
        tmp_path / "cam.png", {"DWI": head()}, np.zeros((20, 24, 4), np.float32), [0], [""], "", "", SIZES
    )
    image = drawn[0].axes[0].images[0]
    assert image.get_array().shape == (16 + 6, 12 + 6)  # rows y, columns x, with a margin of 3
    assert drawn[0].axes[0].get_aspect() == 2.0


def test_the_same_numbers_give_the_same_file(tmp_path):
    for name in ("a.png", "b.png"):
        figures.draw_roc(tmp_path / name, (np.array([0, 1]), np.array([0, 1])), 0.5, (0, 1), (0, 0), 0.5, "", "")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/roc.png cannot be written"):
        figures.draw_roc(
            tmp_path / "file" / "roc.png", (np.array([0, 1]), np.array([0, 1])), 0.5, (0, 1), (0, 0), 0.5, "", ""
        )


def qc(path, **changes):
    brain = np.zeros((20, 24, 6), bool)
    brain[5:15, 4:20, 1:5] = True
    lesion = np.zeros_like(brain)
    lesion[12:14, 8:10, 2:4] = True  # on the patient's right: right of the midline in x
    edges = np.linspace(0, 3, 61)
    histogram = {"edges": edges, "raw": np.full(60, 0.5), "matched": np.full(60, 1.0), "reference": np.full(60, 0.8)}
    scans = {
        name: np.where(brain, level, 0).astype(np.float32)
        for name, level in (("dwi", 1.25), ("t2w", 3.5), ("flair", 0.0))
    }
    figures.draw_qc(
        path,
        scans,
        changes.get("mask", brain),
        brain,
        (8, 7, 20),
        "p7   a flag",
        lesion,
        {name: histogram for name in scans},
    )
    return imread(path)[..., :3]


def test_quality_control_has_one_scale_for_all_patients_and_few_colours(tmp_path, drawn, monkeypatch):
    kept, draw = [], FigureCanvasAgg.draw
    monkeypatch.setattr(FigureCanvasAgg, "draw", lambda self: kept.append(self.figure) or draw(self))
    picture = qc(tmp_path / "p7.png")
    assert {"p7   a flag", "mask", "atlas", "lesion", "midline", "R   dwi\nwhite: 2.5", "L"} <= set(words(kept[0]))
    images = [image for axes in kept[0].axes for image in axes.images]
    assert [image.get_clim() for image in images] == [(0, figures.QC_WHITE[name]) for name in ("dwi", "t2w", "flair")]
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) <= figures.GREYS + 10
    # Of the first slice shown: mid-grey DWI (half of white), white T2w, black FLAIR, where no line is drawn.
    tall = (len(picture) - figures.QC_TITLE) // 3
    levels = [np.median(picture[figures.QC_TITLE + k * tall + tall // 3 :, 60:62][: tall // 3]) for k in range(3)]
    assert levels == pytest.approx([0.5, 1, 0], abs=0.02)


def test_outlines_of_quality_control_lie_where_the_masks_do(tmp_path):
    picture = np.rint(255 * qc(tmp_path / "p7.png")).astype(int)
    part = picture[figures.QC_TITLE :, : -figures.QC_HISTOGRAM]

    def columns(name):
        colour = [int(figures.QC_COLOURS[name][k : k + 2], 16) for k in (1, 3, 5)]
        return np.flatnonzero((np.abs(part - colour).sum(-1) <= 6).any(0))

    each = part.shape[1] / 4  # four slices hold something
    middle = columns("midline")
    assert len(middle) == 4 and middle / each % 1 == pytest.approx(0.5, abs=0.02)
    lesion = columns("lesion") / each % 1
    assert 0 < lesion.min() and lesion.max() < 0.45  # the patient's right is on the left
    assert columns("atlas").size  # drawn last but one, on top of the mask's, which is the same here
    assert (tmp_path / "p7.png").read_bytes() == (qc(tmp_path / "again.png"), (tmp_path / "again.png").read_bytes())[1]


def test_all_roc_curves_of_a_panel_are_told_apart_and_the_legend_hides_none(tmp_path, drawn):
    curves = [figures.Curve(f"c{n}", [0, 0.5, 1], [0, 0.7, 1], kind) for n, kind in enumerate((0, 1, 0, 3))]
    figures.draw_rocs(
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
    assert {"1.07", "1.18, 1.20", "sensitivity", "1 - specificity"} <= set(words(drawn[0]))
    assert [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"] == [[0.3], [0.4], [0.4]]
    FigureCanvasAgg(drawn[0]).draw()  # measured at the figure's own resolution, not the file's
    (legend,) = drawn[0].legends
    boxes = [part.get_window_extent() for part in (legend, axes)]
    assert boxes[0].y1 <= boxes[1].y0 and boxes[0].y0 >= 0  # beneath the axes, whole
    assert axes.title.get_window_extent().y1 <= drawn[0].bbox.y1


def test_bars_begin_at_chance_and_what_was_not_run_is_a_gap_with_the_word(tmp_path, drawn):
    groups = {
        "2D": [figures.Bar("random", 0.4, (0.2, 0.6), 0), figures.Bar("medical", None, None, 2, "not run")],
        "3D": [figures.Bar("random", 0.9, (0.8, 1.0), 0)],
    }
    figures.draw_bars(tmp_path / "bars.png", groups, {"ceiling: 0.95": 0.95}, "TSS < 3 h")
    (axes,) = drawn[0].axes
    assert [(bar.get_y(), round(bar.get_y() + bar.get_height(), 6)) for bar in axes.patches] == [(0.5, 0.4), (0.5, 0.9)]
    assert {" not run", "0.40", "0.90", "2D", "3D", "ceiling: 0.95"} <= set(words(drawn[0]))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["random", "medical", "random"]
    low, high = axes.get_ylim()
    assert low <= 0.2 and high >= 1.0  # the intervals are whole


def test_calibration_has_its_intervals_and_the_decision_curve_its_two_rules(tmp_path, drawn):
    points = [
        {"n": 5, "predicted": 0.2, "observed": 0.4, "observed_ci": (0.1, 0.8)},
        {"n": 5, "predicted": 0.7, "observed": 0.6, "observed_ci": (0.2, 0.9)},
    ]
    figures.draw_calibration(tmp_path / "a.png", {"net": points}, "title")
    segments = drawn[0].axes[0].collections[0].get_segments()
    assert [segment[:, 1].tolist() for segment in segments] == [pytest.approx([0.1, 0.8]), pytest.approx([0.2, 0.9])]
    figures.draw_decision(
        tmp_path / "b.png",
        {"net": [{"threshold": t, "net_benefit": 0.3 - t, "treat_all": 0.4 - 2 * t} for t in (0.1, 0.5, 0.9)]},
        "title",
    )
    named = {line.get_label(): list(line.get_ydata()) for line in drawn[1].axes[0].lines}
    assert named["calling everybody positive"] == pytest.approx([0.2, -0.6, -1.4])
    assert named["net"] == pytest.approx([0.2, -0.2, -0.6]) and named["calling nobody positive"] == [0, 0]
    assert drawn[1].axes[0].get_ylim()[0] == figures.LEAST_BENEFIT
