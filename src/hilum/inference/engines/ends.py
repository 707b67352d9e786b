"""Where a network in short numbers meets the world, it computes in fp32: what it sees and what it says.

Comes in: a network that will run under autocast. Goes out: the same network, its names and weights as they were. Knows
no engine and no model folder.

Rounding in between is averaged away by the convolutions that follow; that of the image and of the logits is not. More
than nine tenths of what bf16 does to the logits of two planned U-Nets (their mean squared change) came from rounding
the image, the last convolution's sums, what the logits are made of and the logits (docs/log.md). So in fp32 stay:

* the first convolution and the one that gives the logits;
* in planned U-Nets the first one's normalisation too, and the last convolution before the logits with its own.

What the first layer makes is handed on in fp32: skips and sums then hold all its digits, in no more time.

On GPUs PyTorch runs fp32 convolutions in TF32, which keeps three digits: eight times what bf16 does.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from hilum.networks._blocks import ConvNormAct, UNet


def keep_ends(network: nn.Module, in_channels: int, out_channels: int) -> list[str]:
    """Let a network's first and last layers leave autocast.

    Args:
        network: any; its layers are told by their channels.
        in_channels: of the image.
        out_channels: of the logits.

    Returns:
        The names of the layers that stay in fp32.
    """
    if isinstance(network, UNet):
        blocks: list[nn.Module] = [part for part in network.modules() if isinstance(part, ConvNormAct)]
        first, last = blocks[:1], [blocks[-1], network.decoder.seg_layers[-1]]
    else:
        layers = [part for part in network.modules() if isinstance(part, _ConvNd)]
        giving = [layer for layer in layers if layer.out_channels == out_channels]
        heads = [layer for layer in giving if set(layer.kernel_size) == {1}]  # of deeper resolutions too
        last = [*(heads or giving[-1:])]
        first = [*[layer for layer in layers if layer.in_channels == in_channels and layer not in last][:1]]
    kept = {id(layer) for layer in (*first, *last)}
    names = [name for name, layer in network.named_modules() if id(layer) in kept]
    for name in names:
        _leave_autocast(network.get_submodule(name))
    return names


def _leave_autocast(layer: nn.Module) -> None:
    inner = layer.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        device = x.device.type
        if not torch.is_autocast_enabled(device):
            return inner(x)  # type: ignore[no-any-return]
        with torch.autocast(device, enabled=False):
            return inner(x.float())  # type: ignore[no-any-return]

    layer.forward = forward
