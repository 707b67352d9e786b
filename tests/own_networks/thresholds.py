"""A network that sorts voxels by intensity: class k where the input lies between the edges k-1 and k.

Its logits are linear in the input (``k * x`` minus the sum of the first ``k`` edges is largest exactly there), so that
what it says can be computed by hand, at any place and after any linear interpolation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn


class Thresholds(nn.Module):
    def __init__(self, classes: int):
        super().__init__()
        self.register_buffer("edges", torch.zeros(classes - 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        shape = (1, -1) + (1,) * (images.ndim - 2)
        rank = torch.arange(len(self.edges) + 1, dtype=torch.float32).view(shape)
        images, earlier = images[:, :1], images[:, 1:]
        below = torch.cat([self.edges.new_zeros(1), self.edges.cumsum(0)]).view(shape)
        logits = images * rank - below
        if earlier.shape[1]:  # of a cascade: what the model before found counts half a step of intensity
            logits[:, 1:] += 0.5 * earlier
        return logits


def build(options: Mapping[str, Any], in_channels: int, out_channels: int, dims: int) -> nn.Module:
    return Thresholds(out_channels)


def check_patch(options: Mapping[str, Any], patch: Sequence[int]) -> None:
    return None
