"""The frozen part computed once gives the same losses and weights as computing it in every step."""

from types import SimpleNamespace

import pytest
import torch

from tss.errors import InputError
from tss.training import feature_cache
from tss.training.dataset import Split, batches
from tss.training.device import at_precision
from tss.training.epoch import LOSS, build_optimizer, predict, train_one_epoch
from tss.training.feature_cache import AfterFrozen, cache_features
from tss.training.phases import FROZEN, build_model, freeze

CPU = torch.device("cpu")


@pytest.fixture
def split():
    return make_split(width=16)


def make_split(width):
    torch.manual_seed(0)
    return Split([], torch.rand(6, 3, 6, 32, width).half(), torch.tensor([0.0, 1, 0, 1, 1, 0]))


def trained(model, split, once, precision, attention, say=print):
    torch.manual_seed(1)
    d, h, w = split.hemispheres.shape[2:]
    network = build_model(model, 4, [2 * w, h, d], attention)
    freeze(network, FROZEN[model])
    learner = network
    if once:
        learner, (split,) = cache_features(network, [split], CPU, precision, say)
        assert isinstance(learner, AfterFrozen)
    optimizer = build_optimizer(network, 1e-3, 1e-2)
    losses = [
        train_one_epoch(learner, optimizer, LOSS, batches(split, [3, 1, 5, 0, 2, 4], 4, CPU), precision)
        for _ in range(3)
    ]
    return losses, network.state_dict(), predict(learner, split.hemispheres, 4, CPU, precision)


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("model", ["2d", "3d"])
def test_losses_weights_and_outputs_are_those_of_the_direct_way(model, attention, split):
    (losses, weights, outputs), (direct_losses, direct_weights, direct_outputs) = (
        trained(model, split, once, "fp32", attention) for once in (True, False)
    )
    assert losses == pytest.approx(direct_losses, rel=1e-5) and losses[0] != losses[2]
    assert outputs == pytest.approx(direct_outputs, rel=1e-5, abs=1e-5)
    for name, weight in weights.items():
        assert torch.allclose(weight.double(), direct_weights[name].double(), rtol=1e-5, atol=1e-6), name


@pytest.mark.slow
@pytest.mark.parametrize("model", ["2d", "3d"])
def test_bf16_is_kept_as_the_layers_give_it(model):
    split = make_split(width=48)
    network = build_model(model, 4, [96, 32, 6], attention=False)
    freeze(network, FROZEN[model])
    said = []
    _, (kept,) = cache_features(network, [split], CPU, "bf16", said.append)
    with at_precision("bf16", CPU):
        given = network.frozen(split.hemispheres[:2].float())
    assert kept.hemispheres.dtype == given.dtype and torch.equal(kept.hemispheres[:2], given)
    assert str(given.dtype).removeprefix("torch.") in said[0]
    losses, direct = (trained(model, split, once, "bf16", attention=False)[0] for once in (True, False))
    assert losses == pytest.approx(direct, rel=1e-2)


def test_place_and_size_are_said(split):
    network = build_model("3d", 4, [32, 32, 6], attention=False)
    said = []
    _, (kept,) = cache_features(network, [split], CPU, "fp32", said.append)
    assert said == [
        "the features of the frozen layers are computed once: 0.00 GiB of float32, (16, 2, 8, 4) per hemisphere, "
        "kept on cpu"
    ]
    assert kept.hemispheres.shape == (6, 16, 2, 8, 4) and not kept.hemispheres.requires_grad
    assert torch.equal(kept.labels, split.labels)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_hemisphere_in_its_place_of_an_odd_number_too(count, split):
    network = build_model("3d", 4, [32, 32, 6], attention=False)
    freeze(network, FROZEN["3d"])
    some = split._replace(hemispheres=split.hemispheres[:count])
    _, (kept,) = cache_features(network, [some], CPU, "fp32", print)
    assert torch.allclose(kept.hemispheres, network.frozen(some.hemispheres.float()), atol=1e-6)


