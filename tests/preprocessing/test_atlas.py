"""The atlas: found, its skull removed, and where to get one."""

import heads
import numpy as np
import pytest

from tss.data import nifti
from tss.data.files import sha256
from tss.data.nifti import Volume
from tss.errors import InputError
from tss.preprocessing.atlas import find_atlas, lay_out, load_atlas

GRID = (56, 56, 13)


def test_an_atlas_with_skull_is_stripped(atlas):
    shape, sizes = (64, 76, 60), (3.0, 3.0, 3.0)
    affine = heads.grid(shape, sizes)
    affine[0, 3] = -sizes[0] * (shape[0] - 1) / 2
    whole = heads.sample("b0", shape, affine)
    whole[heads.sample("flair", shape, affine) < 1] = 1
    head = lay_out(Volume(whole, affine), GRID)
    stripped, known = head.on_grid > 0, atlas.on_grid > 0
    assert 2 * (stripped & known).sum() / (stripped.sum() + known.sum()) > 0.9


def whole_head(folder, name):
    """A T2w head with skull, in a file, and the mask of its brain."""
    shape, sizes = (64, 76, 60), (3.0, 3.0, 3.0)
    affine = heads.grid(shape, sizes)
    affine[0, 3] = -sizes[0] * (shape[0] - 1) / 2
    brain = heads.sample("atlas", shape, affine)
    nifti.save(folder / name, np.where(brain > 0, brain, 500), affine)  # what surrounds it is as bright on T2w
    return brain > 0, affine


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("t2w.nii.gz", "t2w_mask.nii.gz"),
        ("mni_icbm152_t2_tal_nlin_sym_09a.nii", "mni_icbm152_t1_tal_nlin_sym_09a_mask.nii"),
        ("MNI152_T2_1mm.nii.gz", "MNI152_T1_1mm_brain_mask.nii.gz"),
    ],
)
def test_the_mask_beside_an_atlas_with_skull_says_what_its_brain_is(tmp_path, name, mask):
    brain, affine = whole_head(tmp_path, name)
    with pytest.raises(InputError, match="is a whole head, and its brain is not found.*_mask.nii"):
        load_atlas(tmp_path / name, GRID)
    nifti.save(tmp_path / mask, brain.astype(np.uint8), affine)
    atlas = load_atlas(tmp_path / name, GRID)
    np.testing.assert_array_equal(atlas.brain.data > 0, brain)
    assert atlas.skull == f"by mask {sha256(tmp_path / mask)}"
    nifti.save(tmp_path / "stripped.nii.gz", atlas.brain.data, affine)
    assert load_atlas(tmp_path / "stripped.nii.gz", GRID).skull == "none"


def test_no_atlas_says_where_to_get_one(monkeypatch, tmp_path):
    monkeypatch.delenv("FSLDIR", raising=False)
    with pytest.raises(InputError, match="mni_icbm152_t2_tal_nlin_sym_09a"):
        find_atlas(None)
    standard = tmp_path / "data" / "standard"
    standard.mkdir(parents=True)
    (standard / "MNI152_T2_1mm.nii.gz").write_text("")
    monkeypatch.setenv("FSLDIR", str(tmp_path))
    assert find_atlas(None) == standard / "MNI152_T2_1mm.nii.gz"
