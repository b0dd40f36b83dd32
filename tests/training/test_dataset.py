import shutil

import numpy as np
import pytest
import torch

from tss.data.prepared import read_prepared
from tss.data.tasks import TUMOURS
from tss.errors import InputError
from tss.training.dataset import Split, batches, load_split
from tss.training.phases import build_model

GRID = (32, 32, 4)
CPU = torch.device("cpu")


def test_hemispheres_and_labels_of_a_split(tiny_data):
    patients = read_prepared(tiny_data)
    split = load_split(tiny_data, patients, "stroke", "val", GRID)
    assert split.hemispheres.shape == (20, 3, 4, 32, 16) and split.hemispheres.dtype == torch.float16
    first, second = split.samples[:2]
    assert (first.patient, first.side, second.side) == ("p18", "left", "right")
    both = np.load(tiny_data / "hemispheres" / "p18.npy")
    assert torch.equal(split.hemispheres[0], torch.from_numpy(both[0]))
    assert torch.equal(split.hemispheres[1], torch.from_numpy(both[1]))
    assert split.labels[:2].tolist() == [1.0, 0.0]  # p18: left


@pytest.mark.parametrize(("damage", "message"), [
    (lambda path: path.unlink(), "p00.npy is missing or damaged.*Delete .*p00.json and run run_preprocess.py again"),
    (lambda path: path.write_bytes(path.read_bytes()[:500]), "p00.npy is missing or damaged"),
    (lambda path: path.write_text("no array"), "p00.npy is missing or damaged"),
    (lambda path: np.save(path, np.zeros((2, 3, 4, 32, 8), np.float16)), r"p00.npy has the shape \(2, 3, 4, 32, 8\)"),
    (lambda path: np.save(path, np.zeros((2, 3, 4, 32, 16), np.float16)), "p00.npy: the left hemisphere is empty"),
    (lambda path: np.save(path, np.full((2, 3, 4, 32, 16), np.nan, np.float16)), "empty or not finite"),
    (lambda path: np.save(path, np.array([{}]), allow_pickle=True), "p00.npy is missing or damaged"),
])  # fmt: skip
def test_damaged_hemispheres_are_refused(tiny_data, tmp_path, damage, message):
    shutil.copytree(tiny_data, tmp_path / "data")
    damage(tmp_path / "data" / "hemispheres" / "p00.npy")
    with pytest.raises(InputError, match=message):
        load_split(tmp_path / "data", read_prepared(tmp_path / "data"), "stroke", "train", GRID)


def test_batches_follow_the_order_and_keep_the_last_single_one(tiny_data):
    split = load_split(tiny_data, read_prepared(tiny_data), "tss<3h", "val", GRID)
    order = [3, 1, 2, 9, 0]
    got = list(batches(split, order, 2, CPU))
    assert [len(labels) for _, labels in got] == [2, 2, 1]
    assert torch.equal(torch.cat([inputs for inputs, _ in got]), split.hemispheres[order].float())


def test_a_single_slice_of_a_tumour_that_is_left_over_joins_the_batch_before(tiny_data):
    """49 slices in batches of 16: BatchNorm has nothing to average over in a map of one pixel."""
    slices = torch.rand(49, 3, 32, 32)
    split = Split([], slices, torch.zeros(49))
    got = list(batches(split, range(49), 16, CPU))
    assert [len(labels) for _, labels in got] == [16, 16, 17]
    assert torch.equal(torch.cat([inputs for inputs, _ in got]), slices)
    assert [len(labels) for _, labels in batches(Split([], slices[:1], torch.zeros(1)), range(1), 16, CPU)] == [1]
    network = build_model("2d", 4, (32, 32, 1), False, TUMOURS["2d"], 3).train()
    for inputs, _ in got:
        network(inputs)
