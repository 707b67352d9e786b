"""U-Net with a ResNet encoder (He et al. 2016; Ronneberger et al. 2015), by MONAI.

Source: arXiv 1512.03385, table 1, under a U-Net decoder, as MONAI's ``FlexibleUNet`` joins them: batch normalisation,
ReLU, five halvings, upsampling by repetition. Weights start at random: nothing is downloaded.

Comes in: options ``encoder`` ("resnet34" unless said), ``decoder_widths`` (from the coarsest) and ``dropout`` (in the
decoder); what the plan says of features, kernels and strides, and deep supervision, have no part here. Goes out: the
network, in 2D or 3D. Each axis must divide by 32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from hilum.errors import RecipeError
from hilum.networks._monai import monai_nets, quiet
from hilum.networks._own import check_halvings, own_options

NEEDS = ("monai",)
ENCODERS = ("resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet200")
_DEFAULTS = {"encoder": "resnet34", "decoder_widths": [256, 128, 64, 32, 16], "dropout": 0.0}


def build(options: Mapping[str, Any], in_channels: int, out_channels: int, dims: int) -> nn.Module:
    """The network; see ``networks.build``."""
    read = _read(options)
    nets = monai_nets()
    with quiet():
        network: nn.Module = nets.FlexibleUNet(
            in_channels=in_channels,
            out_channels=out_channels,
            backbone=read["encoder"],
            pretrained=False,
            decoder_channels=tuple(read["decoder_widths"]),
            spatial_dims=dims,
            dropout=read["dropout"],
            is_pad=False,
        )
    return network


def check_patch(options: Mapping[str, Any], patch: Sequence[int]) -> None:
    """See ``networks.check_patch``."""
    _read(options)
    check_halvings(patch, 5)


def _read(options: Mapping[str, Any]) -> dict[str, Any]:
    read = own_options(options, _DEFAULTS, {"encoder": ENCODERS})
    if len(read["decoder_widths"]) != 5:
        raise RecipeError(
            f"decoder_widths = {read['decoder_widths']!r}", where="network.options", wanted="five, from the coarsest"
        )
    return read
