"""Attention U-Net: skips weighted by gates that the coarser features open (Oktay et al. 2018), by MONAI.

Source: arXiv 1804.03999, figure 1, as MONAI builds it: batch normalisation, ReLU, strided convolutions.

Comes in: options ``width`` (channels of the finest stage, 32), ``stages`` (5) and ``dropout``; what the plan says of
features, kernels and strides, and deep supervision, have no part here. Goes out: the network, in 2D or 3D. Each axis
must divide by 2^(stages - 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from hilum.errors import RecipeError
from hilum.networks._monai import monai_nets, quiet
from hilum.networks._own import check_halvings, own_options

NEEDS = ("monai",)
_DEFAULTS = {"width": 32, "stages": 5, "dropout": 0.0}


def build(options: Mapping[str, Any], in_channels: int, out_channels: int, dims: int) -> nn.Module:
    """The network; see ``networks.build``."""
    read = _read(options)
    nets = monai_nets()
    with quiet():
        network: nn.Module = nets.AttentionUnet(
            spatial_dims=dims,
            in_channels=in_channels,
            out_channels=out_channels,
            channels=[read["width"] * 2**i for i in range(read["stages"])],
            strides=[2] * (read["stages"] - 1),
            dropout=read["dropout"],
        )
    return network


def check_patch(options: Mapping[str, Any], patch: Sequence[int]) -> None:
    """See ``networks.check_patch``."""
    check_halvings(patch, _read(options)["stages"] - 1)


def _read(options: Mapping[str, Any]) -> dict[str, Any]:
    read = own_options(options, _DEFAULTS)
    if read["stages"] < 2 or read["width"] < 2:
        raise RecipeError(
            f"width = {read['width']}, stages = {read['stages']}",
            where="network.options",
            wanted="both at least 2 (a gate has half its stage's channels)",
        )
    return read
