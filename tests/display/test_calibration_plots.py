"""Calibration and decision curves, read back from matplotlib's own objects."""

import pytest

from tss.display import calibration_plots


def test_calibration_has_its_intervals_and_the_decision_curve_its_two_rules(tmp_path, drawn):
    points = [
        {"n": 5, "predicted": 0.2, "observed": 0.4, "observed_ci": (0.1, 0.8)},
        {"n": 5, "predicted": 0.7, "observed": 0.6, "observed_ci": (0.2, 0.9)},
    ]
    calibration_plots.draw_calibration(tmp_path / "a.png", {"net": points}, "title")
    segments = drawn[0].axes[0].collections[0].get_segments()
    assert [segment[:, 1].tolist() for segment in segments] == [pytest.approx([0.1, 0.8]), pytest.approx([0.2, 0.9])]
    assert [segment[:, 0].tolist() for segment in segments] == [[0.2, 0.2], [0.7, 0.7]]  # predicted
    assert [line.get_ydata().tolist() for line in drawn[0].axes[0].lines if line.get_marker() == "s"] == [[0.4, 0.6]]
    calibration_plots.draw_decision(
        tmp_path / "b.png",
        {"net": [{"threshold": t, "net_benefit": 0.3 - t, "treat_all": 0.4 - 2 * t} for t in (0.1, 0.5, 0.9)]},
        "title",
    )
    named = {line.get_label(): list(line.get_ydata()) for line in drawn[1].axes[0].lines}
    assert named["calling everybody positive"] == pytest.approx([0.2, -0.6, -1.4])
    assert named["net"] == pytest.approx([0.2, -0.2, -0.6]) and named["calling nobody positive"] == [0, 0]
    assert drawn[1].axes[0].get_ylim()[0] == calibration_plots.LEAST_BENEFIT
