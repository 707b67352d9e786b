"""How far apart two masks lie, and what lies within a margin.

Comes in: masks or voxel indices on one grid, oblique or sheared as it may be. Goes out: mm and masks. It knows no
labels.

A gap is the space between the voxels, not between their centres: neighbours are 0 mm apart, across corners too. Two
voxels (a, b, c) steps apart leave (|a| - 1, |b| - 1, |c| - 1) steps between them, none below 0. So the gap between two
sets is the distance of centres after one of them has grown by a voxel all around. (The nearest centres need not be
where the gap is: on thick slices the voxel above is a neighbour and far away.)
"""

from __future__ import annotations

import edt
import numpy as np
from scipy.spatial import cKDTree

from hilum.results.diameters import OUTLINE_VOXELS
from hilum.volume import Grid


def border_of(mask_DHW: np.ndarray) -> np.ndarray:
    """(N, 3) indices of the voxels of a mask that have a face to something else, or to the end of the array."""
    wide = np.pad(mask_DHW, 1)
    core = wide.copy()
    for axis in range(3):
        core &= np.roll(wide, 1, axis) & np.roll(wide, -1, axis)
    return np.argwhere((wide & ~core)[1:-1, 1:-1, 1:-1])


def gap_mm(one: np.ndarray, other: np.ndarray, grid: Grid) -> float | None:
    """The gap between two sets of voxels, 0 if they touch or overlap; None if either is empty.

    Args:
        one: (N, 3) indices, best the smaller set; border voxels are enough.
        other: (M, 3) indices.
        grid: on which both lie.
    """
    if len(one) == 0 or len(other) == 0:
        return None
    return gap_to_tree_mm(one, cKDTree(grid.world(other)), grid)


def gap_to_tree_mm(one: np.ndarray, tree: cKDTree, grid: Grid) -> float:
    """``gap_mm`` where the tree over the world positions of the other set is at hand."""
    low = one.min(axis=0) - 1
    grown_DHW = np.zeros(one.max(axis=0) - low + 2, bool)
    for step in np.ndindex(3, 3, 3):
        grown_DHW[tuple((one - low - 1 + step).T)] = True
    points = grid.world(np.argwhere(grown_DHW) + low)
    # a few points first: what they find bounds the search of all others, which is many times faster far away
    bound = float(tree.query(points[:: 1 + len(points) // 16])[0].min())
    distances, _ = tree.query(points, distance_upper_bound=np.nextafter(bound, np.inf) + 1e-9)
    gap = float(distances.min())
    return gap if gap > 1e-6 else 0.0  # the same voxel, reached in two ways


def within(mask_DHW: np.ndarray, grid: Grid, margin_mm: float) -> np.ndarray:
    """The voxels within a margin of a mask, itself included: (D, H, W) bool.

    The mask's surface is taken to lie a quarter of a voxel (of the cube root of its volume) beyond its outermost
    centres, as in ``diameters``.
    """
    reach = margin_mm + OUTLINE_VOXELS * grid.voxel_volume_mm3 ** (1 / 3)
    axes = grid.affine[:3, :3] / np.array(grid.spacing_mm)
    if np.abs(axes.T @ axes - np.eye(3)).max() < 1e-4:
        near: np.ndarray = edt.edt(~mask_DHW, anisotropy=grid.spacing_mm) <= reach
        return near if mask_DHW.any() else np.zeros_like(mask_DHW)
    near = mask_DHW.copy()  # sheared: a distance transform that takes spacings would be wrong
    rest = np.argwhere(~mask_DHW)
    border = border_of(mask_DHW)
    if len(rest) and len(border):
        found, _ = cKDTree(grid.world(border)).query(grid.world(rest), distance_upper_bound=reach + 1e-9)
        near[tuple(rest[np.isfinite(found)].T)] = True
    return near
