"""Quality figures against values worked out by hand, flags at their limits, the page."""

import numpy as np
import pytest

from tss import quality
from tss.nifti import Volume


def test_dice_by_hand():
    one, other = np.array([1, 1, 1, 0], bool), np.array([0, 1, 1, 1], bool)
    assert quality.dice(one, other) == pytest.approx(2 * 2 / 6)
    assert quality.dice(one & False, other & False) == 0


def test_similarity_is_one_where_one_scan_determines_the_other_and_nought_where_they_are_unrelated():
    rng = np.random.default_rng(0)
    fixed = rng.integers(0, 20, 20_000).astype(float)
    assert quality.similarity(fixed, (fixed - 10) ** 2) == pytest.approx(1, abs=1e-6)
    assert quality.similarity(fixed, rng.normal(size=20_000)) < 0.01
    assert quality.similarity(np.array([0.0, 0, 1, 1]), np.array([0.0, 2, 2, 4])) == pytest.approx(0.5, abs=0.02)


def test_turn_and_size():
    angle = np.radians(30)
    affine = np.eye(4)
    affine[:2, :2] = 1.2 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    affine[2, 2] = 1.2
    assert quality.turn_deg(affine) == pytest.approx(30)
    assert quality.size(affine) == pytest.approx(1.2)
    assert quality.turn_deg(np.diag([-1.0, 1, 1, 1])) == 180


def test_coverage_by_hand():
    mask = np.zeros((40, 20, 20), bool)
    mask[10:30] = True  # x from 10 to 29; the scan, 2 mm a voxel and moved by 4 mm, shows x from 3 to 22.99
    scan = Volume(np.ones((10, 40, 40), np.float32), np.diag([2.0, 1, 1, 1]))
    world = np.eye(4)
    world[:3, 3] = (4, -5, -5)
    assert quality.coverage(scan, world, mask, np.eye(4)) == pytest.approx(13 / 20, abs=0.01)


def test_a_sound_patient_has_no_flags_and_each_limit_has_its_sentence():
    sound = {name: (low + high) / 2 for name, (low, high, _) in quality.LIMITS.items()}
    assert quality.flags(sound) == []
    assert quality.flags(sound | {"brain_ml": 300}) == [
        "brain mask of 300 ml: part of the brain is missing, or more than brain is in it"]
    assert quality.flags(sound | {"flair_coverage": 0.5})[0].startswith("the FLAIR shows 50% of the brain")
    assert len(quality.flags({name: -1 for name in quality.LIMITS})) == len(quality.LIMITS)


def test_page_puts_failed_patients_first_and_escapes_what_it_is_given():
    record = {"status": "ok", "reason": "", "flags": [], "figures": {"brain_ml": 1400.0}}
    page = quality.index_page([record | {"patient": "good"}, record | {"patient": "odd", "flags": ["a < b"]},
                               record | {"patient": "bad", "status": "failed", "reason": "no <brain>", "figures": {}}])
    assert page.index(">bad<") < page.index(">odd<") < page.index(">good<")
    assert "1 ok, 1 flagged, 1 failed" in page
    assert "no &lt;brain&gt;" in page and "a &lt; b" in page and 'src="good.png"' in page and "bad.png" not in page
