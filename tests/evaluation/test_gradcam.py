"""Grad-CAM against a model small enough to work out by hand, and its place against what a real cell looks at."""

import numpy as np
import pytest
import torch
from torch import nn

from tss.evaluation import gradcam
from tss.evaluation.gradcam import Target, grad_cam
from tss.models.resnet2d import ResNet18
from tss.models.unet3d import Encoder3d
from tss.training.phases import build_model

ONE_TO_ONE = Target("features", step=(1, 1, 1), first=(0, 0, 0))


class Linear(nn.Module):
    """logit = sum over slices of slice_weight * (classifier . mean over the slice of the features)."""

    def __init__(self, feature_weights, classifier, slice_weights):
        super().__init__()
        self.features = nn.Conv2d(1, len(feature_weights), kernel_size=1, bias=False)
        self.features.weight.data = torch.tensor(feature_weights).view(-1, 1, 1, 1)
        self.classifier = torch.tensor(classifier)
        self.slice_weights = torch.tensor(slice_weights)

    def forward(self, x):
        maps = self.features(x[0].movedim(1, 0))  # (D, channels, H, W)
        return (maps.mean(dim=(2, 3)) @ self.classifier @ self.slice_weights)[None]


@pytest.fixture
def hemisphere():
    return torch.tensor([[[[1.0, -2.0], [3.0, 4.0]], [[0.0, 8.0], [1.0, 1.0]]]])  # (C, D, H, W) = (1, 2, 2, 2)


def test_a_linear_model_worked_out_by_hand(hemisphere):
    # Features 2x and -x, classifier 1 and 0.5: each voxel adds 1.5 x, times its slice's weight, over 4 cells.
    model = Linear([2.0, -1.0], [1.0, 0.5], [1.0, 0.25]).eval()
    by_hand = np.array([[[1.5, 0.0], [4.5, 6.0]], [[0.0, 3.0], [0.375, 0.375]]]) / 6.0
    np.testing.assert_allclose(grad_cam(model, hemisphere, ONE_TO_ONE), by_hand, atol=1e-6)


def test_evidence_against_is_the_map_of_minus_the_logit(hemisphere):
    model = Linear([2.0, -1.0], [1.0, 0.5], [1.0, 0.25]).eval()
    by_hand = np.zeros((2, 2, 2))
    by_hand[0, 0, 1] = 1.0  # the only voxel below zero
    np.testing.assert_allclose(grad_cam(model, hemisphere, ONE_TO_ONE, sign=-1), by_hand, atol=1e-6)


def test_no_evidence_is_zero_everywhere_and_not_noise_blown_up(hemisphere):
    model = Linear([-1.0], [1.0], [1.0, 0.25]).eval()
    assert not grad_cam(model, hemisphere.abs(), ONE_TO_ONE).any()
    # Two features that cancel but for rounding, a ten millionth; and two that differ by a thousandth.
    for second, seen in ((-1.0, False), (-0.9999999, False), (-0.999, True)):
        model = Linear([1.0, second], [1.0, 1.0], [1.0, 0.25]).eval()
        assert grad_cam(model, hemisphere * 1.1, ONE_TO_ONE).any() == seen


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("kind", ["2d", "3d"])
def test_a_wholly_frozen_model_is_explained_and_left_as_it_was(kind, attention):
    torch.manual_seed(0)
    model = build_model(kind, 4, [64, 64, 5], attention).requires_grad_(False).eval()
    hemisphere = torch.rand(3, 5, 64, 32)
    before = model(hemisphere[None])
    with torch.no_grad():  # as evaluation calls it
        maps = [grad_cam(model, hemisphere, gradcam.TARGETS[kind], sign) for sign in (1, -1)]
    assert all(heat.shape == (5, 64, 32) and heat.min() >= 0 for heat in maps)
    assert max(heat.max() for heat in maps) == 1.0
    assert torch.equal(model(hemisphere[None]), before)
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_hook_is_gone_after_an_error():
    layer = nn.Identity()
    with pytest.raises(RuntimeError, match="on purpose"), gradcam.recorded(layer):
        raise RuntimeError("on purpose")
    assert not layer._forward_hooks


def test_training_mode_is_refused(hemisphere):
    with pytest.raises(ValueError, match="eval mode"):
        grad_cam(Linear([1.0], [1.0], [1.0, 1.0]).train(), hemisphere, ONE_TO_ONE)


def test_cells_are_drawn_where_the_network_looks():
    target = gradcam.TARGETS["2d"]
    torch.manual_seed(0)
    backbone = ResNet18(width=8).eval()
    picture = torch.rand(1, 3, 448, 448, requires_grad=True)
    with gradcam.recorded(backbone.get_submodule(target.layer.removeprefix("backbone."))) as outputs:
        backbone(picture)
    step = target.step[1]
    cell = 224 // step
    (seen,) = torch.autograd.grad(outputs[0][..., cell, cell].sum(), picture)
    seen = seen.abs().sum(dim=(0, 1, 2))
    centre = float((seen * torch.arange(448)).sum() / seen.sum())
    assert centre == pytest.approx(target.first[1] + cell * step, abs=3)


