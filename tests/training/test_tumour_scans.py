"""Tables of brain tumours are checked in words, and scans become slices and volumes whose voxels are known."""

import re

import numpy as np
import pytest
import torch

from tss.data import nifti
from tss.data.hemispheres import CEILING
from tss.data.tasks import Sample
from tss.errors import InputError
from tss.training.tumour_scans import (
    channels_in_words,
    channels_of,
    load_tumours,
    read_tumours,
    scale_to_median,
    types_of,
)

GRID = (8, 8, 6)  # X, Y, Z
SCAN_MM = (18.2, 18.2, 18.2)  # a scanner's; nifti.py takes up to 20


def head(level: float) -> np.ndarray:
    """A box (X, Y, Z) of `level` in air, with one voxel of half that."""
    data = np.zeros((10, 12, 10), np.float32)
    data[2:8, 2:10, 2:8] = level
    data[4, 5, 4] = level / 2
    return data


def tumour() -> np.ndarray:
    mask = np.zeros((10, 12, 10), np.uint8)
    mask[3:7, 3:8, 4:6] = 4  # a part's number, not 1
    return mask


@pytest.fixture
def folder(tmp_path):
    """Three files of scans and a mask that patients may share."""
    affine = np.diag([*SCAN_MM, 1.0])
    for name, level in (("t1", 100), ("flair", 300), ("t1ce", 700)):
        nifti.save(tmp_path / f"{name}.nii.gz", head(level), affine)
    nifti.save(tmp_path / "mask.nii.gz", tumour(), affine)
    nifti.save(tmp_path / "none.nii.gz", np.zeros((10, 12, 10), np.uint8), affine)
    return tmp_path


def write(folder, header, *lines):
    path = folder / "tumours.csv"
    path.write_text("\n".join((header, *lines)) + "\n")
    return path


def refusal(path, model="2d") -> str:
    with pytest.raises(InputError) as caught:
        read_tumours(path, model, 0)
    return str(caught.value)


FOUR = [f"{kind}{n},flair.nii.gz,{kind}" for kind in ("glioma", "meningioma") for n in (1, 2)]
SPLIT = ("val", "train", "val", "train")


def test_types_are_split_evenly_by_patient_and_the_same_for_the_same_seed(folder):
    lines = [f"{kind}{n},flair.nii.gz,{kind}" for kind in ("pituitary", "glioma") for n in range(10)]
    path = write(folder, "patient,flair,type", *lines)
    patients = read_tumours(path, "2d", 1)
    assert types_of(patients) == ["glioma", "pituitary"]
    for kind in types_of(patients):
        splits = [p.split for p in patients if p.row["type"] == kind]
        assert (splits.count("train"), splits.count("val")) == (8, 2)
    assert [p.split for p in read_tumours(path, "2d", 1)] == [p.split for p in patients]
    assert [p.split for p in read_tumours(path, "2d", 2)] != [p.split for p in patients]


def test_a_split_in_the_table_is_kept(folder):
    path = write(folder, "patient,flair,type,split", *(f"{line},{s}" for line, s in zip(FOUR, SPLIT, strict=True)))
    assert [p.split for p in read_tumours(path, "2d", 0)] == ["val", "train", "val", "train"]


@pytest.mark.parametrize(("model", "header", "missing"), [
    ("2d", "patient,flair", "type"), ("3d", "patient,flair,type", "tumour"), ("2d", "flair,type", "patient"),
    ("2d", "patient,type", "t1, flair or t1ce (at least one of them)")])  # fmt: skip
def test_a_missing_column_is_named(folder, model, header, missing):
    path = write(folder, header, ",".join("x" for _ in header.split(",")))
    assert refusal(path, model).startswith(f"{path}: column {missing} is missing; the header has ")


