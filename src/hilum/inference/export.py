"""Logits on the prepared grid to labels on the scan's grid, plane by plane: a full-size logits array never exists.

Comes in: finished planes of logits, bottom to top, on the prepared grid. Goes out: class indices (and probabilities, if
asked for) on the scan's grid in ``SPL`` order. It knows no network, no patient and no file.

Shapes: K classes; D, H, W voxels of the prepared grid; Z, Y, X voxels of the scan's grid.

Logits are interpolated linearly and the largest one wins, as nnU-Net v2 does it (logits are resampled first, the argmax
is taken afterwards; thick slices apart, where it takes the nearest one's logits: the same where the prepared slices are
thinner than the scan's, stairs where they are thicker). Both grids share their outer voxel edges (``Grid.reshaped``):
output voxel ``j`` lies at ``(j + 0.5) * old / new - 0.5`` of the prepared grid, clamped to it, which is also what
torch's ``interpolate`` means by ``align_corners=False``. Interpolation is separable: each prepared plane is brought to
(Y, X) once and output planes blend two of them. ``nearest_axis`` takes the nearest sample along one axis instead, for
models whose makers trained and judged them so.

A network of regions has no background output: each region is there where its interpolated logit is above 0 (its sigmoid
above 0.5), and regions are written one over the other in the order that the label scheme says.

Most of a scan is background, and there nothing need be interpolated: weights are positive and sum to one, so that where
background is the largest logit at all eight prepared neighbours it is the largest between them. Only the box of voxels
with another possible winner is blended; the labels are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

from hilum.inference.winograd.pool import one_core_each, scratch

Shape = tuple[int, int, int]
# Rows blended at a time on a CPU: two float32 buffers of 32 x 512 x 4 classes stay inside a level-2 cache.
_ROWS = 32
SURE = 16.0  # the logit of a voxel that no tile asked the network about: a probability of 1 - 1e-7


@dataclass(frozen=True)
class Axis:
    """Linear interpolation along one axis: between old samples ``low`` and ``high``, ``high`` with weight ``share``."""

    low: np.ndarray
    high: np.ndarray
    share: np.ndarray

    @classmethod
    def between(cls, old: int, new: int) -> Axis:
        """From ``old`` to ``new`` samples over the same extent, clamped at the ends."""
        place = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
        low = np.minimum(np.floor(place).astype(np.int64), old - 1)
        return cls(low, np.minimum(low + 1, old - 1), (place - low).astype(np.float32))

    @classmethod
    def nearest(cls, old: int, new: int) -> Axis:
        """From ``old`` to ``new`` samples over the same extent, each the nearest old one; halves go up."""
        place = np.floor((old / new) * (np.arange(new) + 0.5) - 0.5 + 0.5).astype(np.int64).clip(0, old - 1)
        return cls(place, place, np.zeros(new, np.float32))

    def reach(self, first: int, last: int) -> slice:
        """The new samples that touch any of the old samples ``first`` to ``last`` (inclusive)."""
        start = int(np.searchsorted(self.high, first, side="left"))
        # torch computes positions in float32 and may choose the neighbour: one sample more on either side
        stop = int(np.searchsorted(self.low, last, side="right"))
        return slice(max(0, start - 1), min(len(self.low), stop + 1))


@dataclass(frozen=True)
class _Plane:
    """One prepared plane: its logits, and the first and last row and column where background may lose."""

    logits_KHW: torch.Tensor
    rows: tuple[int, int] | None
    columns: tuple[int, int] | None


class LabelExporter:
    """Takes finished logits plane after plane and fills the label array.

    Args:
        prepared: (D, H, W) of the logits.
        target: (Z, Y, X) of the scan in ``SPL`` order.
        class_count: K, the network's outputs.
        probabilities: also keep softmax probabilities of classes 1..K-1 (sigmoid of all regions) as uint8, 255 meaning
            1.
        writers: for a network of regions: (output, class index to write) in the order of writing.
        nearest_axis: the prepared axis (0, 1, 2) along which the nearest logits are taken instead of blended ones.

    Attributes:
        classes_ZYX: uint8 class indices, complete after the last plane.
        probabilities_KZYX: uint8 of shape (K-1, Z, Y, X), for regions (K, Z, Y, X), or None.
        entropy_ZYX: with probabilities, how undecided they are: uint8, 255 where all are equal (``_entropy``); or None.
    """

    def __init__(
        self,
        prepared: Shape,
        target: Shape,
        class_count: int,
        *,
        probabilities: bool = False,
        writers: Sequence[tuple[int, int]] = (),
        nearest_axis: int | None = None,
    ):
        self.prepared, self.target, self.class_count, self.writers = prepared, target, class_count, tuple(writers)
        self.classes_ZYX = np.zeros(target, np.uint8)
        shown = class_count if writers else class_count - 1
        self.probabilities_KZYX = np.zeros((shown, *target), np.uint8) if probabilities else None
        self.entropy_ZYX = np.zeros(target, np.uint8) if probabilities else None
        self._nearest_axis = nearest_axis
        self._z, self._y, self._x = _axes(prepared, target, nearest_axis)
        self._taken = self._written = 0
        self._planes: dict[int, _Plane] = {}
        self._inplane: dict[int, torch.Tensor] = {}

    @property
    def done(self) -> bool:
        """Whether every output plane is written."""
        return self._written == self.target[0]

    def take(self, logits_KDHW: torch.Tensor) -> None:
        """The next planes of logits: float32 (K, any number, H, W) on any device; the caller may reuse the memory.

        Output planes are written as soon as both their neighbours are there, so that nothing depends on how the planes
        are split over calls.
        """
        count = logits_KDHW.shape[1]
        assert logits_KDHW.shape == (self.class_count, count, *self.prepared[1:]), logits_KDHW.shape
        assert self._taken + count <= self.prepared[0], (self._taken, count, self.prepared)
        rows, columns = _foreground(logits_KDHW, regions=bool(self.writers))
        start = self._taken
        with one_core_each():  # waking a second thread for one plane costs more than it saves
            for d in range(count):
                if not self.done and start + d >= self._z.low[self._written]:
                    self._planes[start + d] = _Plane(logits_KDHW[:, d], rows[d], columns[d])
                self._taken += 1
                self._write_possible()
        for index, plane in self._planes.items():
            if index >= start:  # it waits for its partner while the caller may reuse its buffer
                self._planes[index] = replace(plane, logits_KHW=plane.logits_KHW.clone())

    def _write_possible(self) -> None:
        while not self.done and self._z.high[self._written] < self._taken:
            z = self._written
            low, high = int(self._z.low[z]), int(self._z.high[z])
            share = float(self._z.share[z])
            if self.probabilities_KZYX is not None:
                self._write_probabilities(z, low, high, share)
            self._write_classes(z, low, high, share)
            self._written += 1
            for old in [index for index in self._planes if self.done or index < self._z.low[self._written]]:
                del self._planes[old]
                self._inplane.pop(old, None)

    def _write_classes(self, z: int, low: int, high: int, share: float) -> None:
        rows = _union(self._planes[low].rows, self._planes[high].rows)
        columns = _union(self._planes[low].columns, self._planes[high].columns)
        if rows is None or columns is None:
            return
        box = (slice(None), self._y.reach(*rows), self._x.reach(*columns))
        a, b = self._at_target(low)[box], self._at_target(high)[box]
        out = self.classes_ZYX[z, box[1], box[2]]
        if a.device.type == "cpu":
            _blend_and_choose(a.numpy(), b.numpy(), share, out, self.writers)
        elif self.writers:
            there = (a * (1 - share) + b * share > 0).cpu().numpy()
            for output, value in self.writers:
                out[there[output]] = value
        else:
            out[:] = (a * (1 - share) + b * share).argmax(0).to(torch.uint8).cpu().numpy()

    def _write_probabilities(self, z: int, low: int, high: int, share: float) -> None:
        assert self.probabilities_KZYX is not None and self.entropy_ZYX is not None
        shares_KYX = self._shares(low, high, share)
        self.entropy_ZYX[z] = as_bytes(entropy(shares_KYX, regions=bool(self.writers)))
        self.probabilities_KZYX[:, z] = as_bytes(shares_KYX if self.writers else shares_KYX[1:])

    def _shares(self, low: int, high: int, share: float) -> torch.Tensor:
        """Probabilities of all outputs on an output plane: (K, Y, X)."""
        blend_KYX = self._at_target(low) * (1 - share) + self._at_target(high) * share
        return blend_KYX.sigmoid() if self.writers else blend_KYX.softmax(0)

    def _at_target(self, index: int) -> torch.Tensor:
        """The prepared plane ``index`` on the scan's rows and columns: (K, Y, X)."""
        if index not in self._inplane:
            logits_KHW = self._planes[index].logits_KHW
            for axis, line in ((1, self._y), (2, self._x)):
                if axis == self._nearest_axis:
                    logits_KHW = logits_KHW.index_select(axis, torch.from_numpy(line.low).to(logits_KHW.device))
            if self.prepared[1:] == self.target[1:]:
                plane_KYX = logits_KHW.clone()
            else:
                plane_KYX = functional.interpolate(
                    logits_KHW[None], size=self.target[1:], mode="bilinear", align_corners=False
                )[0].contiguous()
            self._inplane[index] = plane_KYX
        return self._inplane[index]


