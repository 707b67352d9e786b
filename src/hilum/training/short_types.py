"""WHERE SHORT NUMBERS LIE: convolutions whose bf16 gradients a library gets wrong, kept in fp32.

Comes in: a network. Goes out: the same network, its names and weights as they were. Knows no data.

PyTorch 2.13's CPU convolution in 3D, with a kernel 3 deep and step 1 over maps that are exactly 2 deep, gives weight
gradients in bf16 that are wrong in every call and at times NaN (seen on AVX-512 bf16; 1, 3 and 4 deep are right, and so
are other kernels). Such maps are small: computing them in fp32 costs nothing that could be measured.
"""

from __future__ import annotations

import torch
from torch import nn

_WRONG_DEPTH = 2


class SafeConv3d(nn.Conv3d):
    """A convolution that leaves bf16 where its gradient would be wrong."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102 (nn.Module's)
        wrong = x.shape[2] == _WRONG_DEPTH and self.kernel_size[0] > 1 and x.device.type == "cpu"
        if wrong and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)


def make_safe(network: nn.Module) -> None:
    """Let all 3D convolutions of a network watch for what their input is."""
    for module in network.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = SafeConv3d
