"""ResUNet: a U-Net of residual units that normalise before they convolve (Zhang et al. 2018).

Source: arXiv 1711.10684, section II and table I: each unit is batch normalisation, ReLU, convolution, twice, beside a
skip (1x1 convolution where shape changes); the first unit begins with a bare convolution; units stride, nothing pools;
units on the way up follow upsampling and concatenation (a transposed convolution here, where the paper interpolates).

Comes in: options ``width`` (channels of the finest stage: 64 in the paper; 32 here), ``stages`` (4) and ``dropout``
(between a unit's convolutions); what the plan says of features, kernels and strides, and deep supervision, have no part
here. Goes out: the network, in 2D or 3D. Each axis must divide by 2^(stages - 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hilum.networks._blocks import CONV
from hilum.networks._own import check_halvings, own_options
from hilum.networks._stages import BATCH_NORM, DROPOUT, HalvingUNet

_DEFAULTS = {"width": 32, "stages": 4, "dropout": 0.0}


class ResidualUnit(nn.Module):
    """Two convolutions, normalised before, beside a skip.

    Args:
        dims: 2 or 3.
        in_channels: what comes in.
        out_channels: what goes out.
        stride: of the first convolution and of the skip.
        first: the unit stands at the image: its first convolution takes it as it is.
        dropout: share of channels dropped between the convolutions.
    """

    def __init__(self, dims: int, in_channels: int, out_channels: int, stride: int, first: bool, dropout: float):
        super().__init__()
        before = [] if first else [BATCH_NORM[dims](in_channels), nn.ReLU(inplace=False)]
        self.convs = nn.Sequential(
            *before,
            CONV[dims](in_channels, out_channels, 3, stride, 1),
            BATCH_NORM[dims](out_channels),
            nn.ReLU(inplace=True),
            *([DROPOUT[dims](dropout)] if dropout else []),
            CONV[dims](out_channels, out_channels, 3, 1, 1),
        )
        same = stride == 1 and in_channels == out_channels
        self.skip = nn.Identity() if same else CONV[dims](in_channels, out_channels, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, ...) to (B, out_channels, ...)."""
        out: torch.Tensor = self.convs(x) + self.skip(x)
        return out


def build(options: Mapping[str, Any], in_channels: int, out_channels: int, dims: int) -> nn.Module:
    """The network; see ``networks.build``."""
    read = _read(options)
    drop, widths = read["dropout"], [read["width"] * 2**i for i in range(read["stages"])]
    encoder = [
        ResidualUnit(dims, widths[i - 1] if i else in_channels, w, 2 if i else 1, i == 0, drop)
        for i, w in enumerate(widths)
    ]
    decoder = [ResidualUnit(dims, 2 * w, w, 1, False, drop) for w in widths[:-1]]
    return HalvingUNet(dims, encoder, decoder, widths, widths[:-1], out_channels, pool=False)


def check_patch(options: Mapping[str, Any], patch: Sequence[int]) -> None:
    """See ``networks.check_patch``."""
    check_halvings(patch, _read(options)["stages"] - 1)


def _read(options: Mapping[str, Any]) -> dict[str, Any]:
    return own_options(options, _DEFAULTS)