class MapExporter:
    """Takes finished planes of one number a voxel, 0 to 1, and fills a uint8 map on the scan's grid, 255 meaning 1.

    Args:
        prepared: (D, H, W) of the planes.
        target: (Z, Y, X) of the scan in ``SPL`` order.
        nearest_axis: the prepared axis (0, 1, 2) along which the nearest number is taken, as for logits.

    Attributes:
        map_ZYX: complete after the last plane; interpolated linearly.
    """

    def __init__(self, prepared: Shape, target: Shape, nearest_axis: int | None = None):
        self.map_ZYX = np.zeros(target, np.uint8)
        self._z, *in_plane = _axes(prepared, target, nearest_axis)
        self._picks = [None if axis + 1 != nearest_axis else line.low for axis, line in enumerate(in_plane)]
        self._taken = self._written = 0
        self._planes: dict[int, torch.Tensor] = {}

    def take(self, shares_DHW: torch.Tensor) -> None:
        """The next planes; the caller may reuse the memory."""
        for plane_HW in shares_DHW:
            for axis, picks in enumerate(self._picks):
                if picks is not None:
                    plane_HW = plane_HW.index_select(axis, torch.from_numpy(picks).to(plane_HW.device))
            self._planes[self._taken] = functional.interpolate(
                plane_HW[None, None], size=self.map_ZYX.shape[1:], mode="bilinear", align_corners=False
            )[0, 0].clone()
            self._taken += 1
            while self._written < len(self.map_ZYX) and self._z.high[self._written] < self._taken:
                z, share = self._written, float(self._z.share[self._written])
                low, high = (self._planes[int(index[z])] for index in (self._z.low, self._z.high))
                self.map_ZYX[z] = as_bytes(low * (1 - share) + high * share)
                self._written += 1
            still = int(self._z.low[self._written]) if self._written < len(self.map_ZYX) else self._taken
            self._planes = {index: plane for index, plane in self._planes.items() if index >= still}


