import numpy as np
import pytest
import torch

from tss.training.augmentation import STRIDE, random_shift
from tss.training.phases import FROZEN, build_model, freeze


class Steps:
    """An rng that draws what it is told."""

    def __init__(self, steps):
        self.steps = steps

    def integers(self, low, high, shape):
        assert (low, high, shape) == (-1, 2, (len(self.steps), 2))
        return np.array(self.steps)


def test_by_hand_down_and_left_with_edges_repeated():
    one = torch.arange(12.0).view(1, 1, 3, 4)
    assert random_shift(one, Steps([(1, -1)]), 1, 1)[0, 0].tolist() == [[1, 2, 3, 3], [1, 2, 3, 3], [5, 6, 7, 7]]
    assert torch.equal(random_shift(one, Steps([(0, 0)]), 1, 4), one)


def test_the_same_seed_moves_the_same_and_each_hemisphere_by_itself():
    batch = torch.rand(8, 3, 2, 16, 16)
    once, again, other = (random_shift(batch, np.random.default_rng(seed), 1, STRIDE) for seed in (3, 3, 4))
    assert torch.equal(once, again) and not torch.equal(once, other)
    steps = np.random.default_rng(3).integers(-1, 2, (8, 2)) * STRIDE
    assert len({tuple(step) for step in steps.tolist()}) > 2
    for one, result, (down, right) in zip(batch, once, steps, strict=True):
        inner = torch.roll(one, (down, right), (-2, -1))[..., 4:-4, 4:-4]
        assert torch.equal(result[..., 4:-4, 4:-4], inner)


@pytest.mark.parametrize("model", ["2d", "3d"])
def test_moving_the_hemisphere_or_its_frozen_features_is_the_same(model):
    torch.manual_seed(0)
    network = build_model(model, 4, [192, 96, 6], attention=False).eval()
    freeze(network, FROZEN[model])
    x = torch.zeros(2, 3, 6, 96, 96)
    x[..., 40:56, 40:56] = torch.rand(2, 3, 6, 16, 16)  # far from the edges, which are repeated in both
    before, after = (
        network.frozen(random_shift(x, Steps([(1, -1), (-1, 1)]), 1, STRIDE)),
        random_shift(network.frozen(x), Steps([(1, -1), (-1, 1)]), 1, 1),
    )
    assert torch.allclose(before[..., 7:-7, 7:-7], after[..., 7:-7, 7:-7], atol=1e-6)
    assert before[..., 7:-7, 7:-7].std() > 0.01


def test_the_order_in_memory_is_kept():
    batch = torch.rand(2, 3, 4, 8, 8).to(memory_format=torch.channels_last_3d)
    assert random_shift(batch, np.random.default_rng(0), 1, 1).stride() == batch.stride()
