"""The part of a label map that holds labels, cut out, and the organs in it.

Comes in: a label map, its scheme and the scans on its grid. Goes out: an ``Inside`` in "SPL" order with everything
that measuring needs, and a ``Part`` for each organ and side, in a box of its own. It computes no measurement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from hilum.components import Box, wider
from hilum.labels import LabelScheme
from hilum.results.contour import contour_of
from hilum.results.shape import Surface, surface_of
from hilum.results.sides import SIDES, body_mid_x_mm, is_two_sided, sides_of
from hilum.volume import INSIDE, Grid, Volume


@dataclass(frozen=True)
class Inside:
    """The box around all labels and one voxel more, where there is one.

    Attributes:
        labels_DHW: uint8, in SPL order.
        grid: of the box.
        full: grid of the whole map, in SPL order.
        start: (3,) where the box begins in the whole map.
        hu_DHW: the scan in the box, or None.
        second_DHW: a second phase in the box, or None.
        scheme: what the labels mean.
        side_DHW: organ -> codes of ``SIDES``, for what comes in pairs (see ``find_sides``).
    """

    labels_DHW: np.ndarray
    grid: Grid
    full: Grid
    start: np.ndarray
    hu_DHW: np.ndarray | None
    second_DHW: np.ndarray | None
    scheme: LabelScheme
    side_DHW: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel."""
        return self.grid.voxel_volume_mm3 / 1000.0

    def at_edge(self, box: Box) -> bool:
        """Whether a box reaches the first or last slice, or the border of the image: then there is at least that."""
        first = self.start + [part.start for part in box]
        last = self.start + [part.stop for part in box]
        return bool((first <= 0).any() or (last >= np.array(self.full.shape)).any())


@dataclass(frozen=True)
class Part:
    """One organ, or one side of a pair, with its lesions, in its own box (one voxel wider where there is one).

    Attributes:
        organ: name in the scheme.
        side: "right", "left", or "" for what is single.
        box: where it lies in the ``Inside``.
        tight: the smallest box that holds it, in the ``Inside``.
        grid: of its box.
        whole_DHW: organ and lesions.
        own_DHW: the organ without its lesions.
    """

    organ: str
    side: str
    box: Box
    tight: Box
    grid: Grid
    whole_DHW: np.ndarray
    own_DHW: np.ndarray

    @property
    def title(self) -> str:
        """``"right kidney"``, ``"liver"``."""
        return f"{self.side} {self.organ}".strip()

    @cached_property
    def surface(self) -> Surface:
        """The outer faces of organ and lesions together."""
        return surface_of(self.whole_DHW, self.grid)

    @cached_property
    def outside(self) -> tuple[np.ndarray, cKDTree]:
        """(N, 3) indices of the voxels just outside, and a tree over their world positions."""
        index = np.unique(self.surface.outer, axis=0)
        return index, cKDTree(self.grid.world(index))

    @cached_property
    def hull_DHW(self) -> np.ndarray:
        """The convex outline of the organ without its lesions and their rims, filled (see ``contour``)."""
        return contour_of(self.own_DHW, self.whole_DHW & ~self.own_DHW, self.grid)

    def placed(self, box: Box, mask_DHW: np.ndarray) -> np.ndarray:
        """A mask of another box of the ``Inside``, in the box of this part; what lies beyond is cut off."""
        out = np.zeros(self.whole_DHW.shape, bool)
        here, there = [], []
        for mine, its in zip(self.box, box, strict=True):
            first, last = max(mine.start, its.start), min(mine.stop, its.stop)
            if last <= first:
                return out
            here.append(slice(first - mine.start, last - mine.start))
            there.append(slice(first - its.start, last - its.start))
        out[tuple(here)] = mask_DHW[tuple(there)]
        return out


def cut_out(labels: Volume, scheme: LabelScheme, scan: Volume | None, second: Volume | None = None) -> Inside | None:
    """The box around all labels, or None if there are none.

    Args:
        labels: checked against the scheme, any axis order.
        scheme: what they mean.
        scan: in SPL order, on the same grid.
        second: likewise.
    """
    box = bounding_box(labels.array)
    if box is None:
        return None
    start = np.maximum([part.start - 1 for part in box], 0)
    stop = np.minimum([part.stop + 1 for part in box], labels.array.shape)
    cut = labels.cropped(start, stop).oriented()
    full = labels.grid.oriented(INSIDE)
    inside_start = np.round(full.index(cut.world([0, 0, 0]))).astype(int)
    window = tuple(slice(a, a + n) for a, n in zip(inside_start, cut.shape, strict=True))
    hu, later = (None if volume is None else volume.array[window] for volume in (scan, second))
    return Inside(np.ascontiguousarray(cut.array), cut.grid, full, inside_start, hu, later, scheme)


def bounding_box(array: np.ndarray) -> Box | None:
    """The smallest box that holds all voxels that are not 0, or None if all are."""
    box: list[slice] = [slice(0, n) for n in array.shape]
    # the axis that is slowest in memory first: what it cuts away need not be read again
    for axis in sorted(range(array.ndim), key=lambda a: -abs(array.strides[a])):
        others = tuple(a for a in range(array.ndim) if a != axis)
        hit = np.flatnonzero(array[tuple(box)].any(axis=others))
        if len(hit) == 0:
            return None
        box[axis] = slice(int(hit[0]), int(hit[-1]) + 1)
    return box[0], box[1], box[2]


def find_sides(inside: Inside, scan: Volume | None) -> list[str]:
    """Fill the side maps of what comes in pairs; return warnings."""
    warnings: list[str] = []
    scheme = inside.scheme
    body_x_mm: float | None = None
    paired = [organ for organ in scheme.organs if is_two_sided(scheme, organ)]
    if paired and scan is not None:
        body_x_mm = body_mid_x_mm(scan, (int(inside.start[0]), int(inside.start[0]) + inside.grid.shape[0]))
    centre_x_mm = float(inside.full.world((np.array(inside.full.shape) - 1) / 2)[0])
    for organ in paired:
        inside.side_DHW[organ], said = sides_of(
            inside.labels_DHW, inside.grid, scheme, organ, body_x_mm=body_x_mm, centre_x_mm=centre_x_mm
        )
        warnings += said
    return warnings


def parts_of(inside: Inside) -> Iterator[Part]:
    """Each organ, and side of it, that has voxels, in the order of the scheme; right before left."""
    scheme = inside.scheme
    for organ in scheme.organs:
        own = scheme.of(organ, "organ")
        if not own:
            continue
        map_DHW = inside.side_DHW.get(organ)
        table = np.zeros(256, bool)
        table[list(scheme.of(organ))] = True
        whole = table[inside.labels_DHW]
        for code in (0,) if map_DHW is None else (1, 2):
            mask = whole if map_DHW is None else whole & (map_DHW == code)
            tight = bounding_box(mask)
            if tight is None:
                continue
            box = wider(tight, mask.shape)
            grid = inside.grid.cropped([part.start for part in box], [part.stop for part in box])
            mask = np.ascontiguousarray(mask[box])
            yield Part(organ, SIDES[code], box, tight, grid, mask, mask & np.isin(inside.labels_DHW[box], own))