def _axes(prepared: Shape, target: Shape, nearest_axis: int | None) -> tuple[Axis, Axis, Axis]:
    """How each axis is interpolated."""
    z, y, x = (
        Axis.nearest(old, new) if axis == nearest_axis else Axis.between(old, new)
        for axis, (old, new) in enumerate(zip(prepared, target, strict=True))
    )
    return z, y, x


def background_logits(outputs: int, *, regions: bool) -> tuple[float, ...]:
    """The logits of a voxel that is background for sure, because no tile asked the network about it."""
    return (-SURE,) * outputs if regions else (SURE, *[0.0] * (outputs - 1))


def entropy(shares_KYX: torch.Tensor, *, regions: bool) -> torch.Tensor:
    """(Y, X): Shannon's entropy of the classes' probabilities as a share of its largest value, ``log K``.

    Of regions, which are judged one by one, the largest binary entropy.
    """
    shares_KYX = shares_KYX.clamp(1e-12, 1)
    if regions:
        rest_KYX = (1 - shares_KYX).clamp_min(1e-12)
        bits_KYX = -(shares_KYX * shares_KYX.log2() + rest_KYX * rest_KYX.log2())
        return bits_KYX.amax(0).clamp(0, 1)
    if len(shares_KYX) == 1:
        return torch.zeros_like(shares_KYX[0])
    return (-(shares_KYX * shares_KYX.log()).sum(0) / math.log(len(shares_KYX))).clamp(0, 1)


