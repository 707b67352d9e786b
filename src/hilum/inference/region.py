"""Region first: where organs are, so that the rest need not be looked at twice.

Comes in: where a first look found anything. Goes out: the tiles that cover all of it with a margin, and whether what
came out of them was cut. It knows no network; ``predict`` asks one.

The first look is the model's own network at full resolution over tiles that do not overlap (an eighth of the tiles in
3D), one fold, no mirrored copy; or a ``locator``, a small model of its own in the model's folder. A network sees the
spacing that it was trained at, never a coarser one. Every voxel is seen, so that an organ in an unusual place is found
as any other. A voxel counts as found at a probability from ``LEAST_SHARE``, far below what becomes a label.

What is found is gathered in cells, joined and widened by ``MARGIN_MM``, and each box gets tiles of its own that fit it.
If what comes out touches the border of what was asked about, the boxes grow there and are done again; if an organ of
the scheme was not found at all, or the boxes leave little to save, the whole scan is done.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import torch

from hilum.components import components_of
from hilum.inference.source import Start
from hilum.patches.tiles import axis_starts

LEAST_SHARE = 0.1
MARGIN_MM = 15.0
CELLS = 8  # a patch along each axis
_SWARM = 64  # boxes
WORTH = 0.75  # of the tiles of the whole scan: with more, nothing is gained
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


class Found:
    """Where something was found, in cells of an eighth of a patch.

    Args:
        shape: (D, H, W) of the (padded) image.
        patch: (d, h, w).
        outputs: of the network, K.
        regions: whether these are regions (sigmoid), or classes with background first (softmax).

    Attributes:
        cells: bool array; a cell is True if anything was found in it.
        outputs: bool, for each output whether it won anywhere.
        regions: as given.
    """

    def __init__(self, shape: Start, patch: Start, outputs: int, *, regions: bool):
        self.shape, self.patch, self.regions = shape, patch, regions
        self.cell = tuple(max(1, p // CELLS) for p in patch)
        self.cells = np.zeros([-(-n // c) for n, c in zip(shape, self.cell, strict=True)], bool)
        self.outputs = np.zeros(outputs, bool)

    def look(self, start: Start, logits_Kdhw: torch.Tensor) -> np.ndarray:
        """Note what a tile (or a slab) whose corner lies at ``start`` shows; returns where that is."""
        limit = math.log(LEAST_SHARE / (1 - LEAST_SHARE))
        if self.regions:
            hit = (logits_Kdhw > limit).any(0)
            wins = (logits_Kdhw > 0).flatten(1).any(1)
        else:
            rest = logits_Kdhw[1:].logsumexp(0) if len(logits_Kdhw) > 1 else logits_Kdhw[0] - math.inf
            hit = rest - logits_Kdhw[0] > limit
            wins = torch.zeros(len(logits_Kdhw), dtype=torch.bool)
            if bool(hit.any()):
                wins[logits_Kdhw[:, hit].argmax(0).cpu()] = True
        self.outputs |= wins.cpu().numpy()
        hit_dhw = hit.cpu().numpy()
        self.mark(start, hit_dhw)
        return hit_dhw

    def mark(
        self,
        start: Start,
        hit_dhw: np.ndarray,
        scale: Sequence[float] = (1.0, 1.0, 1.0),
        offset: Start = (0, 0, 0),
    ) -> None:
        """Note the True voxels of a mask whose corner lies at ``start``.

        Where the mask has other voxels, ``scale`` takes theirs to the image's; ``offset`` is the image's padding.
        """
        if not hit_dhw.any():
            return
        places, last = np.argwhere(hit_dhw) + np.array(start), np.array(self.cells.shape) - 1
        corners = product((0.0, 1.0), repeat=3) if max(scale) > 1 else [(0.5, 0.5, 0.5)]
        for corner in corners:  # a voxel larger than ours may reach into several cells
            voxels = ((places + np.array(corner)) * np.array(scale) + np.array(offset)).astype(int)
            index = voxels // np.array(self.cell)
            self.cells[tuple(np.clip(index, 0, last).T)] = True

    def boxes(self, margin: Sequence[int]) -> list[Box]:
        """Boxes (start, stop) in voxels that hold all found cells and a margin; joined where that costs no tiles."""
        numbered, count = components_of(self.cells)
        found: list[Box] = []
        for number in range(1, count + 1):
            places = np.argwhere(numbered == number)
            low, high = places.min(axis=0), places.max(axis=0) + 1
            found.append(
                tuple(  # type: ignore[arg-type]
                    (max(0, int(a * c) - m), min(n, int(b * c) + m))
                    for a, b, c, m, n in zip(low, high, self.cell, margin, self.shape, strict=True)
                )
            )
        return self._joined(found)

    def tiles(self, boxes: Sequence[Box], overlap: float) -> list[Start]:
        """The tiles of all boxes, ascending."""
        return sorted({start for box in boxes for start in self._tiles_of(box, overlap)})

    def _tiles_of(self, box: Box, overlap: float) -> list[Start]:
        lines = []
        for (low, high), p, n in zip(box, self.patch, self.shape, strict=True):
            first = min(max(0, (low + high - p) // 2), n - p) if high - low <= p else low
            lines.append([first + s for s in axis_starts(high - low, p, overlap)])
        z, y, x = lines
        return list(product(z, y, x))

    def _count(self, box: Box) -> int:
        """How many tiles a box takes (an overlap of one half stands for all)."""
        return math.prod(len(axis_starts(high - low, p, 0.5)) for (low, high), p in zip(box, self.patch, strict=True))

    def _joined(self, boxes: list[Box]) -> list[Box]:
        """Greedily: two boxes become one where that needs no more tiles than both. A swarm becomes one box."""
        if len(boxes) > _SWARM:
            return [_union(boxes)]
        place = 0
        while place < len(boxes):
            mine = self._count(boxes[place])
            for other in range(place + 1, len(boxes)):
                both = _union([boxes[place], boxes[other]])
                if self._count(both) <= mine + self._count(boxes[other]):
                    boxes[place] = both
                    del boxes[other]
                    place = -1  # what was apart before may be near now
                    break
            place += 1
        return boxes


def _union(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds all."""
    z, y, x = ((min(b[axis][0] for b in boxes), max(b[axis][1] for b in boxes)) for axis in range(3))
    return z, y, x


