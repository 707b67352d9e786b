"""Region first: where organs are, so that the rest need not be looked at twice.

Comes in: where a first look found anything. Goes out: the tiles that cover all of it with a margin, and whether what
came out of them was cut. It knows no network; ``predict`` asks one.

The first look is the model's own network at full resolution over tiles that do not overlap (an eighth of the tiles in
3D), one fold, no mirrored copy; or a ``locator``, a small model of its own in the model's folder. A network sees the
spacing that it was trained at, never a coarser one. Every voxel is seen, so that an organ in an unusual place is found
as any other. A voxel counts as found at a probability from ``LEAST_SHARE``, far below what becomes a label, and as sure
where a label wins.

What is found is gathered in cells of a sixteenth of a patch, and of the whole scan's tiles those are done whose middle
holds anything sure: the very same tiles, because a network answers otherwise where it is asked from another corner.
(Tiles of their own around each organ were tried: Dice against the whole scan fell to 0.93 for kidneys and 0.74 for
tumours; with the scan's own it is 0.999.) They reach a quarter of a patch further than what is sure. What is unsure and
not well inside one of them is asked about as if it were sure: nothing that was found is left out. If what comes out
touches the border of what was asked about, more are done there; if an organ of the scheme was not found at all, or
there is little to save, the whole scan is done.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
import torch

from hilum.components import components_of
from hilum.inference.source import Start
from hilum.patches.tiles import axis_starts

LEAST_SHARE = 0.1
CELLS = 16  # a patch along each axis
WORTH = 0.75  # of the tiles of the whole scan: with more, nothing is gained
FIRST_LOOK = 1 / 3  # of them; a first look that takes more is no gain either


class Found:
    """Where something was found, in cells of a sixteenth of a patch.

    Args:
        shape: (D, H, W) of the (padded) image.
        patch: (d, h, w).
        outputs: of the network, K.
        regions: whether these are regions (sigmoid), or classes with background first (softmax).

    Attributes:
        cells: bool array; a cell is True if anything was found in it.
        sure: those in which a label won.
        outputs: bool, for each output whether it won anywhere.
        regions: as given.
    """

    def __init__(self, shape: Start, patch: Start, outputs: int, *, regions: bool):
        self.shape, self.patch, self.regions = shape, patch, regions
        self.cell = tuple(max(1, p // CELLS) for p in patch)
        self.cells = np.zeros([-(-n // c) for n, c in zip(shape, self.cell, strict=True)], bool)
        self.sure = np.zeros_like(self.cells)
        self.outputs = np.zeros(outputs, bool)

    def look(self, start: Start, logits_Kdhw: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Note what a tile (or a slab) whose corner lies at ``start`` shows; returns where that is, and where sure."""
        limit = math.log(LEAST_SHARE / (1 - LEAST_SHARE))
        if self.regions:
            hit = (logits_Kdhw > limit).any(0)
            winning = logits_Kdhw > 0
            sure, wins = winning.any(0), winning.flatten(1).any(1)
        else:
            rest = logits_Kdhw[1:].logsumexp(0) if len(logits_Kdhw) > 1 else logits_Kdhw[0] - math.inf
            hit = rest - logits_Kdhw[0] > limit
            sure = torch.zeros_like(hit)
            wins = torch.zeros(len(logits_Kdhw), dtype=torch.bool)
            if bool(hit.any()):
                winners = logits_Kdhw[:, hit].argmax(0)
                wins[winners.cpu()] = True
                sure[hit] = winners > 0
        self.outputs |= wins.cpu().numpy()
        hit_dhw, sure_dhw = hit.cpu().numpy(), sure.cpu().numpy()
        self.mark(start, hit_dhw, sure=False)
        self.mark(start, sure_dhw)
        return hit_dhw, sure_dhw

    def mark(
        self,
        start: Start,
        hit_dhw: np.ndarray,
        scale: Sequence[float] = (1.0, 1.0, 1.0),
        offset: Start = (0, 0, 0),
        *,
        sure: bool = True,
    ) -> None:
        """Note the True voxels of a mask whose corner lies at ``start``.

        Where the mask has other voxels, ``scale`` takes theirs to the image's; ``offset`` is the image's padding.
        """
        if not hit_dhw.any():
            return
        places, last = np.argwhere(hit_dhw) + np.array(start), np.array(self.cells.shape) - 1
        # a voxel larger than ours may reach into several cells: it is asked about at points less than a cell apart
        counts = [1 if s <= 1 else 1 + math.ceil(s / c) for s, c in zip(scale, self.cell, strict=True)]
        for point in product(*[[0.5] if n == 1 else np.linspace(0, 1 - 1e-6, n) for n in counts]):
            voxels = ((places + np.array(point)) * np.array(scale) + np.array(offset)).astype(int)
            index = tuple(np.clip(voxels // np.array(self.cell), 0, last).T)
            self.cells[index] = True
            if sure:
                self.sure[index] = True

    @property
    def pieces(self) -> int:
        """Connected pieces of found cells."""
        return components_of(self.cells)[1]

    def tiles(self, overlap: float, wider: int = 0) -> list[Start]:
        """The whole scan's tiles whose middle lies where something sure was found, ascending.

        A tile's middle is what is nearer to its centre than to its neighbours', and ``wider`` quarters of a patch
        around it where organs were cut before. What is unsure brings its tiles along where it does not lie well inside
        one of those.
        """
        lines = [
            _middles(n, p, overlap, c, count, wider * p / 4)
            for n, p, c, count in zip(self.shape, self.patch, self.cell, self.cells.shape, strict=True)
        ]
        middles = {tuple(at for at, _ in place): tuple(cut for _, cut in place) for place in product(*lines)}
        asked = {start for start, middle in middles.items() if self.sure[middle].any()}
        left = self.cells.copy()
        for start in asked:
            left[self._inside(start)] = False
        return [start for start, middle in middles.items() if start in asked or left[middle].any()]  # type: ignore[misc]

    def _inside(self, start: Sequence[int]) -> tuple[slice, ...]:
        """The cells well inside a tile: an eighth of a patch from its edges, but for those that are the scan's."""
        return tuple(
            slice(0 if at == 0 else -(-(at + p // 8) // c), -(-n // c) if at + p >= n else (at + p - p // 8) // c)
            for at, p, c, n in zip(start, self.patch, self.cell, self.shape, strict=True)
        )


def _middles(length: int, patch: int, overlap: float, cell: int, cells: int, reach: float) -> list[tuple[int, slice]]:
    """Along one axis: the start of every tile, and the cells that its middle reaches."""
    starts = axis_starts(length, patch, overlap)
    edges = [0.0, *((a + b + patch) / 2 for a, b in pairwise(starts)), float(max(length, patch))]
    return [
        (start, slice(max(0, int((low - reach) // cell)), min(cells, math.ceil((high + reach) / cell))))
        for start, (low, high) in zip(starts, pairwise(edges), strict=True)
    ]


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
