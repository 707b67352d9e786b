"""Where a convolution's input comes from: a field, or a coarser field brought up on the way.

Comes in: fields. Goes out: ``rows``: the inputs of some tiles, dealt out by row. Knows no convolution but the
transposed one whose kernel is its stride, which is a matrix product.

Bringing up a coarser field while it is read costs a few planes twice and saves the largest array of a U-Net.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hilum.inference.winograd.fields import ROWS, Field, Shape
from hilum.inference.winograd.pool import scratch


class FieldSource:
    """A dealt field as it is."""

    def __init__(self, field: Field):
        assert field.dealt
        self.field, self.shape, self.channels = field, field.shape, field.channels

    def rows(self, first: int, planes: int, top: int, count: int) -> Sequence[torch.Tensor]:
        """For each of the four places of a row in its tile: (planes, (count + 1) * (W + 2) * C).

        Args:
            first: plane of the bordered image.
            planes: how many.
            top: first tile of four rows.
            count: how many tiles.
        """
        there = self.field.buffer[:, first : first + planes, top : top + count + 1]
        return [part.flatten(1) for part in there]


class UpSource:
    """A coarser field after a transposed convolution whose kernel is its stride.

    Args:
        field: the coarser one.
        weight: (C_in, C, *stride).
        bias: (C,).
    """

    def __init__(self, field: Field, weight: torch.Tensor, bias: torch.Tensor):
        self.field, (_, self.channels, *stride) = field, weight.shape
        self.stride = (stride[0], stride[1], stride[2])
        depth, height, width = (n * s for n, s in zip(field.shape, self.stride, strict=True))
        self.shape: Shape = (depth, height, width)
        self._weight = weight.permute(0, 2, 3, 4, 1).reshape(weight.shape[0], -1)
        self._bias = bias.repeat(self._weight.shape[1] // self.channels)

    def planes(self, first: int, last: int, top: int, bottom: int) -> tuple[torch.Tensor, int, int]:
        """(planes, rows, W, C) that hold at least those asked for, and the first plane and row that they hold."""
        deep, high, wide = self.stride
        low, left = first // deep, top // high
        small = self.field.read(low, -(-last // deep), left, -(-bottom // high))
        depth, height, width, channels = small.shape
        into = scratch("products", depth * height * width, self._weight.shape[1])
        out = torch.addmm(self._bias, small.view(-1, channels), self._weight, out=into)
        split = out.view(depth, height, width, deep, high, wide, self.channels)
        fine = scratch("fine", depth * deep, height * high, width * wide, self.channels)
        fine.view(depth, deep, height, high, width, wide, -1).copy_(split.permute(0, 3, 1, 4, 2, 5, 6))
        return fine, low * deep, left * high

    def rows(self, first: int, planes: int, top: int, count: int) -> Sequence[torch.Tensor]:
        """See ``FieldSource.rows``."""
        depth, height, width = self.shape
        out = scratch("up", ROWS, planes, count + 1, width + 2, self.channels).zero_()
        low, high = max(0, first - 1), min(depth, first + planes - 1)
        upper, lower = max(0, ROWS * top - 1), min(height, ROWS * (top + count) + 1)
        fine, at_plane, at_row = self.planes(low, high, upper, lower)
        fine = fine[low - at_plane : high - at_plane, upper - at_row : lower - at_row]
        for rest in range(ROWS):
            start = (rest - 1 - upper) % ROWS
            rows = fine[:, start::ROWS]
            at = (upper + start + 1) // ROWS - top
            out[rest, low + 1 - first : high + 1 - first, at : at + rows.shape[1], 1:-1] = rows
        return list(out.flatten(2))


Source = FieldSource | UpSource
