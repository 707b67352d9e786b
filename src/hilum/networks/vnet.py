"""V-Net: residual stages of 5x5x5 convolutions (Milletari et al. 2016), by MONAI.

Source: arXiv 1606.04797, figure 2, as MONAI builds it: batch normalisation, ELU, dropout of whole channels.

Comes in: the options ``width`` (16: channels of the first stage; the four below have 2, 4, 8 and 16 times as many) and
``dropout`` (0.5); what the plan says of features, kernels and strides, and deep supervision, have no part here. Goes
out: the network, in 2D or 3D; the width must be a multiple of the image's channels. Each axis must divide by 16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from hilum.errors import RecipeError
from hilum.networks._monai import monai_nets, quiet
from hilum.networks._own import check_halvings, own_options
from hilum.networks._stages import DROPOUT

NEEDS = ("monai",)
_DEFAULTS = {"width": 16, "dropout": 0.5}
_MONAI_WIDTH = 16


def build(options: Mapping[str, Any], in_channels: int, out_channels: int, dims: int) -> nn.Module:
    """The network; see ``networks.build``."""
    read = own_options(options, _DEFAULTS)
    width, dropout = read["width"], read["dropout"]
    if width % in_channels:
        raise RecipeError(
            f"{in_channels} image channels and width {width}",
            where="network.options",
            wanted="a width that is a multiple of the number of channels, for vnet",
        )
    nets = monai_nets()
    with quiet():
        network: nn.Module = nets.VNet(
            spatial_dims=dims,
            in_channels=in_channels,
            out_channels=out_channels,
            dropout_prob_down=dropout,
            dropout_prob_up=(dropout, dropout),
        )
        if width != _MONAI_WIDTH:
            _narrow(network, width, dropout, in_channels, out_channels, dims)
    # MONAI takes Dropout3d in 2D too, where it mistakes the batch for channels and drops whole images
    for part in network.children():
        for name, layer in part.named_children():
            if isinstance(layer, nn.Dropout3d):
                setattr(part, name, DROPOUT[dims](layer.p))
    return network


def _narrow(network: Any, width: int, dropout: float, in_channels: int, out_channels: int, dims: int) -> None:
    """Give MONAI's network, whose widths are written into it, stages of other widths, of MONAI's own parts."""
    from monai.networks.nets import vnet as parts

    act, both = ("elu", {"inplace": True}), (dropout, dropout)
    network.in_tr = parts.InputTransition(dims, in_channels, width, act)
    network.down_tr32 = parts.DownTransition(dims, width, 1, act)
    network.down_tr64 = parts.DownTransition(dims, 2 * width, 2, act)
    network.down_tr128 = parts.DownTransition(dims, 4 * width, 3, act, dropout_prob=dropout)
    network.down_tr256 = parts.DownTransition(dims, 8 * width, 2, act, dropout_prob=dropout)
    network.up_tr256 = parts.UpTransition(dims, 16 * width, 16 * width, 2, act, dropout_prob=both)
    network.up_tr128 = parts.UpTransition(dims, 16 * width, 8 * width, 2, act, dropout_prob=both)
    network.up_tr64 = parts.UpTransition(dims, 8 * width, 4 * width, 1, act)
    network.up_tr32 = parts.UpTransition(dims, 4 * width, 2 * width, 1, act)
    network.out_tr = parts.OutputTransition(dims, 2 * width, out_channels, act)


def check_patch(options: Mapping[str, Any], patch: Sequence[int]) -> None:
    """See ``networks.check_patch``."""
    own_options(options, _DEFAULTS)
    check_halvings(patch, 4)
