"""The planned U-Net with a plain encoder: nnU-Net v2's ``PlainConvUNet``.

Comes in: options (see ``_blocks.UNetOptions``; ``convs_per_stage`` counts the encoder's convolutions,
``decoder_convs`` the decoder's, both 2 unless said). Goes out: the network. Parameter names are those of nnU-Net v2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hilum.networks._blocks import ConvStack, UNet, UNetOptions, check_divisible, read_options


class PlainEncoder(nn.Module):
    """Stages of convolutions, each begun by a strided one."""

    def __init__(self, options: UNetOptions, in_channels: int, dims: int):
        super().__init__()
        widths = (in_channels, *options.features)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    ConvStack(dims, depth, widths[i], widths[i + 1], options.kernel(i, dims), options.stride(i, dims))
                )
                for i, depth in enumerate(options.depths)
            )
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(B, C, ...) to features, finest first."""
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return skips


def build(options: Mapping[str, Any], in_channels: int, out_channels: int, dims: int) -> nn.Module:
    """The network; see ``networks.build``."""
    read = _read(options)
    return UNet(PlainEncoder(read, in_channels, dims), read, out_channels, dims)


def check_patch(options: Mapping[str, Any], patch: Sequence[int]) -> None:
    """See ``networks.check_patch``."""
    check_divisible(_read(options), patch)


def _read(options: Mapping[str, Any]) -> UNetOptions:
    return read_options(options, "convs_per_stage", (2,), decoder_convs=2)
