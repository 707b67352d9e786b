"""The classic U-Net: two convolutions a stage, maximum pooling, doubling channels (Ronneberger et al. 2015).

Source: arXiv 1505.04597, figure 1, with padded convolutions so that logits have the image's size. The paper's dropout
at the end of the contracting path is ``dropout``. It used no normalisation; ``norm = "none"`` is that, batch
normalisation the default of nearly everybody since.

Comes in: options ``width`` (channels of the finest stage: 64 in the paper; 32 here), ``stages`` (5), ``norm`` and
``dropout``; what the plan says of features, kernels and strides, and deep supervision, have no part here. Goes out: the
network, in 2D or 3D. Each axis must divide by 2^(stages - 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from hilum.networks._own import check_halvings, own_options
from hilum.networks._stages import NORMS, HalvingUNet, conv_layers

_DEFAULTS = {"width": 32, "stages": 5, "norm": "batch", "dropout": 0.0}


def build(options: Mapping[str, Any], in_channels: int, out_channels: int, dims: int) -> nn.Module:
    """The network; see ``networks.build``."""
    read = _read(options)
    norm, last = read["norm"], read["stages"] - 1
    widths = [read["width"] * 2**i for i in range(read["stages"])]
    encoder = [
        conv_layers(dims, (widths[i - 1] if i else in_channels, w, w), norm, read["dropout"] if i >= last - 1 else 0.0)
        for i, w in enumerate(widths)
    ]
    decoder = [conv_layers(dims, (2 * w, w, w), norm) for w in widths[:-1]]
    return HalvingUNet(dims, encoder, decoder, widths, widths[:-1], out_channels)


def check_patch(options: Mapping[str, Any], patch: Sequence[int]) -> None:
    """See ``networks.check_patch``."""
    check_halvings(patch, _read(options)["stages"] - 1)


def _read(options: Mapping[str, Any]) -> dict[str, Any]:
    return own_options(options, _DEFAULTS, {"norm": NORMS})
