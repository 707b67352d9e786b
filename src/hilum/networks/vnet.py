"""V-Net: residual stages of 5x5x5 convolutions (Milletari et al. 2016), by MONAI.

Source: arXiv 1606.04797, figure 2, as MONAI builds it: batch normalisation, ELU, dropout of whole channels.

Comes in: the option ``dropout`` (0.5); its widths are fixed (16 to 256), and what the plan says of features, kernels
and strides, and deep supervision, have no part here. Goes out: the network, in 2D or 3D; images may have 1, 2, 4, 8 or
16 channels. Each axis must divide by 16.
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
_DEFAULTS = {"dropout": 0.5}


def build(options: Mapping[str, Any], in_channels: int, out_channels: int, dims: int) -> nn.Module:
    """The network; see ``networks.build``."""
    read = own_options(options, _DEFAULTS)
    if 16 % in_channels:
        raise RecipeError(f"{in_channels} image channels", where="network.name", wanted="1, 2, 4, 8 or 16 for vnet")
    nets = monai_nets()
    with quiet():
        network: nn.Module = nets.VNet(
            spatial_dims=dims,
            in_channels=in_channels,
            out_channels=out_channels,
            dropout_prob_down=read["dropout"],
            dropout_prob_up=(read["dropout"], read["dropout"]),
        )
    # MONAI takes Dropout3d in 2D too, where it mistakes the batch for channels and drops whole images
    for part in network.children():
        for name, layer in part.named_children():
            if isinstance(layer, nn.Dropout3d):
                setattr(part, name, DROPOUT[dims](layer.p))
    return network


def check_patch(options: Mapping[str, Any], patch: Sequence[int]) -> None:
    """See ``networks.check_patch``."""
    own_options(options, _DEFAULTS)
    check_halvings(patch, 4)
