import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tss.data.files import write_whole
from tss.data.prepared import read_prepared
from tss.data.tasks import TUMOURS
from tss.errors import InputError
from tss.training.dataset import Split, batches, load_split
from tss.training.phases import build_model
from tss.training.train import order_of_epoch

GRID = (32, 32, 4)
CPU = torch.device("cpu")


def test_hemispheres_and_labels_of_a_split(tiny_data):
    patients = read_prepared(tiny_data)
    split = load_split(tiny_data, patients, "stroke", "val", GRID)
    assert split.hemispheres.shape == (20, 3, 4, 32, 16) and split.hemispheres.nbytes == 20 * 3 * 4 * 32 * 16 * 2
    first, second = split.samples[:2]
    assert (first.patient, first.side, second.side) == ("p18", "left", "right")
    both = np.load(tiny_data / "hemispheres" / "p18.npy")
    assert torch.equal(split.hemispheres[0], torch.from_numpy(both[0]))
    assert torch.equal(split.hemispheres[1], torch.from_numpy(both[1]))
    assert split.labels[:2].tolist() == [1.0, 0.0]  # p18: left


def test_hemispheres_on_disk_are_indexed_like_a_tensor(tiny_data):
    stored = load_split(tiny_data, read_prepared(tiny_data), "stroke", "val", GRID).hemispheres
    files = [np.load(tiny_data / "hemispheres" / f"p{number}.npy") for number in range(18, 28)]
    whole = torch.from_numpy(np.concatenate(files))
    assert (len(stored), stored.ndim, stored.shape) == (20, 5, tuple(whole.shape))
    for rows in (3, -1, slice(2, 5), slice(None), [7, 0, 7], torch.tensor([19, 4]), whole[:, 0, 0, 0, 0] > 0.4):
        assert torch.equal(stored[rows], whole[rows]) and stored[rows].stride() == whole[rows].stride()
    assert torch.equal(stored[:, 2, 1], whole[:, 2, 1]) and torch.equal(stored[5, :, 2], whole[5, :, 2])
    parts = list(stored.split(8))
    assert [len(part) for part in parts] == [8, 8, 4] and torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(("damage", "message"), [
    (lambda path: path.unlink(), "p00.npy is missing or damaged.*Delete .*p00.json and run run_preprocess.py again"),
    (lambda path: path.write_bytes(path.read_bytes()[:500]), "p00.npy is missing or damaged"),
    (lambda path: path.write_text("no array"), "p00.npy is missing or damaged"),
    (lambda path: path.write_bytes(path.read_bytes().replace(b"}", b"(", 1)), "p00.npy is missing or damaged"),
    (lambda path: np.save(path, np.zeros((2, 3, 4, 32, 8), np.float16)), r"p00.npy has the shape \(2, 3, 4, 32, 8\)"),
    (lambda path: np.save(path, np.array([{}]), allow_pickle=True), "p00.npy is missing or damaged"),
])  # fmt: skip
def test_damaged_files_are_refused_before_anything_is_trained(tiny_data, tmp_path, damage, message):
    shutil.copytree(tiny_data, tmp_path / "data")
    damage(tmp_path / "data" / "hemispheres" / "p00.npy")
    with pytest.raises(InputError, match=message):
        load_split(tmp_path / "data", read_prepared(tmp_path / "data"), "stroke", "train", GRID)


@pytest.mark.parametrize(("value", "message"), [
    (0, "the right hemisphere is empty or not finite. Delete .*p00.json"), (np.nan, "empty or not finite"),
    (np.inf, "empty or not finite"), (-0.01, "values outside 0 to 1"), (1.001, "values outside 0 to 1"),
])  # fmt: skip
def test_voxels_that_cannot_be_are_refused_when_they_are_read(tiny_data, tmp_path, value, message):
    shutil.copytree(tiny_data, tmp_path / "data")
    file = tmp_path / "data" / "hemispheres" / "p00.npy"
    hemispheres = np.load(file)
    hemispheres[1, slice(None) if value == 0 else 2] = value
    np.save(file, hemispheres)
    split = load_split(tmp_path / "data", read_prepared(tmp_path / "data"), "stroke", "train", GRID)
    assert len(split.hemispheres[[0, 2, 3]]) == 3  # the others
    for rows in (1, slice(0, 2), torch.tensor([3, 1])):
        with pytest.raises(InputError, match=message):
            split.hemispheres[rows]


def test_all_of_0_to_1_is_taken_and_zero_has_no_sign(tiny_data, tmp_path):
    shutil.copytree(tiny_data, tmp_path / "data")
    file = tmp_path / "data" / "hemispheres" / "p00.npy"
    hemispheres = np.zeros_like(np.load(file))
    hemispheres[:, 0, 0, 0, :3] = [1, -0.0, 6e-8]
    np.save(file, hemispheres)
    split = load_split(tmp_path / "data", read_prepared(tmp_path / "data"), "stroke", "train", GRID)
    assert split.hemispheres[0].max() == 1


def test_a_file_that_changes_while_it_is_learned_from_is_noticed(tiny_data, tmp_path):
    shutil.copytree(tiny_data, tmp_path / "data")
    split = load_split(tmp_path / "data", read_prepared(tmp_path / "data"), "stroke", "train", GRID)
    split.hemispheres[:2]
    file = tmp_path / "data" / "hemispheres" / "p00.npy"
    write_whole(file, lambda beside: np.save(beside, np.load(file)[:, ::-1]))
    with pytest.raises(InputError, match="p00.npy has changed since this training began.*again with --overwrite"):
        split.hemispheres[:2]
    assert len(split.hemispheres[2:]) == 34


def test_batches_follow_the_order_and_keep_the_last_single_one(tiny_data):
    split = load_split(tiny_data, read_prepared(tiny_data), "tss<3h", "val", GRID)
    order = [3, 1, 2, 9, 0]
    got = list(batches(split, order, 2, CPU))
    assert [len(labels) for _, labels in got] == [2, 2, 1]
    assert torch.equal(torch.cat([inputs for inputs, _ in got]), split.hemispheres[order].float())


def test_the_order_of_an_epoch_differs_by_epoch_phase_and_seed_and_is_the_same_again():
    def order(seed=0, phase=1, epoch=1):
        run = SimpleNamespace(options=SimpleNamespace(seed=seed), phase=SimpleNamespace(number=phase))
        return order_of_epoch(run, Split([], torch.zeros(30), torch.zeros(30)), epoch)

    assert sorted(order()) == list(range(30)) and order() == order()
    assert len({tuple(order(*which)) for which in ((0, 1, 1), (1, 1, 1), (0, 2, 1), (0, 1, 2), (1, 1, 2))}) == 5


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
