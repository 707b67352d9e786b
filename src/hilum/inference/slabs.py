"""Adding up weighted tiles in a buffer one patch high that moves up the scan.

Comes in: logits of tiles in ascending order of their first plane. Goes out: finished planes, handed to a LabelExporter.
It knows no network. Shapes: K classes; d, h, w voxels of a tile; D, H, W of the (padded) image.

When a tile starts higher than the one before, the planes below its start can't change any more: they are divided by
their weights and handed on. Neither the labels nor (beyond the buffer) the memory depend on how many planes that are.
"""

from __future__ import annotations

import time

import torch

from hilum.errors import ModelError
from hilum.inference.export import LabelExporter

Start = tuple[int, int, int]


class RollingLogits:
    """The sum of weighted tiles, one patch high, that moves up the scan and hands finished planes to an exporter.

    Args:
        class_count: K.
        shape: (D, H, W) of the (padded) image.
        weights_dhw: the weight of every voxel of a tile, float32, above 0.
        before: voxels of padding before the image on each axis; the exporter gets planes without padding.
        exporter: takes finished planes.

    Attributes:
        export_seconds: time spent in the exporter.
    """

    def __init__(
        self,
        class_count: int,
        shape: tuple[int, ...],
        weights_dhw: torch.Tensor,
        before: tuple[int, int, int],
        exporter: LabelExporter,
    ):
        depth = weights_dhw.shape[0]
        self.shape, self.before, self.exporter, self.weights_dhw = shape, before, exporter, weights_dhw
        self.bottom, self.export_seconds = 0, 0.0
        self._sum_KdHW = weights_dhw.new_zeros((class_count, depth, *shape[1:]))
        self._weight_dHW = weights_dhw.new_zeros((depth, *shape[1:]))

    def add(self, start: Start, logits_Kdhw: torch.Tensor) -> None:
        """One tile; tiles come in ascending order of ``start[0]``."""
        z, y, x = start
        assert z >= self.bottom, (start, self.bottom)
        self._move_to(z)
        _, h, w = self.weights_dhw.shape
        # a product and a sum, not addcmul: fused rounding could depend on how the buffer lies in memory
        self._sum_KdHW[:, :, y : y + h, x : x + w] += logits_Kdhw.to(self.weights_dhw.device) * self.weights_dhw
        self._weight_dHW[:, y : y + h, x : x + w] += self.weights_dhw

    def finish(self) -> None:
        """Hand on everything that is left, up to the top of the scan."""
        self._move_to(self.shape[0])
        assert self.exporter.done

    def _move_to(self, z: int) -> None:
        """Hand on all planes below ``z``: a patch's height at a time where tiles were skipped."""
        while self.bottom < z:
            count = min(z - self.bottom, self._weight_dHW.shape[0])
            self._hand_on(count)
            rest = self._weight_dHW.shape[0] - count
            for buffer, axis in ((self._sum_KdHW, 1), (self._weight_dHW, 0)):
                if rest:
                    buffer.narrow(axis, 0, rest).copy_(buffer.narrow(axis, count, rest).clone())
                buffer.narrow(axis, rest, count).zero_()
            self.bottom += count

    def _hand_on(self, count: int) -> None:
        first = max(self.before[0] - self.bottom, 0)
        last = min(self.before[0] + self.exporter.prepared[0] - self.bottom, count)
        if first >= last:
            return
        rows, columns = (
            slice(before, before + n) for before, n in zip(self.before[1:], self.exporter.prepared[1:], strict=True)
        )
        weight_dHW = self._weight_dHW[first:last, rows, columns]
        logits_KdHW = self._sum_KdHW[:, first:last, rows, columns] / weight_dHW
        unasked_dHW = weight_dHW == 0
        if bool(unasked_dHW.any()):
            of_first, of_others = self.exporter.background
            logits_KdHW[0][unasked_dHW] = of_first
            logits_KdHW[1:, unasked_dHW] = of_others
        if not bool(logits_KdHW.sum().isfinite()):
            raise ModelError(
                "the network gives NaN or infinite values",
                fix="train again from an earlier checkpoint, or run with --device cpu to rule out the device",
            )
        begin = time.perf_counter()
        self.exporter.take(logits_KdHW)
        self.export_seconds += time.perf_counter() - begin
