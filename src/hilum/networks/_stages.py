"""A U-Net of halvings: the frame that the classic U-Net, the 3D U-Net and ResUNet share.

Comes in: blocks and the channels of each resolution. Goes out: a module. Each network brings its own blocks and its
own way up and down. Shapes: B batch, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from hilum.networks._blocks import CONV, UP, he_init

BATCH_NORM: dict[int, type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORM: dict[int, type[nn.InstanceNorm2d] | type[nn.InstanceNorm3d]] = {
    2: nn.InstanceNorm2d,
    3: nn.InstanceNorm3d,
}
MAX_POOL: dict[int, type[nn.MaxPool2d] | type[nn.MaxPool3d]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
DROPOUT: dict[int, type[nn.Dropout2d] | type[nn.Dropout3d]] = {2: nn.Dropout2d, 3: nn.Dropout3d}
NORMS = ("batch", "instance", "none")


def norm_layer(kind: str, dims: int, channels: int) -> nn.Module:
    """A normalisation of ``NORMS`` with a scale and a shift for each channel."""
    if kind == "batch":
        return BATCH_NORM[dims](channels)
    return INSTANCE_NORM[dims](channels, affine=True) if kind == "instance" else nn.Identity()


def conv_layers(dims: int, widths: Sequence[int], norm: str, dropout: float = 0.0) -> nn.Sequential:
    """Convolutions of 3 from each width to the next, each normalised and rectified; dropout of channels at the end."""
    layers: list[nn.Module] = []
    for into, out in pairwise(widths):
        conv = CONV[dims](into, out, 3, padding=1, bias=norm == "none")
        layers += [conv, norm_layer(norm, dims, out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, *([DROPOUT[dims](dropout)] if dropout else []))


class HalvingUNet(nn.Module):
    """Down, across and up again.

    Args:
        dims: 2 or 3.
        encoder: one block for each resolution, finest first; ``widths[i]`` is what the i-th answers with.
        decoder: one for each resolution but the coarsest, finest first: from ``lifted[i] + widths[i]`` channels
            to ``widths[i]``.
        widths: channels of the encoder's blocks.
        lifted: channels that transposed convolutions bring up to each resolution but the coarsest.
        out_channels: classes.
        pool: halve by maximum between encoder blocks; False where the blocks stride by themselves.
    """

    def __init__(
        self,
        dims: int,
        encoder: Sequence[nn.Module],
        decoder: Sequence[nn.Module],
        widths: Sequence[int],
        lifted: Sequence[int],
        out_channels: int,
        pool: bool = True,
    ):
        super().__init__()
        self.encoder, self.decoder = nn.ModuleList(encoder), nn.ModuleList(decoder)
        self.ups = nn.ModuleList(UP[dims](widths[i + 1], lifted[i], 2, 2) for i in range(len(widths) - 1))
        self.pool = MAX_POOL[dims](2) if pool else nn.Identity()
        self.head = CONV[dims](widths[0], out_channels, 1)
        self.apply(he_init)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, ...) to logits (B, K, ...)."""
        skips = []
        for i, block in enumerate(self.encoder):
            x = block(self.pool(x) if i else x)
            skips.append(x)
        for i in reversed(range(len(self.decoder))):
            x = self.decoder[i](torch.cat((self.ups[i](x), skips[i]), 1))
        logits: torch.Tensor = self.head(x)
        return logits
