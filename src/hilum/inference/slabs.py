"""Adding up weighted tiles in a buffer one patch high that moves up the scan.

Comes in: logits of tiles in ascending order of their first plane. Goes out: finished planes, a few at a time, without
padding. It knows no network. Shapes: K outputs; d, h, w voxels of a tile; D, H, W of the (padded) image.

When a tile starts higher than the one before, the planes below its start can't change any more: they are divided by
their weights and handed on. Neither the labels nor (beyond the buffer) the memory depend on how many planes that are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from hilum.errors import ModelError
from hilum.inference.source import Start

PLANES = 8  # handed on at a time: what is divided and interpolated stays small beside the buffer


@dataclass(frozen=True)
class Planes:
    """Finished planes.

    Attributes:
        first: the lowest one's index in the scan without padding.
        logits_KSHW: float32, any number of planes; nobody else writes there.
        unasked_SHW: where no tile was computed; None where all were.
    """

    first: int
    logits_KSHW: torch.Tensor
    unasked_SHW: torch.Tensor | None


class RollingLogits:
    """The sum of weighted tiles, one patch high, that moves up the scan.

    Args:
        outputs: K.
        shape: (D, H, W) of the (padded) image.
        weights_dhw: the weight of every voxel of a tile, float32, above 0.
        before: voxels of padding before the image on each axis.
        inside: (D, H, W) of the image without padding.
        background: what a voxel counts as that no tile asked the network about: K logits.
    """

    def __init__(
        self,
        outputs: int,
        shape: tuple[int, int, int],
        weights_dhw: torch.Tensor,
        before: Start,
        inside: tuple[int, int, int],
        background: tuple[float, ...],
    ):
        depth = weights_dhw.shape[0]
        self.shape, self.before, self.inside, self.weights_dhw = shape, before, inside, weights_dhw
        self.bottom, self._high = 0, 0
        self._background_K = weights_dhw.new_tensor(background)
        assert len(background) == outputs, (background, outputs)
        self._sum_KdHW = weights_dhw.new_zeros((outputs, depth, *shape[1:]))
        self._weight_dHW = weights_dhw.new_zeros((depth, *shape[1:]))

    def add(self, start: Start, logits_Kdhw: torch.Tensor) -> Iterator[Planes]:
        """One tile, once the planes below it are taken; tiles come in ascending order of ``start[0]``."""
        z, y, x = start
        assert z >= self.bottom, (start, self.bottom)
        yield from self._move_to(z)
        depth, h, w = self.weights_dhw.shape
        # a product and a sum, not addcmul: fused rounding could depend on how the buffer lies in memory
        self._sum_KdHW[:, :, y : y + h, x : x + w] += logits_Kdhw.to(self.weights_dhw.device) * self.weights_dhw
        self._weight_dHW[:, y : y + h, x : x + w] += self.weights_dhw
        self._high = z + depth

    def finish(self) -> Iterator[Planes]:
        """Everything that is left, up to the top of the scan."""
        yield from self._move_to(self.shape[0])

    def _move_to(self, z: int) -> Iterator[Planes]:
        """Hand on all planes below ``z``: a patch's height at a time where tiles were skipped."""
        depth = self._weight_dHW.shape[0]
        while self.bottom < z:
            count = min(z - self.bottom, depth)
            for first in range(0, count, PLANES):
                yield from self._hand_on(first, min(first + PLANES, count))
            if self._high > self.bottom:
                self._shift(count, min(self._high - self.bottom, depth))
            self.bottom += count

    def _shift(self, count: int, used: int) -> None:
        """Move the planes from ``count`` down to 0, a few at a time so that no copy of the buffer is needed."""
        for buffer, axis in ((self._sum_KdHW, 1), (self._weight_dHW, 0)):
            for first in range(count, used, count):
                size = min(count, used - first)
                buffer.narrow(axis, first - count, size).copy_(buffer.narrow(axis, first, size))
            rest = max(0, used - count)
            buffer.narrow(axis, rest, used - rest).zero_()

    def _hand_on(self, first: int, last: int) -> Iterator[Planes]:
        """The buffer's planes ``first`` to ``last`` as far as they lie inside the scan."""
        first = max(self.before[0] - self.bottom, first)
        last = min(self.before[0] + self.inside[0] - self.bottom, last)
        if first >= last:
            return
        rows, columns = (slice(before, before + n) for before, n in zip(self.before[1:], self.inside[1:], strict=True))
        weight_SHW = self._weight_dHW[first:last, rows, columns]
        logits_KSHW = self._sum_KdHW[:, first:last, rows, columns] / weight_SHW
        unasked_SHW = weight_SHW == 0
        some = bool(unasked_SHW.any())
        if some:
            torch.where(unasked_SHW, self._background_K[:, None, None, None], logits_KSHW, out=logits_KSHW)
        if not bool(logits_KSHW.sum().isfinite()):
            raise ModelError(
                "the network gives NaN or infinite values",
                fix="train again from an earlier checkpoint, or run with --device cpu to rule out the device",
            )
        yield Planes(self.bottom + first - self.before[0], logits_KSHW, unasked_SHW if some else None)
