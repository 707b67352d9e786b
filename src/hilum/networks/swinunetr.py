"""Swin UNETR: a U-Net whose encoder is a shifted-window transformer (Hatamizadeh et al. 2022), by MONAI.

Source: arXiv 2201.01266, figure 1; heads and depths of Liu et al. 2021 (arXiv 2103.14030) as the paper takes them.

Comes in: options ``width`` (the embedding: 48 in the paper; 24 here; a multiple of 12), ``window`` (how many tokens
wide attention looks, 7), ``dropout`` (of whole residual paths) and ``v2`` (a convolution before each stage, as MONAI's
second version has it); what the plan says of features, kernels and strides, and deep supervision, have no part here.
Goes out: the network, in 2D or 3D. Each axis must divide by 32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hilum.errors import RecipeError
from hilum.networks._monai import monai_nets, quiet
from hilum.networks._own import check_halvings, own_options

NEEDS = ("monai", "einops")
_DEFAULTS = {"width": 24, "window": 7, "dropout": 0.0, "v2": False}


def build(options: Mapping[str, Any], in_channels: int, out_channels: int, dims: int) -> nn.Module:
    """The network; see ``networks.build``."""
    read = _read(options)
    nets, device = monai_nets(), torch.get_default_device()
    # it reads numbers out of small tensors while it is built, which shapes without memory ("meta") do not have
    with quiet(), torch.device("cpu"):
        network: nn.Module = nets.SwinUNETR(
            in_channels=in_channels,
            out_channels=out_channels,
            feature_size=read["width"],
            window_size=read["window"],
            dropout_path_rate=read["dropout"],
            spatial_dims=dims,
            use_v2=read["v2"],
        )
    return network.to(device)


def check_patch(options: Mapping[str, Any], patch: Sequence[int]) -> None:
    """See ``networks.check_patch``."""
    _read(options)
    check_halvings(patch, 5)


def _read(options: Mapping[str, Any]) -> dict[str, Any]:
    read = own_options(options, _DEFAULTS)
    if read["width"] % 12:
        raise RecipeError(f"width = {read['width']}", where="network.options", wanted="a multiple of 12")
    return read