@pytest.mark.parametrize("short", ["free memory", "our limit"])
@pytest.mark.parametrize("model", ["2d", "3d"])
def test_where_memory_is_short_a_file_without_a_name_holds_the_same_bits(model, short, split, tmp_path, monkeypatch):
    in_memory = trained(model, split, True, "fp32", attention=False)
    monkeypatch.chdir(tmp_path)
    if short == "free memory":
        monkeypatch.setattr(feature_cache, "free_memory", lambda device: 100)
    else:
        monkeypatch.setattr(feature_cache, "MOST", 100)
    said = []
    losses, weights, outputs = trained(model, split, True, "fp32", attention=False, say=said.append)
    assert said[0].endswith("kept in a file without a name in ., gone when this ends") and not list(tmp_path.iterdir())
    assert losses == in_memory[0] and (outputs == in_memory[2]).all()
    assert all(torch.equal(weight, in_memory[1][name]) for name, weight in weights.items())


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_file_gives_back_values_and_memory_format(kind, tmp_path):
    torch.manual_seed(0)
    kept = torch.rand(7, 4, 5, 3).to(kind).movedim(3, 1)  # channels last in memory
    stored = feature_cache.room_for(7, kept[0], tmp_path)
    assert isinstance(stored, feature_cache.StoredFeatures)
    for rows in (slice(0, 2), slice(2, 4), slice(4, 6), slice(5, 7)):
        stored[rows] = kept[rows]
    assert (len(stored), stored.ndim, stored.nbytes) == (7, 4, kept.nbytes)
    for rows in (slice(2, 5), slice(6, 7), torch.tensor([6, 0, 3]), torch.tensor([4])):
        assert torch.equal(stored[rows], kept[rows]) and stored[rows].dtype == kind
        assert stored[rows].stride() == kept[rows].stride()
    assert torch.equal(torch.cat(list(stored.split(4))), kept) and not list(tmp_path.iterdir())


def test_a_full_disk_is_said(split, monkeypatch):
    monkeypatch.setattr(feature_cache, "MOST", 0)
    monkeypatch.setattr(feature_cache.tempfile, "TemporaryFile", lambda dir: open("/dev/full", "r+b", buffering=0))
    with pytest.raises(InputError, match=r"cannot be kept in \.: No space left on device. Free some space there"):
        cache_features(build_model("3d", 4, [32, 32, 6], attention=False), [split], CPU, "fp32", print)


def test_where_nothing_has_room_features_are_computed_in_each_step_and_that_is_said(split, monkeypatch):
    monkeypatch.setattr(feature_cache, "free_memory", lambda device: 100)
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
    said = []
    losses, weights, outputs = trained("3d", split, True, "fp32", attention=False, say=said.append)
    direct_losses, direct_weights, direct_outputs = trained("3d", split, False, "fp32", attention=False)
    assert losses == direct_losses and (outputs == direct_outputs).all()
    assert all(torch.equal(weight, direct_weights[name]) for name, weight in weights.items())
    assert "neither into memory nor into half of the free disk of .: computed again in each step" in said[0]


def test_one_hemisphere_computed_on_demand_has_the_bits_of_the_one_that_was_kept():
    split = make_split(width=64)
    network = build_model("3d", 4, [128, 32, 6], attention=False)
    freeze(network, FROZEN["3d"])
    _, (kept,) = cache_features(network, [split], CPU, "fp32", print)
    lazy = feature_cache.LazyFeatures(network, split.hemispheres, kept.hemispheres[0], CPU, "fp32")
    assert lazy.shape == kept.hemispheres.shape
    for row in range(len(lazy)):
        assert torch.equal(lazy[torch.tensor([row])], kept.hemispheres[[row]])
        assert lazy[torch.tensor([row])][0].stride() == kept.hemispheres[row].stride()


def test_a_gpu_that_is_too_full_leaves_the_features_in_host_memory(split, monkeypatch):
    room = {"cuda": 100, "cpu": 10**9}
    monkeypatch.setattr(feature_cache, "free_memory", lambda device: room[device.type])
    monkeypatch.setattr(
        feature_cache, "frozen_features", lambda network, hemispheres, device, precision: hemispheres.mean((3, 4))
    )
    said = []
    _, (kept,) = cache_features(torch.nn.Identity(), [split], torch.device("cuda"), "fp32", said.append)
    assert kept.hemispheres.device == CPU and said[0].endswith("kept on cpu")
    assert torch.equal(kept.hemispheres, split.hemispheres.mean((3, 4)))
