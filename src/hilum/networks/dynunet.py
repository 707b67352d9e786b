"""DynUNet: MONAI's planned U-Net after nnU-Net (Isensee et al. 2021), with plain or residual blocks.

Source: doi:10.1038/s41592-020-01008-z, as MONAI builds it: two convolutions a stage on both ways, instance
normalisation, leaky ReLU; transposed convolutions without bias.

Comes in: options ``features``, ``kernels`` and ``strides`` (the plan gives them; at least three stages), ``residual``
(false), ``dropout`` and ``deep_supervision``; the plan's ``convs_per_stage`` has no part here. Goes out: the network,
in 2D or 3D; logits at every resolution of its decoder while training with deep supervision (MONAI's own module
interpolates them to one size, so its layers are called from here). Each axis must divide by the product of its
strides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hilum.errors import RecipeError
from hilum.networks._blocks import UNetOptions, check_divisible, read_options
from hilum.networks._monai import monai_nets, quiet
from hilum.networks._own import PLANNED, own_options

NEEDS = ("monai",)
_DEFAULTS = {"residual": False, "dropout": 0.0, "deep_supervision": True}


class DynUNet(nn.Module):
    """MONAI's layers, called in the order of its ``DynUNet``.

    Args:
        network: ``monai.networks.nets.DynUNet`` made without deep supervision.
        deep_supervision: logits at every resolution of the decoder while training.
    """

    def __init__(self, network: Any, deep_supervision: bool):
        super().__init__()
        self.deep_supervision = deep_supervision
        self.encoder = nn.ModuleList([network.input_block, *network.downsamples, network.bottleneck])
        self.decoder = nn.ModuleList(network.upsamples)
        stages = len(self.decoder) if deep_supervision else 1
        self.heads = nn.ModuleList([network.output_block, *(network.get_output_block(i) for i in range(1, stages))])
        self.heads[1:].apply(network.initialize_weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """(B, C, ...) to logits (B, K, ...); in training with deep supervision a list of them, finest first."""
        skips, scales = [], []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
        for i, up in enumerate(self.decoder, 2):
            x = up(x, skips[-i])
            scales.append(x)
        if self.training and self.deep_supervision:
            return [head(x) for head, x in zip(self.heads, scales[::-1], strict=True)]
        logits: torch.Tensor = self.heads[0](x)
        return logits


def build(options: Mapping[str, Any], in_channels: int, out_channels: int, dims: int) -> nn.Module:
    """The network; see ``networks.build``."""
    own, planned = _read(options)
    stages = range(len(planned.features))
    strides = [planned.stride(i, dims) for i in stages]
    nets = monai_nets()
    with quiet():
        network = nets.DynUNet(
            spatial_dims=dims,
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=[planned.kernel(i, dims) for i in stages],
            strides=strides,
            upsample_kernel_size=strides[1:],
            filters=list(planned.features),
            dropout=own["dropout"] or None,
            res_block=own["residual"],
        )
        return DynUNet(network, own["deep_supervision"])


def check_patch(options: Mapping[str, Any], patch: Sequence[int]) -> None:
    """See ``networks.check_patch``."""
    check_divisible(_read(options)[1], patch)


def _read(options: Mapping[str, Any]) -> tuple[dict[str, Any], UNetOptions]:
    own = own_options(options, _DEFAULTS)
    shape = {key: options[key] for key in PLANNED if key in options and key != "convs_per_stage"}
    planned = read_options(shape, "convs_per_stage", (2,), 2)
    if len(planned.features) < 3:
        raise RecipeError(f"{len(planned.features)} stages", where="network.options", wanted="at least three")
    return own, planned
