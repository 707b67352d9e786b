"""U-Net++: nested, densely joined skips (Zhou et al. 2018), by MONAI.

Source: arXiv 1807.10165, figure 1, as MONAI builds it: five resolutions, instance normalisation, leaky ReLU.

Comes in: options ``width`` (channels of the finest stage, 32; the paper doubles them stage by stage), ``dropout`` and
``deep_supervision``; what the plan says of features, kernels and strides has no part here. Goes out: the network, in
2D or 3D. With deep supervision it gives, while training, the paper's four logits X^0,4 to X^0,1, the one that the
network is used by first; all have the image's full resolution. Each axis must divide by 16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from hilum.networks._monai import FinestFirst, monai_nets, quiet
from hilum.networks._own import check_halvings, own_options

NEEDS = ("monai",)
_DEFAULTS = {"width": 32, "dropout": 0.0, "deep_supervision": True}


def build(options: Mapping[str, Any], in_channels: int, out_channels: int, dims: int) -> nn.Module:
    """The network; see ``networks.build``."""
    read = own_options(options, _DEFAULTS)
    nets, width = monai_nets(), read["width"]
    with quiet():
        network = nets.BasicUNetPlusPlus(
            spatial_dims=dims,
            in_channels=in_channels,
            out_channels=out_channels,
            features=[*(width * 2**i for i in range(5)), width],
            deep_supervision=read["deep_supervision"],
            dropout=read["dropout"],
        )
    if not read[
        "deep_supervision"
    ]:  # MONAI computes these heads all the same; without a purpose they would never learn
        for head in ("final_conv_0_1", "final_conv_0_2", "final_conv_0_3"):
            setattr(network, head, nn.Identity())
    return FinestFirst(network, read["deep_supervision"], backwards=True)


def check_patch(options: Mapping[str, Any], patch: Sequence[int]) -> None:
    """See ``networks.check_patch``."""
    own_options(options, _DEFAULTS)
    check_halvings(patch, 4)