def test_cells_of_the_3d_model_are_drawn_where_it_looks():
    target = gradcam.TARGETS["3d"]
    torch.manual_seed(0)
    encoder = Encoder3d(3, width=2).eval()
    volume = torch.rand(1, 3, 48, 48, 48, requires_grad=True)
    with gradcam.recorded(encoder.get_submodule(target.layer.removeprefix("encoder."))) as outputs:
        encoder(volume)
    (seen,) = torch.autograd.grad(outputs[0][..., 6, 6, 6].sum(), volume)
    for axis in range(3):
        along = seen[0].abs().sum(dim=[d for d in range(4) if d != axis + 1])
        centre = float((along * torch.arange(48)).sum() / along.sum())
        assert centre == pytest.approx(target.first[axis] + 6 * target.step[axis], abs=1)


def test_interpolation_between_cells_and_the_value_held_beyond_them():
    target = Target("", step=(1, 4, 4), first=(0, 0, 0))
    heat = gradcam.to_input_grid(np.array([[[0.0, 4.0]], [[8.0, 0.0]]]), (2, 2, 7), target)
    np.testing.assert_allclose(heat[0, 0], [0, 1, 2, 3, 4, 4, 4])
    np.testing.assert_allclose(heat[1, 1], [8, 6, 4, 2, 0, 0, 0])


def test_what_was_pooled_from_fewer_voxels_lies_in_their_middle():
    # Of 26 slices two poolings leave 7 cells: the last one has seen slices 24 and 25.
    torch.manual_seed(0)
    encoder, volume = Encoder3d(3, width=2).eval(), torch.rand(1, 3, 26, 8, 8, requires_grad=True)
    assert encoder(volume)[2].shape[2] == 7
    cells = np.arange(7.0).reshape(7, 1, 1)
    heat = gradcam.to_input_grid(cells, (26, 4, 4), gradcam.TARGETS["3d"])[:, 0, 0]
    assert heat[[1, 2]].tolist() == [0, 0.125]  # slice 1.5 is cell 0's centre
    assert heat[[24, 25]] == pytest.approx([6 - 0.5 / 3, 6])  # 24.5 is cell 6's


@pytest.mark.parametrize("kind", ["2d", "3d"])
def test_nothing_is_lit_outside_the_brain(kind):
    torch.manual_seed(0)
    model, hemisphere = build_model(kind, 4, [64, 64, 6], attention=False).eval(), torch.rand(3, 6, 64, 32)
    hemisphere[:, :, :20] = 0
    heats = [grad_cam(model, hemisphere, gradcam.TARGETS[kind], sign) for sign in (1, -1)]
    assert not any(heat[:, :20].any() for heat in heats) and max(heat.max() for heat in heats) == 1


@pytest.mark.parametrize("kind", ["2d", "3d"])
def test_of_the_extended_recipe_the_map_is_the_evidence_and_grad_cam_can_be_had_too(kind):
    torch.manual_seed(0)
    hemisphere = torch.rand(3, 4, 32, 16)
    hemisphere[:, :, :5] = 0
    for task in ("stroke", "tss<4.5h"):
        model = build_model(kind, 4, [32, 32, 4], task != "stroke", task, recipe="extended").eval()
        torch.nn.init.normal_(model.evidence.context[-2].weight)  # without context no gradient reaches the layer
        with torch.no_grad():
            evidence = model.evidence_map(hemisphere[None])[0]
            slices = model.looks_at(hemisphere[None])[1]
        assert (evidence[(hemisphere == 0).all(0)] < 0).all() and evidence.max() > 0
        expected = (2 / (1 + torch.exp(-evidence)) - 1).clamp(min=0)
        for sign in (1, -1):
            heat = gradcam.map_of(model, hemisphere, gradcam.TARGETS[kind], sign)
            np.testing.assert_allclose(heat, expected.numpy(), atol=1e-6)
        assert slices.shape == (1, 4) and slices.sum().item() == pytest.approx(1)
        maps = [grad_cam(model, hemisphere, gradcam.TARGETS[kind], sign) for sign in (1, -1)]
        assert max(heat.max() for heat in maps) == 1 and not any(heat[:, :5].any() for heat in maps)


def test_worth_is_what_the_logit_owes_to_the_map(hemisphere):
    model = Linear([2.0, -1.0], [1.0, 0.5], [1.0, 0.25]).eval()
    assert gradcam.explained(model, hemisphere, ONE_TO_ONE)[1] == pytest.approx((1.5 + 4.5 + 6 + 3 + 0.75) / 4)


def test_a_3d_layer_with_fewer_slices_comes_back_with_all_of_them():
    target = Target("", step=(2, 2, 2), first=(0.5, 0.5, 0.5))  # as after one pooling by 2
    heat = gradcam.to_input_grid(np.array([0.0, 4.0]).reshape(2, 1, 1), (4, 2, 2), target)
    np.testing.assert_allclose(heat[:, 0, 0], [0, 1, 3, 4])
