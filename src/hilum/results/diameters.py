"""The diameters of a lesion as a radiologist would draw them.

Comes in: the mask of one lesion, cut out, and the grid of the cut-out in "SPL" order. Goes out: the long axis, the
longest axis at right angles to it in the same axial slice, their end points in world mm, and the longest diameter in
any direction. It knows no labels and no organs.

Definitions. RECIST 1.1 (Eisenhauer et al., Eur J Cancer 45, 2009, 228-247) measures the longest diameter in the axial
plane; WHO (Miller et al., Cancer 47, 1981, 207-214) adds the longest diameter perpendicular to it. Both are taken on
the convex hull of one connected outline (8 neighbours) in one slice, so an end point always lies on the outline, and
the line may cross a notch. Pieces of a lesion that hang together only through other slices are not joined by a line:
what a reader sees in the slice are two outlines.

Where the outline runs. A voxel belongs to a lesion if its centre does, so the true border lies somewhere between the
outermost centres and the next ones. On random ellipses and discs of 4 to 64 voxels the longest distance between voxel
centres is 0.35 to 0.7 voxels too short on average, that between outer voxel edges 0.2 to 0.55 too long; an outline
half-way between (a quarter of a voxel beyond the centres, along each in-plane axis) is off by -0.3 to +0.1 and is the
one used here. It stays within half a voxel of either convention.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull
from scipy.spatial.distance import cdist

from hilum.components import components_of
from hilum.volume import Grid

OUTLINE_VOXELS = 0.25
_DIAMOND = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


@dataclass(frozen=True)
class Diameters:
    """Two axes of one lesion in its widest axial slice.

    Attributes:
        slice_index: index of that slice along axis 0 of the grid that was given.
        long_mm: length of the long axis.
        short_mm: length of the longest line at right angles to it in that slice.
        long_points_mm: (2, 3) world mm (RAS+), its ends.
        short_points_mm: (2, 3) world mm (RAS+), its ends.
        any_direction_mm: the longest diameter in space, across slices.
    """

    slice_index: int
    long_mm: float
    short_mm: float
    long_points_mm: np.ndarray
    short_points_mm: np.ndarray
    any_direction_mm: float


def diameters(mask_DHW: np.ndarray, grid: Grid) -> Diameters:
    """The diameters of the voxels in a mask.

    Args:
        mask_DHW: (D, H, W) bool with at least one voxel, in SPL order.
        grid: where these voxels lie; oblique and sheared grids are measured as they are.
    """
    assert mask_DHW.shape == grid.shape and mask_DHW.any(), (mask_DHW.shape, grid.shape)
    to_mm = _in_plane_metric(grid)
    outlines = outlines_of(mask_DHW)
    # the corner-to-corner distance of a slice's box bounds its diameter: most slices need no closer look
    bounds = {z: float(np.linalg.norm(np.ptp(points @ to_mm, axis=0))) for z, points in outlines.items()}
    best_mm, best_slice = -1.0, 0
    best, best_pair = np.zeros((0, 2)), (np.zeros(2), np.zeros(2))
    for z in sorted(outlines, key=lambda z: -bounds[z]):
        if bounds[z] <= best_mm + 1e-9:
            break
        for points in _pieces(mask_DHW[z], outlines[z]):
            length_mm, pair = _longest(points, to_mm)
            if length_mm > best_mm + 1e-9:
                best_mm, best_slice, best, best_pair = length_mm, z, points, pair
    short_mm, short_pair = _longest_across(best, best_pair, to_mm)
    return Diameters(
        slice_index=best_slice,
        long_mm=best_mm,
        short_mm=short_mm,
        long_points_mm=_world(grid, best_slice, best_pair),
        short_points_mm=_world(grid, best_slice, short_pair),
        any_direction_mm=_longest_in_space(outlines, grid),
    )


def outlines_of(mask_DHW: np.ndarray, beyond: float = OUTLINE_VOXELS) -> dict[int, np.ndarray]:
    """For every slice that holds voxels: the (N, 2) hull vertices (row, column) of its outline.

    Args:
        mask_DHW: (D, H, W) bool.
        beyond: how far the outline runs beyond the voxel centres, in voxels; above 0, or a single row has no hull.
    """
    return {int(z): _outline(mask_DHW[z], beyond) for z in np.flatnonzero(mask_DHW.any(axis=(1, 2)))}


def _pieces(mask_HW: np.ndarray, outline: np.ndarray) -> list[np.ndarray]:
    """The outline of each connected piece of a slice; the one of the whole slice if there is but one."""
    low, high = np.floor(outline.min(axis=0)).astype(int), np.ceil(outline.max(axis=0)).astype(int) + 1
    low = np.maximum(low, 0)
    pieces, count = components_of(mask_HW[low[0] : high[0], low[1] : high[1]][None])
    if count == 1:
        return [outline]
    return [_outline(pieces[0] == n, OUTLINE_VOXELS) + low for n in range(1, count + 1)]


def _in_plane_metric(grid: Grid) -> np.ndarray:
    """(2, 2) matrix M: index differences (row, column) @ M are mm along two perpendicular directions of the slice."""
    row, column = grid.affine[:3, 1], grid.affine[:3, 2]
    along = column / np.linalg.norm(column)
    across = row - (row @ along) * along
    return np.array([[np.linalg.norm(across), row @ along], [0.0, np.linalg.norm(column)]])


def _outline(mask_HW: np.ndarray, beyond: float) -> np.ndarray:
    """(N, 2) hull vertices (row, column) of the outline, in order around it.

    The first and the last voxel of every row are enough: all others lie between them.
    """
    rows = np.flatnonzero(mask_HW.any(axis=1))
    first = mask_HW[rows].argmax(axis=1)
    last = mask_HW.shape[1] - 1 - mask_HW[rows, ::-1].argmax(axis=1)
    ends = np.concatenate([np.stack([rows, first], axis=1), np.stack([rows, last], axis=1)]).astype(float)
    points = (ends[:, None] + beyond * _DIAMOND).reshape(-1, 2)
    vertices: np.ndarray = points[ConvexHull(points).vertices]
    return vertices


def _longest(points: np.ndarray, to_mm: np.ndarray) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
    """The largest distance in mm between two hull vertices, and the two."""
    placed = points @ to_mm
    between = cdist(placed, placed)
    a, b = np.unravel_index(int(between.argmax()), between.shape)
    return float(between[a, b]), (points[a], points[b])


def _longest_across(
    points: np.ndarray, axis: tuple[np.ndarray, np.ndarray], to_mm: np.ndarray
) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
    """The longest chord of a convex polygon at right angles to an axis, and its ends (row, column).

    Along the axis the length of the chord is concave and bends only at vertices, so it is enough to look at the
    vertices.
    """
    start, stop = axis[0] @ to_mm, axis[1] @ to_mm
    along = (stop - start) / np.linalg.norm(stop - start)
    across = np.array([-along[1], along[0]])
    placed = points @ to_mm - start
    u, v = placed @ along, placed @ across
    positions = np.unique(np.concatenate([u, np.linspace(u.min(), u.max(), 3)]))
    upper, lower = _chain(u, v, positions, 1), _chain(u, v, positions, -1)
    best = int((upper - lower).argmax())
    ends = [start + positions[best] * along + side[best] * across for side in (lower, upper)]
    back = np.linalg.inv(to_mm)
    return float(upper[best] - lower[best]), (ends[0] @ back, ends[1] @ back)


def _chain(u: np.ndarray, v: np.ndarray, at: np.ndarray, sign: int) -> np.ndarray:
    """Height of the upper (+1) or lower (-1) border of a convex polygon at positions ``at`` along u."""
    edges = np.stack([u, v, np.roll(u, -1), np.roll(v, -1)])
    height = np.full(len(at), -np.inf)
    for u0, v0, u1, v1 in edges.T:
        low, high = min(u0, u1), max(u0, u1)
        inside = (at >= low - 1e-9) & (at <= high + 1e-9)
        if high - low < 1e-9:
            here = np.full(int(inside.sum()), max(sign * v0, sign * v1))
        else:
            here = sign * (v0 + (v1 - v0) * np.clip((at[inside] - u0) / (u1 - u0), 0, 1))
        height[inside] = np.maximum(height[inside], here)
    return sign * height


def _longest_in_space(outlines: dict[int, np.ndarray], grid: Grid) -> float:
    """The longest diameter in any direction: over the hull of all slices' hulls."""
    points = np.concatenate([np.column_stack([np.full(len(xy), float(z)), xy]) for z, xy in outlines.items()])
    step = np.array([OUTLINE_VOXELS, 0, 0])
    ends = np.concatenate([points + step, points - step])
    placed = grid.world(ends[ConvexHull(ends).vertices])
    return float(max(cdist(block, placed).max() for block in np.array_split(placed, 1 + len(placed) // 512)))


def _world(grid: Grid, z: int, pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return grid.world([[z, *pair[0]], [z, *pair[1]]])