@pytest.mark.parametrize(
    ("model", "line", "problem"),
    [
        ("2d", "a,no.nii.gz,,glioma,,", "t1 is 'no.nii.gz', which does not exist"),
        ("3d", "a,,flair.nii.gz,,no.nii.gz,", "tumour is 'no.nii.gz', which does not exist"),
        ("2d", "a,,,glioma,,", "t1, flair and t1ce are all empty; give at least one scan"),
        ("2d", "a,t1.nii.gz,,,,", "type is empty; --model 2d needs it"),
        ("3d", "a,t1.nii.gz,,glioma,,", "tumour is empty; --model 3d needs it"),
        ("2d", "a,t1.nii.gz,,glioma,,test", "split is 'test'; write train or val, or leave it empty"),
        ("2d", "a/b,t1.nii.gz,,glioma,,", "patient 'a/b' cannot name a file; use letters, digits, '-', '_' and '.'"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(folder, model, line, problem):
    path = write(folder, "patient,t1,flair,type,tumour,split", line)
    assert refusal(path, model) == f"{path} cannot be used; correct these cells:\n  line 2: {problem}"


def test_one_type_is_nothing_to_tell_apart(folder):
    path = write(folder, "patient,flair,type", *(f"p{n},flair.nii.gz,glioma" for n in range(5)))
    assert refusal(path) == (
        f"{path}: every patient has the type glioma; there is nothing to classify. Add patients of another "
        "type; Cheng 2015 has three."
    )


def test_each_split_needs_each_type(folder):
    lines = [f"{line},{split}" for line, split in zip(FOUR, ("train", "val", "train", "train"), strict=True)]
    path = write(folder, "patient,flair,type,split", *lines)
    assert refusal(path).startswith(f"{path}: no patient with meningioma in split 'val'. Add patients, at least ")
    path = write(folder, "patient,flair,tumour,split", "a,flair.nii.gz,mask.nii.gz,train")
    assert refusal(path, "3d").startswith(f"{path}: no patient in split 'val'. ")


def test_a_missing_image_is_replaced_by_flair_then_t1ce_then_t1(folder):
    path = write(folder, "patient,t1,flair,t1ce,type,split",
                 "a,t1.nii.gz,flair.nii.gz,t1ce.nii.gz,x,train", "b,t1.nii.gz,flair.nii.gz,,x,val",
                 "c,t1.nii.gz,,t1ce.nii.gz,y,train", "d,t1.nii.gz,,,y,val", "e,,,t1ce.nii.gz,y,val",
                 "f,,,t1ce.nii.gz,y,val")  # fmt: skip
    patients = read_tumours(path, "2d", 0)
    assert [channels_of(p) for p in patients[:5]] == [
        ["t1", "flair", "t1ce"],
        ["t1", "flair", "flair"],
        ["t1", "t1ce", "t1ce"],
        ["t1"] * 3,
        ["t1ce"] * 3,
    ]
    assert channels_in_words(patients).startswith("t1ce, t1ce, t1ce in 2 patients; t1, flair, t1ce in 1 patients; ")


def two(folder, *, masks=("mask.nii.gz", "mask.nii.gz")):
    """A patient of either split and either type, and the same again."""
    lines = [
        f"{kind}_{split},t1.nii.gz,flair.nii.gz,t1ce.nii.gz,{kind},{mask},{split}"
        for kind, mask in zip("ab", masks, strict=True)
        for split in ("train", "val")
    ]
    return write(folder, "patient,t1,flair,t1ce,type,tumour,split", *lines)


def test_slices_are_the_file_s_own_and_those_that_the_mask_names(folder):
    grid = (20, 24, 20)  # 9.1 x 9.08 mm: about half a scan's voxel
    split = load_tumours(read_tumours(two(folder, masks=("mask.nii.gz", "")), "2d", 0), "2d", grid, "train")
    masked, whole = ["slice 4", "slice 5"], [f"slice {z}" for z in range(2, 8)]
    assert split.samples == [Sample("a_train", name, 0) for name in masked] + [
        Sample("b_train", name, 1) for name in whole]  # fmt: skip
    images, labels = split[1], split[2]
    assert images.shape == (8, 3, 24, 20) and images.dtype == torch.float16  # N, C, Y, X
    assert labels.dtype == torch.int64 and labels.tolist() == [0, 0] + [1] * 6
    # The head's level is 1 / CEILING in every channel, whatever it was in the file; the box is in the middle of the
    # frame, 12 of 20 and 16 of 24 voxels large (6 and 8 of the scan's), less its blurred border.
    level = 1 / CEILING["flair"]
    assert torch.allclose(images[1, :, 5:19, 5:15].float(), torch.tensor(level), atol=2e-3)
    assert images[:, :, :3].max() == 0 and images[:, :, :, :3].max() == 0
    assert images[0].float().amin(0)[5:19, 5:15].min() < 0.75 * level  # the dark voxel, in slice 4 and not 5
    assert torch.equal(images[0], images[4]) and torch.equal(images[0, 0], images[0, 2])


def test_a_patient_with_few_slices_is_a_patient_in_2d(folder):
    """As Cheng 2015 has them: some have one slice."""
    for name in ("flair", "mask"):
        scan = nifti.load(folder / f"{name}.nii.gz")
        nifti.save(folder / f"one_{name}.nii.gz", scan.data[:, :, 5:6], scan.affine)
    lines = [
        f"{kind}_{split},one_flair.nii.gz,{kind},one_mask.nii.gz,{split}" for kind in "ab" for split in ("train", "val")
    ]
    path = write(folder, "patient,flair,type,tumour,split", *lines)
    split = load_tumours(read_tumours(path, "2d", 0), "2d", (20, 24, 20), "train")
    assert split.samples == [Sample("a_train", "slice 0", 0), Sample("b_train", "slice 0", 1)]
    with pytest.raises(InputError, match="fewer than 5 voxels along one axis"):
        load_tumours(read_tumours(path, "3d", 0), "3d", (20, 24, 20), "train")


def test_volumes_and_masks_lie_in_the_grid_around_the_head(folder):
    grid = (10, 12, 10)  # voxels of 18.2 x 18.17 x 18.2 mm: the scan's own, so that each value is known
    split = load_tumours(read_tumours(two(folder), "3d", 0), "3d", grid, "val")
    assert split.samples == [Sample("a_val", "whole", 40), Sample("b_val", "whole", 40)]  # 4 x 5 x 2 voxels
    images, masks = split[1], split[2]
    assert images.shape == (2, 3, 10, 12, 10) and images.dtype == torch.float16  # N, C, Z, Y, X
    assert masks.shape == (2, 10, 12, 10) and masks.dtype == torch.uint8
    assert np.array_equal(masks[0].numpy().T, tumour() > 0)
    expected = head(1 / CEILING["flair"])
    assert np.abs(images[0, 1].float().numpy().T - expected).max() < 0.02


def test_an_empty_mask_and_scans_apart_are_refused(folder):
    patients = read_tumours(two(folder, masks=("none.nii.gz", "mask.nii.gz")), "3d", 0)
    said = f"{folder / 'none.nii.gz'} has no tumour where {folder / 't1.nii.gz'} has the head"
    with pytest.raises(InputError, match=re.escape(said)):
        load_tumours(patients, "3d", GRID, "train")
    away = np.diag([*SCAN_MM, 1.0])
    away[:3, 3] = 5000
    nifti.save(folder / "flair.nii.gz", head(300), away)
    with pytest.raises(InputError, match="flair.nii.gz shows nothing where .*t1.nii.gz has the head. All scans of a"):
        load_tumours(read_tumours(two(folder), "3d", 0), "3d", GRID, "train")


def test_intensities_are_in_units_of_the_head_s_median():
    scan = np.array([0, 0, 0, 0, 0, 10, 10, 12, 200], np.float32)  # mean 25.8: only the last is above it
    assert scale_to_median(scan)[-1] == pytest.approx(1 / CEILING["flair"])
    scan = np.array([0, 0, 0, 0, 90, 100, 110, 1000], np.float32)
    assert scale_to_median(scan)[-1] == pytest.approx(min(1, 1 / CEILING["flair"]))
    assert not scale_to_median(np.zeros((3, 3))).any()
