"""Where a convolution's input comes from: a field, or a coarser field brought up on the way.

Comes in: fields. Goes out: ``tiles``: the inputs of some tiles, dealt out by row. Knows no convolution but the
transposed one whose kernel is its stride, which is a matrix product.

Bringing up a coarser field while it is read costs a few planes twice and saves the largest array of a U-Net.
"""

from __future__ import annotations

import torch

from hilum.inference.winograd import native
from hilum.inference.winograd.fields import ROWS, Field, Shape
from hilum.inference.winograd.pool import scratch


class FieldSource:
    """A dealt field as it is."""

    def __init__(self, field: Field):
        assert field.dealt
        self.field, self.shape, self.channels = field, field.shape, field.channels

    def tiles(self, first: int, planes: int, top: int, count: int) -> torch.Tensor:
        """What tiles read, dealt out by row: (4, planes, count + 1, W + 2, C).

        Args:
            first: plane of the bordered image.
            planes: how many.
            top: first tile of four rows.
            count: how many tiles.
        """
        return self.field.buffer[:, first : first + planes, top : top + count + 1]


class Up:
    """The weights of a transposed convolution whose kernel is its stride, as matrix products need them.

    Args:
        weight: (C_in, C, *stride).
        bias: (C,).
        tiled: whether tiles read it; if not, it is asked for whole planes.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, *, tiled: bool):
        inputs, self.channels, deep, high, wide = weight.shape
        self.stride: Shape = (deep, high, wide)
        self.compiled = tiled and native.fits([self.channels], wide * self.channels)
        if self.compiled:
            lines = weight.permute(2, 3, 0, 4, 1).reshape(deep * high, inputs, wide * self.channels)
            self.weight, self.bias = native.packed(lines), bias.repeat(wide)
        else:
            self.weight = weight.permute(0, 2, 3, 4, 1).reshape(inputs, -1)
            self.bias = bias.repeat(deep * high * wide)


class UpSource:
    """A coarser field brought up by ``Up``."""

    def __init__(self, field: Field, up: Up):
        self.field, self._up, self.channels = field, up, up.channels
        depth, height, width = (n * s for n, s in zip(field.shape, up.stride, strict=True))
        self.shape: Shape = (depth, height, width)

    def planes(self, first: int, last: int, top: int, bottom: int) -> tuple[torch.Tensor, int, int]:
        """(planes, rows, W, C) that hold at least those asked for, and the first plane and row that they hold."""
        deep, high, wide = self._up.stride
        low, left = first // deep, top // high
        small = self.field.read(low, -(-last // deep), left, -(-bottom // high))
        depth, height, width, channels = small.shape
        into = scratch("products", depth * height * width, self._up.weight.shape[1])
        out = torch.addmm(self._up.bias, small.view(-1, channels), self._up.weight, out=into)
        split = out.view(depth, height, width, deep, high, wide, self.channels)
        fine = scratch("fine", depth * deep, height * high, width * wide, self.channels)
        fine.view(depth, deep, height, high, width, wide, -1).copy_(split.permute(0, 3, 1, 4, 2, 5, 6))
        return fine, low * deep, left * high

    def tiles(self, first: int, planes: int, top: int, count: int) -> torch.Tensor:
        """See ``FieldSource.tiles``."""
        depth, height, width = self.shape
        out = scratch("up", ROWS, planes, count + 1, width + 2, self.channels)
        if self._up.compiled:
            up, small = self._up, self.field
            native.up(*small.inside(), small.shape, up.stride, up.weight, up.bias, first, top, out)
            return out
        out.zero_()
        low, high = max(0, first - 1), min(depth, first + planes - 1)
        upper, lower = max(0, ROWS * top - 1), min(height, ROWS * (top + count) + 1)
        fine, at_plane, at_row = self.planes(low, high, upper, lower)
        fine = fine[low - at_plane : high - at_plane, upper - at_row : lower - at_row]
        for rest in range(ROWS):
            start = (rest - 1 - upper) % ROWS
            rows = fine[:, start::ROWS]
            at = (upper + start + 1) // ROWS - top
            out[rest, low + 1 - first : high + 1 - first, at : at + rows.shape[1], 1:-1] = rows
        return out


Source = FieldSource | UpSource
