"""The planned U-Net with a residual encoder: nnU-Net v2's ``ResidualEncoderUNet`` (its "ResEnc" presets).

Comes in: options (see ``_blocks.UNetOptions``; ``blocks_per_stage`` counts residual blocks and is 1, 3, 4, 6, 6, ...
unless said, ``decoder_convs`` is 1 unless said; the plan's ``convs_per_stage`` is for plain encoders and has no part
here). Goes out: the network. Parameter names are those of nnU-Net v2 with its ``BasicBlockD``.

The block is that of He et al. 2019 (arXiv 1812.01187, "ResNet-D"): where it strides, the skip is averaged, not
subsampled; where it widens, a 1x1 convolution without bias follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from hilum.networks._blocks import POOL, SLOPE, ConvNormAct, ConvStack, UNet, UNetOptions, check_divisible, read_options

# nnU-Net v2's default for its residual presets (plans of ResEncUNetPlanner): deeper stages repeat the last number
BLOCKS = (1, 3, 4, 6)


class ResidualBlock(nn.Module):
    """Two convolutions beside a skip."""

    def __init__(self, dims: int, in_channels: int, out_channels: int, kernel: Sequence[int], stride: Sequence[int]):
        super().__init__()
        ones = (1,) * dims
        self.conv1 = ConvNormAct(dims, in_channels, out_channels, kernel, stride)
        self.conv2 = ConvNormAct(dims, out_channels, out_channels, kernel, ones, act=False)
        skip: list[nn.Module] = []
        if any(n != 1 for n in stride):
            skip.append(POOL[dims](tuple(stride), tuple(stride)))
        if in_channels != out_channels:
            skip.append(ConvNormAct(dims, in_channels, out_channels, ones, ones, act=False, bias=False))
        self.skip = nn.Sequential(*skip)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, ...) to (B, out_channels, ...)."""
        return F.leaky_relu(self.conv2(self.conv1(x)) + self.skip(x), SLOPE, inplace=True)


class ResidualStage(nn.Module):
    """Residual blocks one after the other; the first one strides."""

    def __init__(
        self, dims: int, count: int, in_channels: int, out_channels: int, kernel: Sequence[int], stride: Sequence[int]
    ):
        super().__init__()
        ones = (1,) * dims
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(dims, out_channels if i else in_channels, out_channels, kernel, ones if i else stride)
                for i in range(count)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, ...) to (B, out_channels, ...)."""
        out: torch.Tensor = self.blocks(x)
        return out


class ResidualEncoder(nn.Module):
    """One convolution (the stem), then stages of residual blocks."""

    def __init__(self, options: UNetOptions, in_channels: int, dims: int):
        super().__init__()
        widths = (options.features[0], *options.features)
        self.stem = ConvStack(dims, 1, in_channels, widths[0], options.kernel(0, dims), (1,) * dims)
        self.stages = nn.Sequential(
            *(
                ResidualStage(dims, depth, widths[i], widths[i + 1], options.kernel(i, dims), options.stride(i, dims))
                for i, depth in enumerate(options.depths)
            )
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(B, C, ...) to features, finest first."""
        x, skips = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return skips


def build(options: Mapping[str, Any], in_channels: int, out_channels: int, dims: int) -> nn.Module:
    """The network; see ``networks.build``.

    Each block starts as its skip alone (the last normalisation's scale is 0), as nnU-Net v2 does.
    """
    read = _read(options)
    network = UNet(ResidualEncoder(read, in_channels, dims), read, out_channels, dims)
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            nn.init.zeros_(module.conv2.norm.weight)
    return network


def check_patch(options: Mapping[str, Any], patch: Sequence[int]) -> None:
    """See ``networks.check_patch``."""
    check_divisible(_read(options), patch)


def _read(options: Mapping[str, Any]) -> UNetOptions:
    return read_options(options, "blocks_per_stage", BLOCKS, decoder_convs=1)
