"""Phase 0's batches and errors: the same distortions for the same seed, fixed ones in validation, no label used."""

import numpy as np
import pytest
import torch
from torch import nn

from tss.data.tasks import Sample
from tss.models.unet3d import UNet3D
from tss.training import restoration
from tss.training.dataset import Split
from tss.training.genesis import distort

CPU = torch.device("cpu")


@pytest.fixture
def split():
    torch.manual_seed(0)
    samples = [Sample(f"p{n // 2}", ("left", "right")[n % 2], -1) for n in range(6)]
    return Split(samples, torch.rand(6, 3, 5, 24, 12).half(), torch.full((6,), float("nan")))


def test_a_batch_is_distorted_and_original_in_the_order_given(split):
    (distorted, original), (last, _) = restoration.distorted_batches(split, [4, 1, 3], 2, CPU, seed=5, epoch=2)
    assert torch.equal(original, split.hemispheres[[4, 1]].float()) and len(last) == 1
    by_hand = distort(split.hemispheres[1].float().numpy(), np.random.default_rng([5, 0, 2, 1]))
    assert torch.equal(distorted[1], torch.from_numpy(by_hand))
    assert distorted.dtype == torch.float32 and not torch.equal(distorted, original)


def test_distortions_follow_from_seed_epoch_and_place_not_from_the_order(split):
    def at_place_3(order, seed, epoch):
        return torch.cat([d for d, _ in restoration.distorted_batches(split, order, 2, CPU, seed, epoch)])[
            order.index(3)
        ]

    same = at_place_3([3, 0], 5, 2)
    assert torch.equal(same, at_place_3([1, 2, 3], 5, 2))
    assert not torch.equal(same, at_place_3([3, 0], 6, 2)) and not torch.equal(same, at_place_3([3, 0], 5, 3))


class Half(nn.Module):
    def forward(self, x):
        return x / 2


def test_errors_by_hand_whatever_the_batch_size(split):
    pairs = [
        (distort(h.float().numpy(), np.random.default_rng([5, 0, 0, n])), h.float().numpy())
        for n, h in enumerate(split.hemispheres)
    ]
    mean = split.hemispheres[:4].float().mean(0)  # as if of other patients
    assert torch.allclose(
        restoration.mean_hemisphere(split._replace(hemispheres=split.hemispheres[:4])), mean, atol=1e-6
    )
    by_hand = {
        "val_loss": np.mean([np.square(d / 2 - o).mean() for d, o in pairs]),
        "nothing_loss": np.mean([np.square(d - o).mean() for d, o in pairs]),
        "mean_loss": np.mean([np.square(mean.numpy() - o).mean() for _, o in pairs]),
    }
    for size in (1, 4):
        errors = restoration.validate_restoration(Half(), split, mean, size, CPU, "fp32", seed=5)
        assert errors == pytest.approx(by_hand, rel=1e-5)
    left = restoration.validate_restoration(nn.Identity(), split, mean, 4, CPU, "fp32", seed=5)
    assert left["val_loss"] == pytest.approx(by_hand["nothing_loss"], rel=1e-6)


def test_an_untrained_network_begins_at_the_means_of_the_channels():
    mean = torch.stack([torch.full((5, 24, 12), level) for level in (0.05, 0.3, 0.0)])
    torch.manual_seed(0)
    network = UNet3D(3, 3, width=2)
    restoration.start_at_mean(network, mean)
    with torch.no_grad():
        network.out.weight.zero_()  # what lies before the last convolution is noise
        answer = network(torch.rand(2, 3, 5, 24, 12)).mean(dim=(0, 2, 3, 4))
    assert answer.tolist() == pytest.approx([0.05, 0.3, 0.001], rel=1e-4)  # a dark channel: not -inf


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_an_error_that_is_not_a_number_stops(split):
    split.hemispheres[2, 0, 0, 0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="not finite"):
        restoration.validate_restoration(Half(), split, restoration.mean_hemisphere(split), 4, CPU, "fp32", seed=5)


def test_a_network_whose_answers_are_no_numbers_stops(split):
    class Broken(nn.Module):
        def forward(self, x):
            return x * float("nan")

    with pytest.raises(FloatingPointError, match="not finite"):
        restoration.validate_restoration(Broken(), split, restoration.mean_hemisphere(split), 4, CPU, "fp32", seed=5)


def test_pictures_are_the_middle_slices_of_validation_as_it_is_distorted(split):
    shown = restoration.restored_slices(Half(), split, CPU, seed=5)
    assert list(shown)[:3] == ["p0 left, dwi", "p0 left, t2w", "p0 left, flair"] and len(shown) == 3 * restoration.SHOWN
    original, distorted, restored = shown["p2 right, flair"]
    assert np.array_equal(original, split.hemispheres[5, 2, 2].float().numpy())
    assert np.array_equal(restored, distorted / 2)
