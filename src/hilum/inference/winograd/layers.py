"""Convolutions of fields, each followed by instance normalisation: by Winograd's tiles, directly, or as a product.

Comes in: a layer's weights and fields. Goes out: fields. Knows no network.

A convolution leaves its sums as they are and tells mean and spread of each piece; ``normalise`` puts the pieces'
numbers together in double precision and changes the field in place. (PyTorch's group normalisation loses three digits
where channels are last.) A bias before a normalisation has no effect and is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from hilum.inference.winograd import native
from hilum.inference.winograd.fields import ROWS, Field, Shape, Store, in_fours
from hilum.inference.winograd.native import Moments
from hilum.inference.winograd.pool import each, scratch
from hilum.inference.winograd.sources import FieldSource, Source
from hilum.inference.winograd.transforms import transform

# Transformed inputs of a piece of work: what a core's own cache and its share of the common one hold.
_PIECE_BYTES = 2 * 2**20
# Rows of tiles in a compiled piece of work, at most.
_MOST_TILES = 8


@dataclass(frozen=True)
class Norm:
    """Instance normalisation and what follows: scale and shift of each channel, leaky ReLU or nothing."""

    weight: torch.Tensor
    bias: torch.Tensor
    eps: float
    slope: float | None


class Winograd:
    """A convolution of size (3 or 1) x 3 x 3 and stride 1 by tiles of 4 rows and 4 or 2 planes.

    Rows and planes are transformed, each of the resulting 6 x 6 (or 4 x 6, 1 x 6) images is convolved along W alone.

    Args:
        weight: (K, C, 1 or 3, 3, 3).
        depth: D of the fields that will come; even where the kernel is 3 deep.
        sources: how many sources the C channels come from, as many from each.
    """

    def __init__(self, weight: torch.Tensor, depth: int, sources: int = 1):
        deep = 0 if weight.shape[2] == 1 else ROWS if depth % ROWS == 0 else 2
        self._deep, self._high = transform(deep), transform(ROWS)
        self._compiled = native.fits([weight.shape[1] // sources] * sources, weight.shape[0])
        self.channels = weight.shape[0]
        if self._compiled:
            made = torch.einsum("jd,lh,kcdhw->jlwck", self._deep.kernel, self._high.kernel, weight.double())
            self._kernels = native.packed(made.float().flatten(2, 3).flatten(0, 1))
        else:
            made = torch.einsum("jd,lh,kcdhw->wljck", self._deep.kernel, self._high.kernel, weight.double())
            self._kernels = made.float().flatten(1, 2).contiguous()

    def __call__(self, sources: Sequence[Source], out: Field) -> list[Moments]:
        """Convolve the sources' channels together, one source's after the other's."""
        depth, height, width = out.shape
        channels, tiles = sum(source.channels for source in sources), height // ROWS
        row_bytes = 4 * ROWS * self._deep.inputs * width * channels
        count = max(1, min(tiles, _PIECE_BYTES // row_bytes))
        if self._compiled:
            count = max(1, min(_MOST_TILES, tiles // 4))
        pieces = [
            (plane, top, min(count, tiles - top))
            for plane in range(0, depth, self._deep.outputs)
            for top in range(0, tiles, count)
        ]
        work = self._compiled_piece if self._compiled else self._piece
        return each(lambda piece: work(sources, out, *piece), pieces)

    def _compiled_piece(self, sources: Sequence[Source], out: Field, plane: int, top: int, count: int) -> Moments:
        first = plane if self._deep.inputs > 1 else plane + 1
        inputs = [source.tiles(first, self._deep.inputs, top, count) for source in sources]
        into = out.buffer[:, plane + 1 :, top:, 1:]
        return native.tiles(self._deep, self._high, inputs, self._kernels, into, count, out.shape[2])

    def _piece(self, sources: Sequence[Source], out: Field, plane: int, top: int, count: int) -> Moments:
        deep, high, wide, width = self._deep, self._high, out.shape[2] + 2, out.shape[2] * self.channels
        first, size = plane if deep.inputs > 1 else plane + 1, count * wide
        images = scratch("images", deep.inputs * high.inputs, size, self.channels)
        start = 0
        for source in sources:
            tiles = self._planes(source, first, top, count)
            shown = self._rows(tiles.flatten(1), wide * source.channels).view(len(images), -1, source.channels)
            self._convolve(shown[:, :size], self._kernels[:, :, start:], images, start > 0)
            start += source.channels
        made = torch.mm(
            high.result, images.view(high.inputs, -1), out=scratch("made", ROWS, images[0].numel() * deep.inputs)
        )
        if deep.inputs > 1:
            out_of = scratch("out", ROWS, deep.outputs, size * self.channels)
            made = torch.bmm(deep.result.expand(ROWS, -1, -1), made.view(ROWS, deep.inputs, -1), out=out_of)
        done = made.view(ROWS, deep.outputs, count, wide, self.channels)[..., :-2, :]
        planes = slice(plane + 1, plane + 1 + deep.outputs)
        out.buffer[1:, planes, top : top + count, 1:-1] = done[:3]
        out.buffer[0, planes, top + 1 : top + count + 1, 1:-1] = done[3]
        return moments(made.view(-1, wide * self.channels)[:, :width], self.channels)

    def _planes(self, source: Source, first: int, top: int, count: int) -> torch.Tensor:
        """Planes transformed: (4, planes of a tile, (count + 1) * (W + 2) * C)."""
        rows = [part.flatten(1) for part in source.tiles(first, self._deep.inputs, top, count)]
        if self._deep.inputs == 1:
            return torch.stack(rows)
        out = scratch("planes", ROWS, *rows[0].shape)
        for rest, part in enumerate(rows):
            torch.mm(self._deep.data, part, out=out[rest])
        return out

    def _rows(self, places: torch.Tensor, shift: int) -> torch.Tensor:
        """Rows transformed: (6, all). A tile's last two rows are the next one's first two; after the last is waste."""
        data, size = self._high.data, places.shape[1]
        out = torch.mm(data[:, :ROWS], places, out=scratch("rows", len(data), size))
        out[:, :-shift].addmm_(data[:, ROWS:], places[:2, shift:])
        return out

    def _convolve(self, shown: torch.Tensor, kernels: torch.Tensor, out: torch.Tensor, more: bool) -> None:
        """Convolve along W: three products; the two columns between two rows are waste."""
        channels, some = shown.shape[2], out[:, :-2]
        for step in range(3):
            kernel, part = kernels[step, :, :channels], shown[:, step : step + some.shape[1]]
            torch.baddbmm(some, part, kernel, beta=1 if more or step else 0, out=some)


class Direct:
    """A convolution as it is: of any size and stride, a few output planes or channels at a time.

    Args:
        weight: (K, C, d, h, w).
        stride: (d, h, w).
        dealt: whether fields that come out are.
    """

    def __init__(self, weight: torch.Tensor, stride: Sequence[int], *, dealt: bool):
        self._stride, self._size, self.channels = tuple(stride), tuple(weight.shape[2:]), weight.shape[0]
        self._compiled = dealt and self._size in ((1, 3, 3), (3, 3, 3)) and native.fits([], self.channels)
        if self._compiled:
            self._weight = native.packed(weight.permute(2, 3, 4, 1, 0).flatten(0, 3))
        else:
            self._weight = weight
        self.let_go: Callable[[torch.Tensor | None], None] | None = None

    def __call__(self, source: Field, out: Field) -> list[Moments]:
        """Convolve a field."""
        if out.dealt:
            count = max(1, _PIECE_BYTES // (8 * out.shape[1] * out.shape[2] * out.channels))
            starts = range(0, out.shape[0], count)
            if self._compiled:
                return self._by_pieces(source, out, starts)
            return each(lambda start: self._planes(source, out, start, min(start + count, out.shape[0])), starts)
        whole = source.read(0, source.shape[0])
        count = min(64, self.channels)
        return _side_by_side(
            each(lambda start: self._some(whole, out, start, start + count), range(0, self.channels, count))
        )

    def _by_pieces(self, source: Field, out: Field, starts: range) -> list[Moments]:
        image = source.buffer if source.dealt else in_fours(functional.pad(source.buffer, (0, 0, 1, 1, 1, 1, 1, 1)))
        image = image if self._size[0] == 3 else image[:, 1:]
        depth, *shape = out.shape
        into = out.buffer[:, 1:, :, 1:]

        def piece(start: int) -> Moments:
            planes = start, min(start + starts.step, depth)
            return native.direct(image, self._stride, self._weight, into, planes, shape)

        return each(piece, starts)

    def _planes(self, source: Field, out: Field, start: int, stop: int) -> Moments:
        size, stride = self._size, self._stride
        margin = (size[0] - 1) // 2
        low, high = start * stride[0] - margin, (stop - 1) * stride[0] - margin + size[0]
        planes = source.read(max(0, low), min(source.shape[0], high))
        if low < 0 or high > source.shape[0]:
            planes = functional.pad(planes, (0, 0, 0, 0, 0, 0, max(0, -low), max(0, high - source.shape[0])))
        found = self._convolved(planes, self._weight, 0)
        out.write(start, found)
        return moments(found.view(-1, out.shape[2] * self.channels), self.channels)

    def _some(self, whole: torch.Tensor, out: Field, start: int, stop: int) -> Moments:
        weight = self._weight[start:stop]
        found = self._convolved(whole, weight, (self._size[0] - 1) // 2)
        if self.let_go is not None:
            self.let_go(weight)
        out.buffer[..., start:stop] = found
        return moments(found.view(-1, found.shape[-1]), found.shape[-1])

    def _convolved(self, planes: torch.Tensor, weight: torch.Tensor, margin: int) -> torch.Tensor:
        padding = (margin, *((n - 1) // 2 for n in self._size[1:]))
        image = planes.permute(3, 0, 1, 2)[None]
        found = torch.mkldnn_convolution(image, weight, None, padding, self._stride, (1, 1, 1), 1)
        return found[0].permute(1, 2, 3, 0).contiguous()


class Pointwise:
    """A mean over ``pool`` voxels (a stride of the same size), then a convolution of size 1.

    Args:
        weight: (K, C, 1, 1, 1), or None for the mean alone.
        pool: (d, h, w).
    """

    def __init__(self, weight: torch.Tensor | None, pool: Sequence[int]):
        self._weight = None if weight is None else weight.flatten(1).T.contiguous()
        self._pool = tuple(pool)

    def __call__(self, source: Field, out: Field) -> list[Moments]:
        """Every output plane for itself."""
        return each(lambda plane: self._plane(source, out, plane), range(out.shape[0]))

    def _plane(self, source: Field, out: Field, plane: int) -> Moments:
        d, h, w = self._pool
        _, height, width = out.shape
        found = source.read(plane * d, (plane + 1) * d).view(d, height, h, width, w, source.channels).mean((0, 2, 4))
        if self._weight is not None:
            found = torch.mm(found.view(-1, source.channels), self._weight).view(height, width, -1)
        out.write(plane, found[None])
        return moments(found.view(-1, found.shape[-1]), found.shape[-1])


def moments(rows: torch.Tensor, channels: int) -> Moments:
    """Number, mean and sum of squared distances from it, of each channel of (any number, any number * C) values."""
    many = rows.shape[1] // channels
    count = rows.shape[0] * many
    mean = rows.sum(0, dtype=torch.float32).view(many, channels).sum(0) / count
    off = torch.sub(rows, mean.repeat(many), out=scratch("off", *rows.shape))
    return count, mean.double(), off.square_().sum(0).view(many, channels).sum(0).double()


def normalise(field: Field, found: Sequence[Moments], norm: Norm, beside: Field | None = None) -> Field:
    """Instance normalisation in place, ``beside`` added, then the leaky ReLU."""
    total, mean, spread = found[0]
    for count, other, off in found[1:]:
        step = other - mean
        spread = spread + off + step.square() * (total * count / (total + count))
        mean = mean + step * (count / (total + count))
        total += count
    scale = norm.weight.double() / (spread / total + norm.eps).sqrt()
    shift, width = norm.bias.double() - mean * scale, field.shape[2]
    compiled = native.library() is not None
    scales, shifts = (of.float().repeat(1 if compiled else width) for of in (scale, shift))

    def plane(index: int) -> None:
        others = field.plane(index) if beside is None else beside.plane(index)
        if compiled:
            slope = 1.0 if norm.slope is None else norm.slope
            for piece, other in zip(field.plane(index), others, strict=True):
                native.normalise(piece, other if beside is not None else None, scales, shifts, slope)
            return
        for piece, other in zip(field.plane(index), others, strict=True):
            torch.addcmul(shifts, piece, scales, out=piece)
            if beside is not None:
                piece.add_(other)
            if norm.slope is not None:
                functional.leaky_relu_(piece, norm.slope)

    each(plane, range(field.shape[0]))
    return field


def head(field: Field, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """A convolution of size 1 to logits: (K, D, H, W)."""
    out = torch.empty((weight.shape[0], *field.shape))
    of = weight.flatten(1)

    def plane(index: int) -> None:
        values = field.read(index, index + 1).view(-1, field.channels)
        out[:, index] = torch.addmm(bias[:, None], of, values.T).view(-1, *field.shape[1:])

    each(plane, range(field.shape[0]))
    return out


def _side_by_side(parts: Sequence[Moments]) -> list[Moments]:
    """Moments of different channels of the same voxels."""
    return [(parts[0][0], torch.cat([mean for _, mean, _ in parts]), torch.cat([off for _, _, off in parts]))]


__all__ = [
    "Direct",
    "FieldSource",
    "Norm",
    "Pointwise",
    "Shape",
    "Store",
    "Winograd",
    "head",
    "moments",
    "normalise",
]
