"""Slices of scans: what is in the pictures, read back from the file or from matplotlib's own objects."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread
from matplotlib.text import Text

from tss.display import slice_plots

SIZES = (1.0, 2.0, 5.0)


def words(figure):
    return [text.get_text() for text in figure.findobj(Text)]


def head():
    scan = np.zeros((20, 24, 4), np.float32)
    scan[4:16, 4:20] = 100.0
    return scan


def test_slices_hang_with_the_patients_right_on_the_left_and_front_at_the_top():
    volume = np.zeros((4, 6, 1))
    volume[3, 5, 0] = 1  # x grows to the right, y to the front
    everything = (slice(0, 4), slice(0, 6))
    assert np.argwhere(slice_plots._hang(volume, 0, everything)).tolist() == [[0, 0]]


def test_the_map_is_drawn_on_one_scale_and_never_stretched(tmp_path, drawn):
    heat = np.zeros((20, 24, 4), np.float32)
    heat[8, 8, 1], heat[8, 8, 2] = 1.0, 0.2
    slice_plots.draw_gradcam(
        tmp_path / "cam.png",
        {"DWI": head(), "FLAIR": head()},
        {"map": heat},
        [1, 2],
        ["low", "high"],
        "title",
        "evidence for x",
        SIZES,
        lesion=heat > 0.5,
    )
    maps = [
        image for axes in drawn[0].axes for image in axes.images if image.get_cmap().name == slice_plots.MAP_COLOURS
    ]
    assert {image.get_clim() for image in maps} == {(0, 1)}
    assert sorted(round(float(image.get_array().max()), 3) for image in maps) == [0.2, 0.2, 1.0, 1.0]
    assert {"low", "high", "title", "evidence for x", "R", "L"} <= set(words(drawn[0]))
    assert [axes.get_ylabel() for axes in drawn[0].axes if axes.get_ylabel()][:4] == [
        "DWI", "DWI + map", "FLAIR", "FLAIR + map",
    ]  # fmt: skip


def test_the_patients_right_is_marked_on_the_left(tmp_path, drawn):
    empty = np.zeros((20, 24, 4), np.float32)
    slice_plots.draw_gradcam(tmp_path / "cam.png", {"DWI": head()}, {"map": empty}, [1, 2], ["a", "b"], "", "", SIZES)
    first, second = drawn[0].axes[:2]
    assert [(text.get_text(), text.get_position()[0]) for text in first.texts] == [("R", 0.03)]
    assert [(text.get_text(), text.get_position()[0]) for text in second.texts] == [("L", 0.97)]


def test_the_window_is_of_the_head_and_not_of_the_air():
    """Of 1 to 201, and as much air: the first and the last but one of a hundred parts."""
    scan = np.concatenate([np.arange(1, 202), np.zeros(201)]).astype(np.float32)
    assert slice_plots.window(scan) == pytest.approx((3, 200))
    assert slice_plots.window(np.zeros(5)) == (0, 1)


def test_a_note_is_written_and_red_where_the_map_is_empty(tmp_path, drawn):
    empty = np.zeros((20, 24, 4), np.float32)
    slice_plots.draw_gradcam(
        tmp_path / "cam.png", {"DWI": head()}, {"map": empty}, [1], [""], "", "", SIZES, note="nothing"
    )
    note = next(text for text in drawn[0].findobj(Text) if text.get_text() == "nothing")
    assert note.get_color() == "tab:red"


def test_a_second_map_is_drawn_beneath_the_others_on_the_first_scan(tmp_path, drawn):
    scans, heat = {"DWI": head(), "FLAIR": head()}, np.ones((20, 24, 4), np.float32)
    slice_plots.draw_gradcam(
        tmp_path / "cam.png", scans, {"evidence": heat, "Grad-CAM": heat / 2}, [1], [""], "", "", SIZES
    )
    rows = [axes for axes in drawn[0].axes if axes.images][:5]
    assert [axes.get_ylabel() for axes in rows] == [
        "DWI", "DWI + evidence", "FLAIR", "FLAIR + evidence", "DWI + Grad-CAM",
    ]  # fmt: skip
    assert rows[4].images[1].get_array().max() == 0.5


def test_the_head_fills_the_picture_and_the_voxels_keep_their_proportions(tmp_path, drawn):
    slice_plots.draw_gradcam(
        tmp_path / "cam.png", {"DWI": head()}, {"map": np.zeros((20, 24, 4), np.float32)}, [0], [""], "", "", SIZES
    )
    image = drawn[0].axes[0].images[0]
    assert image.get_array().shape == (16 + 6, 12 + 6)  # rows y, columns x, with a margin of 3
    assert drawn[0].axes[0].get_aspect() == 2.0


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
    slice_plots.draw_qc(
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
    assert [image.get_clim() for image in images] == [
        (0, slice_plots.QC_WHITE[name]) for name in ("dwi", "t2w", "flair")
    ]
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) <= slice_plots.GREYS + 10
    # Of the first slice shown: mid-grey DWI (half of white), white T2w, black FLAIR, where no line is drawn.
    tall = (len(picture) - slice_plots.QC_TITLE) // 3
    levels = [np.median(picture[slice_plots.QC_TITLE + k * tall + tall // 3 :, 60:62][: tall // 3]) for k in range(3)]
    assert levels == pytest.approx([0.5, 1, 0], abs=0.02)


def test_the_midline_is_the_grids_where_the_brain_lies_to_one_side(tmp_path, monkeypatch):
    """Of 20 columns the brain has 2 to 14, and a margin of 3: 17 to 0 from the left, so that 9.5 comes after 8."""
    kept, draw = [], FigureCanvasAgg.draw
    monkeypatch.setattr(FigureCanvasAgg, "draw", lambda self: kept.append(self.figure) or draw(self))
    brain = np.zeros((20, 24, 3), bool)
    brain[2:15, 4:20] = True
    scans = {name: brain.astype(np.float32) for name in ("dwi", "t2w", "flair")}
    slice_plots.draw_qc(tmp_path / "p.png", scans, brain, brain, (8, 7, 20), "")
    axes = kept[0].axes[0]
    wide = axes.images[0].get_array().shape[1] // 3
    assert wide == 18 and [line.get_xdata()[0] for line in axes.lines] == [k * 18 + 7.5 for k in range(3)]
    assert {text.get_text()[0]: text.get_position()[0] for text in axes.texts} == {"R": 3, "L": 3 * 18 - 3}


def test_outlines_of_quality_control_lie_where_the_masks_do(tmp_path):
    picture = np.rint(255 * qc(tmp_path / "p7.png")).astype(int)
    part = picture[slice_plots.QC_TITLE :, : -slice_plots.QC_HISTOGRAM]

    def columns(name):
        colour = [int(slice_plots.QC_COLOURS[name][k : k + 2], 16) for k in (1, 3, 5)]
        return np.flatnonzero((np.abs(part - colour).sum(-1) <= 6).any(0))

    each = part.shape[1] / 4  # four slices hold something
    middle = columns("midline")
    assert len(middle) == 4 and middle / each % 1 == pytest.approx(0.5, abs=0.02)
    lesion = columns("lesion") / each % 1
    assert 0 < lesion.min() and lesion.max() < 0.45  # the patient's right is on the left
    assert columns("atlas").size  # drawn last but one, on top of the mask's, which is the same here
    assert (tmp_path / "p7.png").read_bytes() == (qc(tmp_path / "again.png"), (tmp_path / "again.png").read_bytes())[1]
