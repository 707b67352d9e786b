"""SegResNet with deep supervision: residual blocks, normalised before they convolve (Myronenko 2018), by MONAI.

Source: arXiv 1810.11654 without its autoencoder branch, as MONAI's ``SegResNetDS`` builds it and as the winners of
KiTS23 and several other challenges trained it (Myronenko et al. 2023, arXiv 2310.04110).

Comes in: options ``width`` (channels of the finest stage, 32), ``blocks`` (residual blocks of each stage; 1, 2, 2, 4, 4
unless said: as many stages as numbers), ``norm`` ("instance" or "batch") and ``deep_supervision``; what the plan says
of features, kernels and strides has no part here. Goes out: the network, in 2D or 3D; logits at every resolution of
its decoder while training with deep supervision. Each axis must divide by 2^(stages - 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from hilum.errors import RecipeError
from hilum.networks._monai import FinestFirst, monai_nets, quiet
from hilum.networks._own import check_halvings, own_options

NEEDS = ("monai",)
_DEFAULTS = {"width": 32, "blocks": [1, 2, 2, 4, 4], "norm": "instance", "deep_supervision": True}


def build(options: Mapping[str, Any], in_channels: int, out_channels: int, dims: int) -> nn.Module:
    """The network; see ``networks.build``."""
    read = _read(options)
    nets, blocks = monai_nets(), tuple(read["blocks"])
    with quiet():
        network = nets.SegResNetDS(
            spatial_dims=dims,
            init_filters=read["width"],
            in_channels=in_channels,
            out_channels=out_channels,
            norm=read["norm"],
            blocks_down=blocks,
            dsdepth=len(blocks) - 1 if read["deep_supervision"] else 1,
        )
    return FinestFirst(network, read["deep_supervision"])


def check_patch(options: Mapping[str, Any], patch: Sequence[int]) -> None:
    """See ``networks.check_patch``."""
    check_halvings(patch, len(_read(options)["blocks"]) - 1)


def _read(options: Mapping[str, Any]) -> dict[str, Any]:
    read = own_options(options, _DEFAULTS, {"norm": ("instance", "batch")})
    if len(read["blocks"]) < 2:
        raise RecipeError(f"blocks = {read['blocks']!r}", where="network.options", wanted="at least two stages")
    return read