class Border:
    """Notes where labels touch voxels that no tile was asked about: there something was cut.

    Args:
        regions: as for ``Found``.

    Attributes:
        places: (z, y, x) of touching voxels, a few of each plane, in the image without padding.
    """

    def __init__(self, *, regions: bool):
        self._regions = regions
        self._last: tuple[int, np.ndarray, np.ndarray] | None = None
        self.places: list[Start] = []

    def look(self, first: int, logits_KSHW: torch.Tensor, unasked_SHW: torch.Tensor | None) -> None:
        """The next finished planes, bottom to top."""
        if self._regions:
            there = (logits_KSHW > 0).any(0)
        else:
            there = logits_KSHW[1:].amax(0) > logits_KSHW[0] if len(logits_KSHW) > 1 else logits_KSHW[0] > math.inf
        for place, plane_HW in enumerate(there.cpu().numpy()):
            out_HW = np.zeros_like(plane_HW) if unasked_SHW is None else unasked_SHW[place].cpu().numpy()
            z = first + place
            self._note(z, plane_HW & _near(out_HW))
            if self._last is not None and self._last[0] == z - 1:
                self._note(z, plane_HW & self._last[2])
                self._note(z - 1, self._last[1] & out_HW)
            self._last = (z, plane_HW, out_HW)

    def _note(self, z: int, touching_HW: np.ndarray) -> None:
        hits = np.argwhere(touching_HW)
        self.places += [(z, int(y), int(x)) for y, x in hits[:: max(1, len(hits) // 64)]]


def _near(mask_HW: np.ndarray) -> np.ndarray:
    """The four neighbours of True pixels."""
    near = np.zeros_like(mask_HW)
    near[1:] |= mask_HW[:-1]
    near[:-1] |= mask_HW[1:]
    near[:, 1:] |= mask_HW[:, :-1]
    near[:, :-1] |= mask_HW[:, 1:]
    return near