def as_bytes(shares: torch.Tensor) -> np.ndarray:
    """0 to 1 as uint8, 255 meaning 1."""
    return np.asarray((shares * 255).round().to(torch.uint8).cpu().numpy())


def _foreground(
    logits_KDHW: torch.Tensor, regions: bool = False
) -> tuple[list[tuple[int, int] | None], list[tuple[int, int] | None]]:
    """For each plane the first and last row, and column, in which background does not win outright; None if none."""
    if regions:
        open_DHW = logits_KDHW[0] > 0
        for k in range(1, logits_KDHW.shape[0]):
            open_DHW |= logits_KDHW[k] > 0
    elif logits_KDHW.shape[0] == 1:
        return [None] * logits_KDHW.shape[1], [None] * logits_KDHW.shape[1]
    else:
        open_DHW = logits_KDHW[1] >= logits_KDHW[0]
        for k in range(2, logits_KDHW.shape[0]):
            open_DHW |= logits_KDHW[k] >= logits_KDHW[0]
    rows, columns = open_DHW.any(2).cpu().numpy(), open_DHW.any(1).cpu().numpy()
    return [_range(line) for line in rows], [_range(line) for line in columns]


def _range(line: np.ndarray) -> tuple[int, int] | None:
    hits = np.flatnonzero(line)
    return (int(hits[0]), int(hits[-1])) if len(hits) else None


def _union(a: tuple[int, int] | None, b: tuple[int, int] | None) -> tuple[int, int] | None:
    if a is None or b is None:
        return a or b
    return min(a[0], b[0]), max(a[1], b[1])


def _blend_and_choose(
    a_KYX: np.ndarray, b_KYX: np.ndarray, share: float, out_YX: np.ndarray, writers: Sequence[tuple[int, int]] = ()
) -> None:
    """``out = argmax(a * (1 - share) + b * share)``, the lowest class winning ties, a few rows at a time.

    With ``writers`` each output is judged by itself: above 0 it is written over what is there, in their order.

    In numpy rather than torch because waking torch's threads for buffers this small costs more than the work, most of
    all on a machine that is busy. There is no choosing voxel by voxel: classes come in ascending order, so that the
    number of the last one that beat all before it is the largest number so far (25 times as fast where classes are
    mixed).

    Args:
        a_KYX, b_KYX: logits of both neighbouring planes.
        share: the weight of the second.
        out_YX: uint8, all 0.
        writers: see ``LabelExporter``.
    """
    count, width = len(a_KYX), out_YX.shape[1]
    blend_KSX, other_KSX = (scratch(f"export {name}", count, _ROWS, width).numpy() for name in "ab")
    wins_SX, number_SX = np.empty((_ROWS, width), bool), np.empty((_ROWS, width), np.uint8)
    for start in range(0, len(out_YX), _ROWS):
        rows = slice(start, start + _ROWS)
        out = out_YX[rows]
        wins, number, blend = wins_SX[: len(out)], number_SX[: len(out)], blend_KSX[:, : len(out)]
        np.multiply(a_KYX[:, rows], np.float32(1 - share), out=blend)
        if share > 0:
            blend += np.multiply(b_KYX[:, rows], np.float32(share), out=other_KSX[:, : len(out)])
        if writers:
            for output, value in writers:
                np.copyto(out, np.uint8(value), where=np.greater(blend[output], 0, out=wins))
            continue
        best = blend[0]
        for k in range(1, count):
            np.multiply(np.greater(blend[k], best, out=wins).view(np.uint8), np.uint8(k), out=number)
            np.maximum(out, number, out=out)
            np.maximum(best, blend[k], out=best)
