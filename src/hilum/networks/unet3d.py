"""3D U-Net with batch normalisation and dropout (Cicek et al. 2016).

Source: arXiv 1606.06650, figure 2: the second convolution before each pooling doubles the channels (32, 64; 64, 128;
128, 256; 256, 512), transposed convolutions keep their number on the way up, batch normalisation before each ReLU;
here with padded convolutions, so that logits have the image's size. Dropout of whole channels in the two coarsest
stages is an addition that later kidney papers make.

Comes in: options ``width`` (channels of the very first convolution, 32), ``stages`` (4) and ``dropout`` (0.2); what the
plan says of features, kernels and strides, and deep supervision, have no part here. Goes out: the network, in 3D only
(its 2D relative is ``unet``). Each axis must divide by 2^(stages - 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from hilum.networks._own import check_halvings, own_options
from hilum.networks._stages import HalvingUNet, conv_layers

DIMS = (3,)
_DEFAULTS = {"width": 32, "stages": 4, "dropout": 0.2}


def build(options: Mapping[str, Any], in_channels: int, out_channels: int, dims: int) -> nn.Module:
    """The network; see ``networks.build``."""
    read = _read(options)
    last = read["stages"] - 1
    widths = [2 * read["width"] * 2**i for i in range(read["stages"])]
    encoder = [
        conv_layers(
            dims, (widths[i - 1] if i else in_channels, w // 2 if i == 0 else widths[i - 1], w), "batch", dropout
        )
        for i, w in enumerate(widths)
        for dropout in [read["dropout"] if i >= last - 1 else 0.0]
    ]
    decoder = [conv_layers(dims, (3 * w, w, w), "batch") for w in widths[:-1]]
    return HalvingUNet(dims, encoder, decoder, widths, widths[1:], out_channels)


def check_patch(options: Mapping[str, Any], patch: Sequence[int]) -> None:
    """See ``networks.check_patch``."""
    check_halvings(patch, _read(options)["stages"] - 1)


def _read(options: Mapping[str, Any]) -> dict[str, Any]:
    return own_options(options, _DEFAULTS)
