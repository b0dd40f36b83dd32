"""Symmetry: a field on one side goes, a lesion stays, on FLAIR too where it is large and faint."""

import numpy as np
import pytest

from tss.data.hemispheres import CHANNELS
from tss.preprocessing import symmetry

SHAPE, SIZES = (56, 64, 20), np.array([3.0, 3.0, 6.0])
X, Y, Z = np.meshgrid(*((2 * np.arange(n) + 1) / n - 1 for n in SHAPE), indexing="ij")  # midline at 0
BRAIN = X**2 + Y**2 + Z**2 < 0.9
LESION = (X - 0.45) ** 2 + (Y + 0.1) ** 2 + Z**2 < 0.12  # 13 % of the brain, on the right
TISSUE = 92 + 10 * np.sin(9 * np.abs(X)) * np.cos(8 * Y) * np.cos(4 * Z)
FIELD = 0.05 * X - 0.04 * X * Y + 0.03 * X * Z


def volumes(dwi: float = 1, flair: float = 1, log_field: np.ndarray | float = 0) -> dict[str, np.ndarray]:
    """The same symmetric tissue in each channel, with a lesion of so many times its brightness, noise and a field."""
    rng = np.random.default_rng(3)
    lesion = {"dwi": dwi, "t2w": 1, "flair": flair}
    return {
        name: ((TISSUE * np.where(LESION, lesion[name], 1) + rng.normal(0, 2, SHAPE)) * np.exp(log_field)).astype("f4")
        for name in CHANNELS
    }


def over_mirror(volume: np.ndarray) -> float:
    return float(volume[LESION].mean() / volume[::-1][LESION].mean())


def test_a_field_that_makes_one_side_brighter_goes():
    balanced = symmetry.balance(volumes(log_field=FIELD), BRAIN, SIZES)
    for name, clean in volumes().items():
        left = np.log(balanced[name] / clean)[BRAIN]
        assert balanced[name].dtype == np.float32 and left.std() < 0.15 * FIELD[BRAIN].std()
        assert over_mirror(balanced[name]) == pytest.approx(1, abs=0.003)


def test_what_both_sides_share_stays():
    given = volumes(log_field=FIELD + 0.2 * Y + 0.1 * X**2)
    balanced = symmetry.balance(given, BRAIN, SIZES)
    for name in CHANNELS:
        both = given[name] * given[name][::-1]
        assert balanced[name] * balanced[name][::-1] == pytest.approx(both, rel=1e-5)


def test_the_field_does_not_jump_at_the_midline():
    given = volumes(log_field=np.where(X < 0, 0.04, 0))
    gain = symmetry.balance(given, BRAIN, SIZES)["t2w"] / given["t2w"]
    assert np.abs(gain[27:29] - 1).max() < 0.006 and gain[BRAIN].min() < 0.985


@pytest.mark.parametrize("flair", [1.03, 1.07, 1.3])
def test_a_large_lesion_keeps_its_contrast(flair):
    """Of a difference of 3 or 7 % over an eighth of the brain FLAIR alone cannot tell that it is no field; DWI can."""
    clean = volumes(dwi=1.8, flair=flair)
    balanced = symmetry.balance(volumes(dwi=1.8, flair=flair, log_field=FIELD), BRAIN, SIZES)
    for name in CHANNELS:
        assert over_mirror(balanced[name]) == pytest.approx(over_mirror(clean[name]), rel=0.005)
    if flair < 1.1:
        unseen = symmetry.balance(volumes(dwi=1, flair=flair), BRAIN, SIZES)
        assert over_mirror(unseen["flair"]) - 1 < 0.9 * (over_mirror(clean["flair"]) - 1)


def test_a_cortex_folded_in_its_own_way_is_no_lesion():
    """In two thirds of 224 blocks DWI differs by 30 % from its mirror image, up here and down there: no lesion."""
    few = (np.abs(X) < 0.25) & (np.abs(Y) < 0.12) & (np.abs(Z) < 0.2)
    given = volumes(log_field=FIELD)
    folds = np.choose(np.indices(SHAPE).sum(0) % 3, (0, 0.3, -0.3)) * (X < 0)
    given["dwi"] = (given["dwi"] * np.exp(folds)).astype("f4")
    field = np.log(given["t2w"] / symmetry.balance(given, few, SIZES)["t2w"])[few]
    assert np.corrcoef(field, FIELD[few])[0, 1] > 0.9


def test_where_one_side_is_darker_altogether_nothing_is_told():
    given = volumes(log_field=np.where(X < 0, 0.3, 0))
    balanced = symmetry.balance(given, BRAIN, SIZES)
    assert all(np.array_equal(balanced[name], given[name]) for name in ("t2w", "flair"))
    assert np.log(balanced["dwi"] / given["dwi"]).std() < 0.01


@pytest.mark.parametrize("where", [X < 0, (np.abs(X) < 0.2) & (Y < -0.85) & (Z > 0), X > 2])
def test_what_has_no_mirror_image_is_left_alone(where):
    given = volumes(log_field=FIELD)
    balanced = symmetry.balance(given, BRAIN & where, SIZES)
    assert all(np.array_equal(balanced[name], given[name]) for name in CHANNELS)


def test_where_a_sequence_has_no_signal_it_is_not_compared():
    """FLAIR's field of view ends within the brain, on one side: no field, and no matter to the others."""
    given = volumes(log_field=FIELD)
    given["flair"] = np.where((X > 0.3) & (Z > 0.2), 0, given["flair"]).astype("f4")
    balanced = symmetry.balance(given, BRAIN, SIZES)
    seen = BRAIN & (given["flair"] > 0)
    assert np.log(balanced["flair"][seen] / volumes()["flair"][seen]).std() < 0.2 * FIELD[BRAIN].std()
    assert np.isfinite(balanced["flair"]).all()


@pytest.mark.parametrize("step", [1, 2])
def test_any_grid(step):
    """Of pixels half as wide four make a block; what is left over at the ends belongs to none."""
    fine = {name: np.kron(volume, np.ones((step, step, 1), "f4")) for name, volume in volumes(log_field=FIELD).items()}
    brain = np.kron(BRAIN, np.ones((step, step, 1), bool))
    cut = slice(3, None)
    balanced = symmetry.balance({n: v[:, cut, 1:] for n, v in fine.items()}, brain[:, cut, 1:], SIZES / (step, step, 1))
    clean = np.kron(volumes()["dwi"], np.ones((step, step, 1)))[:, cut, 1:]
    left = np.log(balanced["dwi"] / clean)[brain[:, cut, 1:]]
    assert left.std() < 0.15 * FIELD[BRAIN].std()
