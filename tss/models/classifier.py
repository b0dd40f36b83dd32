"""What both classifiers have in common: early layers, which phases 2-4 freeze, and the rest.

In:  hemispheres (N, C, D, H, W) float32 in [0, 1]; C = DWI, T2w, FLAIR; W ends at the midline.
Out: logits (N,); probability = sigmoid(logit).
Paper: 2.3 (which layers are frozen).
See: tests/training/test_phases.py
"""

from torch import Tensor, nn


class Classifier(nn.Module):
    """logit = after_frozen(frozen(hemisphere)). Within a phase frozen() never changes, so it can be computed once."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, D, H, W) -> logits (N,), in float32 whatever the precision of the layers before."""
        return self.after_frozen(self.frozen(x))

    def frozen(self, x: Tensor) -> Tensor:
        """x: (N, C, D, H, W) -> features (N, ...), what the early layers make of it."""
        raise NotImplementedError

    def after_frozen(self, features: Tensor) -> Tensor:
        """features: what frozen() gives -> logits (N,)."""
        raise NotImplementedError
