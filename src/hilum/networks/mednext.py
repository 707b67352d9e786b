"""MedNeXt: a U-Net of ConvNeXt blocks with large depthwise kernels (Roy et al. 2023), by MONAI.

Source: arXiv 2303.09975, section 2 and table 1 (sizes S, B, M, L), as MONAI builds it.

Comes in: options ``size`` ("S" unless said), ``kernel`` (3, or 5 as in the paper's second step), ``width`` (channels of
the finest stage, 32 in the paper) and ``deep_supervision``; what the plan says of features, kernels and strides has no
part here. Goes out: the network, in 2D or 3D; logits at all five resolutions while training with deep supervision. Each
axis must divide by 16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from hilum.errors import RecipeError
from hilum.networks._monai import FinestFirst, monai_nets, quiet
from hilum.networks._own import check_halvings, own_options

NEEDS = ("monai",)
_DEFAULTS = {"size": "S", "kernel": 3, "width": 32, "deep_supervision": True}
# the paper's table 1: expansion and number of blocks, from the finest encoder stage to the bottleneck; decoders mirror
_SIZES = {
    "S": ((2, 2, 2, 2, 2), (2, 2, 2, 2, 2)),
    "B": ((2, 3, 4, 4, 4), (2, 2, 2, 2, 2)),
    "M": ((2, 3, 4, 4, 4), (3, 4, 4, 4, 4)),
    "L": ((3, 4, 8, 8, 8), (3, 4, 8, 8, 8)),
}


def build(options: Mapping[str, Any], in_channels: int, out_channels: int, dims: int) -> nn.Module:
    """The network; see ``networks.build``."""
    read = _read(options)
    expansion, blocks = _SIZES[read["size"]]
    nets = monai_nets()
    with quiet():
        network = nets.MedNeXt(
            spatial_dims=dims,
            init_filters=read["width"],
            in_channels=in_channels,
            out_channels=out_channels,
            encoder_expansion_ratio=expansion[:4],
            decoder_expansion_ratio=expansion[3::-1],
            bottleneck_expansion_ratio=expansion[4],
            kernel_size=read["kernel"],
            deep_supervision=read["deep_supervision"],
            use_residual_connection=True,
            blocks_down=blocks[:4],
            blocks_bottleneck=blocks[4],
            blocks_up=blocks[3::-1],
        )
    return FinestFirst(network, read["deep_supervision"])


def check_patch(options: Mapping[str, Any], patch: Sequence[int]) -> None:
    """See ``networks.check_patch``."""
    _read(options)
    check_halvings(patch, 4)


def _read(options: Mapping[str, Any]) -> dict[str, Any]:
    read = own_options(options, _DEFAULTS, {"size": tuple(_SIZES)})
    if read["kernel"] % 2 == 0:
        raise RecipeError(f"kernel = {read['kernel']}", where="network.options", wanted="an odd number")
    return read
