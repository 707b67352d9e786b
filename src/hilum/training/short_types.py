"""WHERE SHORT NUMBERS LIE: convolutions whose bf16 gradients a library gets wrong, kept in fp32.

Comes in: a network. Goes out: the same network, its names and weights as they were. Knows no data.

PyTorch 2.13's CPU convolution in 3D, with step 1 over maps that are smaller than its kernel, gives weight gradients in
bf16 that are wrong in every call and at times infinite or NaN (seen on AVX-512 bf16: kernel 3 over maps 2 deep, kernel
5 over maps 1 to 4 deep or 1 wide, kernel 7 over maps 2 deep; over 4 it broke the program's memory). Maps of at least
the kernel's size are right. Such small maps cost nothing that could be measured in fp32.
"""

from __future__ import annotations

import torch
from torch import nn


class SafeConv3d(nn.Conv3d):
    """A convolution that leaves bf16 where its gradient would be wrong."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, D, H, W) to (B, out_channels, ...), in fp32 where a kernel is larger than its map."""
        small = any(edge < kernel for edge, kernel in zip(x.shape[2:], self.kernel_size, strict=True))
        if small and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)


def make_safe(network: nn.Module) -> None:
    """Let all 3D convolutions of a network watch for what their input is."""
    for module in network.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = SafeConv3d
