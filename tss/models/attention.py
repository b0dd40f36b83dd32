"""Additive soft attention gate: a deep, coarse map decides which places of a shallower, finer map count.

In:  x (N, C, *spatial) fine features; g (N, G, *coarser) gating features; spatial = H, W or D, H, W.
Out: x weighted by the gate (N, C, *spatial), and the gate's map (N, 1, *spatial), each value in (0, 1).
Paper: section 2.2 and Fig. 4; the equations are those of Schlemper et al. 2018.
See: tests/models/test_attention.py
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
INTERPOLATIONS = {2: "bilinear", 3: "trilinear"}


class AttentionGate(nn.Module):
    """map = sigmoid(psi(relu(theta(x) + up(phi(g)))))  and  gated = map * x.

    theta, phi and psi are 1 x 1 convolutions; up() interpolates linearly to x's size.
    """

    def __init__(self, channels: int, gating_channels: int, ndim: int):
        """channels: C of x; gating_channels: G of g; ndim: 2 for slices, 3 for volumes."""
        super().__init__()
        conv = CONVOLUTIONS[ndim]
        inner = max(1, channels // 2)  # our choice: half of x's channels, the usual size of an additive gate
        self.theta = conv(channels, inner, kernel_size=1, bias=False)  # one bias is enough: phi has it
        self.phi = conv(gating_channels, inner, kernel_size=1)
        self.psi = conv(inner, 1, kernel_size=1)
        self.interpolation = INTERPOLATIONS[ndim]

    def forward(self, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """x: (N, C, *spatial), g: (N, G, *coarser) -> gated x (N, C, *spatial), map (N, 1, *spatial)."""
        gating = F.interpolate(  # (N, inner, *spatial)
            self.phi(g), size=x.shape[2:], mode=self.interpolation, align_corners=False
        )
        gate = torch.sigmoid(self.psi(F.relu(self.theta(x) + gating)))  # (N, 1, *spatial)
        return gate * x, gate
