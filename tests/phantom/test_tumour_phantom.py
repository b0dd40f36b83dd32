"""Phantoms with brain tumours: each kind in its place, bright where it should be, and the same for the same seed."""

import csv
from pathlib import Path

import numpy as np
import pytest

from tss.data import nifti
from tss.errors import InputError
from tss.phantom.individual_head import MATTER, make_subject
from tss.phantom.tumour_phantom import TYPES, make_tumour_patient, make_tumours, render_tumour_head, weighted

SHOWN = 0.9  # share of tumour from which a voxel counts as nothing else


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    return make_tumours(tmp_path_factory.mktemp("tumours"), 3, seed=3)


@pytest.fixture(scope="module")
def rows(table):
    with open(table, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def drawn():
    """The mean head without its position: kind -> head, three sequences, share of tumour, world mm where that is."""
    subject, made = make_subject(), {}
    for kind in TYPES:
        image, tumour = render_tumour_head(subject, kind, np.random.default_rng(1))
        made[kind] = subject, image, tumour, world(subject, tumour > SHOWN)
    return made


def world(subject, where: np.ndarray) -> np.ndarray:
    """World mm (N, 3) of the voxels of the mean head's grid that are True."""
    affine = subject.head.affine
    return np.argwhere(where) @ affine[:3, :3].T + affine[:3, 3]


@pytest.mark.slow
def test_the_table_names_files_that_are_there_and_deals_types_in_turn(table, rows):
    assert table.read_text().splitlines()[0] == "patient,t1,flair,t1ce,type,tumour"
    assert [(row["patient"], row["type"]) for row in rows] == [
        ("t001", "meningioma"), ("t002", "glioma"), ("t003", "pituitary")]  # fmt: skip
    assert all((table.parent / row[name]).is_file() for row in rows for name in ("t1", "flair", "t1ce", "tumour"))
    assert len(list((table.parent / "scans").iterdir())) == 12


def test_masks_have_a_tumour_s_volume_and_its_scans_grid(table, rows):
    most = {"meningioma": 120, "glioma": 200, "pituitary": 15}  # ml: the largest radii, with their oedema
    for row in rows:
        scans = {name: nifti.load(table.parent / row[name]) for name in ("t1", "flair", "t1ce", "tumour")}
        assert len({scan.data.shape for scan in scans.values()}) == 1
        assert all(np.array_equal(scan.affine, scans["t1"].affine) for scan in scans.values())
        mask = scans["tumour"].data
        assert set(np.unique(mask)) == {0, 1}
        ml = mask.sum() * np.prod(nifti.voxel_sizes(scans["t1"].affine)) / 1000
        assert 0.7 < ml < most[row["type"]], row["type"]


def test_contrast_agent_brightens_what_leaks_and_not_white_matter(table, rows):
    for row in rows:
        t1, t1ce, mask = (nifti.load(table.parent / row[name]).data for name in ("t1", "t1ce", "tumour"))
        ratio = t1ce[mask > 0] / t1[mask > 0].clip(1)
        least = {"meningioma": 1.8, "glioma": 1.4, "pituitary": 1.6}[row["type"]]
        assert np.percentile(ratio, 90) > least, row["type"]
    before, _, after = weighted(["white", "oedema", "necrosis", "glioma", "adenoma", "meningioma"])
    assert np.allclose((after / before)[:3], 1)
    glioma, adenoma, meningioma = after[3:] / after[0]
    assert 1.2 < adenoma < meningioma and 1.2 < glioma < meningioma


def test_a_meningioma_touches_the_brain_s_surface(drawn):
    subject, image, tumour, places = drawn["meningioma"]
    before, _, after = weighted(["meningioma"])[:, 0]
    solid = np.isclose(image[0], before, rtol=0.01) & np.isclose(image[2], after, rtol=0.01) & (tumour > SHOWN)
    assert solid.sum() > 1000
    surface = np.abs(subject.head.hull) < 2
    assert solid.reshape(-1)[subject.head.inside][surface].sum() > 20
    assert places[:, 2].max() > -20


def test_a_glioma_is_a_bright_ring_round_a_dark_core_in_the_white_matter_of_one_hemisphere(drawn):
    subject, image, tumour, places = drawn["glioma"]
    inside = tumour.reshape(-1)[subject.head.inside]
    white = subject.matter[MATTER.index("white")] > 0.9
    assert (inside > SHOWN).sum() > 1000 and white[inside > SHOWN].mean() > 0.5
    middle = places.mean(axis=0)
    core = np.abs(image[0] - weighted(["necrosis"])[0, 0]) < 0.01
    core &= np.isclose(image[2], image[0]) & (tumour > SHOWN)
    ring = (image[2] > 1.3 * image[0]) & (tumour > SHOWN)
    assert np.linalg.norm(world(subject, ring).mean(0) - world(subject, core).mean(0)) < 8  # one lies round the other
    solid = world(subject, ring | core)
    assert len(set(np.sign(solid[:, 0]))) == 1 and abs(middle[0]) > 9


def test_a_pituitary_tumour_lies_in_the_midline_at_the_base(drawn):
    _, _, _, places = drawn["pituitary"]
    x, y, z = places.mean(axis=0)
    assert abs(x) < 6 and -6 < y < 14 and -35 < z < -15
    assert np.ptp(places, axis=0).max() < 2 * 13 * 1.15 + 1


def test_oedema_is_bright_on_flair_and_dark_on_t1(drawn):
    subject, image, tumour, _ = drawn["glioma"]
    t1, flair, after = weighted(["oedema"])[:, 0]
    white = weighted(["white"])[:, 0]
    assert flair > 1.3 * white[1] and t1 < white[0]
    bright = (tumour > SHOWN) & (np.abs(image[1] / flair - 1) < 0.01) & (np.abs(image[2] / after - 1) < 0.01)
    assert bright.sum() > 500


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files_and_another_seed_others(table, rows, drawn, tmp_path):
    again = make_tumour_patient(tmp_path, "t003", "pituitary", np.random.default_rng([3, 2]))
    assert again == rows[2]
    for name in ("t1", "flair", "t1ce", "tumour"):
        assert (tmp_path / again[name]).read_bytes() == (table.parent / rows[2][name]).read_bytes(), name
    subject, _, tumour, _ = drawn["pituitary"]
    assert not np.array_equal(render_tumour_head(subject, "pituitary", np.random.default_rng(2))[1], tumour)


def test_no_patients_are_refused(tmp_path):
    with pytest.raises(InputError, match="^a cohort needs at least one patient with a tumour, not 0$"):
        make_tumours(tmp_path, 0, seed=0)
    assert not list(tmp_path.iterdir())
