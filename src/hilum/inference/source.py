"""Tiles of a prepared scan, whether its voxels are there already or are computed as the tiles move up.

Comes in: a Case or a StreamedCase, and the patch. Goes out: tiles of patch size in ascending order of their first
plane, with air around scans that are smaller than a patch. It knows no network.

Shapes: D, H, W of the (padded) image; d, h, w of a patch.
"""

from __future__ import annotations

import numpy as np

from hilum.prepare.preprocess import Case, StreamedCase
from hilum.prepare.resample import ROWS, ImageSlabs

Start = tuple[int, int, int]
Prepared = Case | StreamedCase


class TileSource:
    """Tiles of one scan.

    Args:
        case: the prepared scan.
        patch: (d, h, w).
        threads: for resampling what is computed on the way; 0 means one for each core.
        context: planes below and above each tile that come with it; beyond the scan they are air.

    Attributes:
        shape: (D, H, W), on every axis at least a patch.
        before: voxels of padding before the image on each axis.
        normalisation: the scan's own, or None.
    """

    def __init__(self, case: Prepared, patch: tuple[int, int, int], threads: int = 0, context: int = 0):
        self._reach, self._size = context, (patch[0] + 2 * context, *patch[1:])
        self.patch, self._threads, self._padding_hu = patch, threads, case.padding_hu
        self.normalisation, self._earlier_DHW = case.normalisation, case.earlier_DHW
        self._image: np.ndarray | ImageSlabs = case.slabs if isinstance(case, StreamedCase) else case.image_DHW
        inside = self._image.shape
        missing = [max(0, p - n) for n, p in zip(inside, patch, strict=True)]
        self._inside = inside
        self.before: Start = (missing[0] // 2, missing[1] // 2, missing[2] // 2)
        self.shape: Start = (inside[0] + missing[0], inside[1] + missing[1], inside[2] + missing[2])
        self._blocks: dict[int, np.ndarray] = {}

    def tile(self, start: Start) -> np.ndarray:
        """(d + 2 context, h, w) of HU, a new array; ``start[0]`` is at most a block below an earlier tile's.

        A tile further down is right too, and costs its resampling again.
        """
        first = (start[0] - self._reach, *start[1:])
        low = [max(0, s - b) for s, b in zip(first, self.before, strict=True)]
        high = [min(n, s - b + p) for s, b, p, n in zip(first, self.before, self._size, self._inside, strict=True)]
        rows, columns = slice(low[1], high[1]), slice(low[2], high[2])
        planes = self._planes(low[0], high[0], rows, columns)
        if planes.shape == self._size:
            return planes
        dtype = self._image.dtype
        tile = np.full(self._size, round(self._padding_hu) if dtype.kind == "i" else self._padding_hu, dtype)
        place = [a - (s - b) for a, s, b in zip(low, first, self.before, strict=True)]
        tile[tuple(slice(p, p + n) for p, n in zip(place, planes.shape, strict=True))] = planes
        return tile

    def earlier(self, start: Start) -> np.ndarray | None:
        """(d, h, w) uint8: the classes that the model before this one of a cascade found there; None without one."""
        if self._earlier_DHW is None:
            return None
        tile = np.zeros(self.patch, np.uint8)
        low = [max(0, s - b) for s, b in zip(start, self.before, strict=True)]
        high = [min(n, s - b + p) for s, b, p, n in zip(start, self.before, self.patch, self._inside, strict=True)]
        there = self._earlier_DHW[tuple(slice(a, z) for a, z in zip(low, high, strict=True))]
        place = [a - (s - b) for a, s, b in zip(low, start, self.before, strict=True)]
        tile[tuple(slice(p, p + n) for p, n in zip(place, there.shape, strict=True))] = there
        return tile

    def _planes(self, first: int, last: int, rows: slice, columns: slice) -> np.ndarray:
        if isinstance(self._image, np.ndarray):
            return np.array(self._image[first:last, rows, columns], order="C")
        wanted = range(first // ROWS, (last - 1) // ROWS + 1)
        for old in [block for block in self._blocks if block not in wanted]:
            del self._blocks[old]
        for block in wanted:
            if block not in self._blocks:
                self._compute(block, wanted.stop)
        parts = []
        for block in wanted:
            start = block * ROWS
            parts.append(self._blocks[block][max(0, first - start) : last - start, rows, columns])
        return np.concatenate(parts)

    def _compute(self, block: int, stop: int) -> None:
        """This block and all behind it up to ``stop`` that are not there: side by side."""
        assert isinstance(self._image, ImageSlabs)
        while stop - 1 > block and stop - 1 in self._blocks:
            stop -= 1
        depth, height, width = self._inside
        last = min(depth, stop * ROWS)
        planes = np.empty((last - block * ROWS, height, width), self._image.dtype)
        self._image.fill(planes, block * ROWS, self._threads)
        for place, index in enumerate(range(block, stop)):
            # copies, so that a block that is done with does not keep the others' memory
            part = planes[place * ROWS : (place + 1) * ROWS]
            self._blocks[index] = part if stop - block == 1 else part.copy()
