"""Closed surfaces of labels, simplified and quantised for a page.

Comes in: boolean masks and where they lie. Goes out: triangles in world mm (RAS+), and their bytes in base64. The mask
is averaged down to a raster, so that the number of triangles follows from the raster; its level 0.5 becomes a surface
by naive surface nets (Gibson, MICCAI 1998: one vertex for each cell that the surface crosses, at the mean of its
crossings), smoothed without shrinking (Taubin, SIGGRAPH 1995).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from hilum.volume import Grid

MOST_VERTICES = 60_000  # of one mesh: its indices are 16-bit numbers
_CORNERS = np.array([(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)])
_EDGES = [(a, b) for a in range(8) for b in range(a + 1, 8) if abs(_CORNERS[a] - _CORNERS[b]).sum() == 1]


@dataclass(frozen=True)
class Mesh:
    """A surface.

    Attributes:
        points_mm: (N, 3) float32, world mm (RAS+).
        triangles: (M, 3) int32, counter-clockwise seen from outside.
    """

    points_mm: np.ndarray
    triangles: np.ndarray

    def normals(self) -> np.ndarray:
        """(N, 3) unit normals, weighted by area."""
        a, b, c = (self.points_mm[self.triangles[:, n]] for n in range(3))
        flat = np.cross(b - a, c - a)
        total = np.zeros((len(self.points_mm), 3))
        for n in range(3):
            for axis in range(3):
                total[:, axis] += np.bincount(self.triangles[:, n], flat[:, axis], minlength=len(total))
        unit: np.ndarray = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)
        return unit

    def encoded(self, low_mm: np.ndarray, size_mm: float) -> tuple[str, str]:
        """Points as uint16 of a cube, and triangles as uint16; base64, little-endian."""
        scaled = np.clip(np.round((self.points_mm - low_mm) / size_mm * 65535), 0, 65535).astype("<u2")
        return _text(scaled), _text(self.triangles.astype("<u2"))


def surface(mask_DHW: np.ndarray, grid: Grid, raster_mm: float) -> Mesh | None:
    """The surface of a mask, with triangles of about ``raster_mm``; None if nothing is left of it.

    Args:
        mask_DHW: bool, at least one voxel.
        grid: where it lies.
        raster_mm: distance of samples; never finer than the voxels.
    """
    factors = [max(1, round(raster_mm / s)) for s in grid.spacing_mm]
    field = _averaged(mask_DHW, factors)
    soft = [0.6 if f > 1 else 0.8 for f in factors]
    field = gaussian_filter(np.pad(field, 2), soft)
    level = min(0.5, 0.5 * float(field.max()))
    points, triangles = _surface_nets(field, level)
    if len(triangles) == 0:
        return None
    if len(points) > MOST_VERTICES:
        return surface(mask_DHW, grid, 1.3 * raster_mm)
    index = (points - 2 + 0.5) * factors - 0.5
    mesh = Mesh(grid.world(index).astype(np.float32), triangles)
    if np.linalg.det(grid.affine[:3, :3]) < 0:
        mesh = Mesh(mesh.points_mm, triangles[:, ::-1])
    return _smoothed(mesh)


def _averaged(mask: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Means of blocks, the last ones filled up with nothing."""
    for axis, factor in enumerate(factors):
        if factor > 1:
            starts = np.arange(0, mask.shape[axis], factor)
            kind = np.uint16 if mask.dtype != np.float32 else np.float32
            mask = np.add.reduceat(mask, starts, axis=axis, dtype=kind)
    averaged: np.ndarray = mask.astype(np.float32) / float(np.prod(factors))
    return averaged


def _surface_nets(field: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) fractional indices and (M, 3) triangles of the level of a field that is lower all around."""
    inside = field > level
    count = np.zeros([n - 1 for n in field.shape], np.uint8)
    for i, j, k in _CORNERS:
        count += inside[i : i + count.shape[0], j : j + count.shape[1], k : k + count.shape[2]]
    cells = np.argwhere((count > 0) & (count < 8))
    number = np.full(count.shape, -1, np.int32)
    number[tuple(cells.T)] = np.arange(len(cells))
    values = np.stack([field[tuple((cells + corner).T)] for corner in _CORNERS], axis=1)
    total, weight = np.zeros((len(cells), 3)), np.zeros(len(cells))
    for a, b in _EDGES:
        crossed = (values[:, a] > level) != (values[:, b] > level)
        share = (level - values[crossed, a]) / (values[crossed, b] - values[crossed, a])
        total[crossed] += _CORNERS[a] + share[:, None] * (_CORNERS[b] - _CORNERS[a])
        weight[crossed] += 1
    points = cells + total / np.maximum(weight, 1)[:, None]
    faces = []
    for axis in range(3):
        one, two = (axis + 1) % 3, (axis + 2) % 3
        before = np.take(inside, range(field.shape[axis] - 1), axis=axis)
        after = np.take(inside, range(1, field.shape[axis]), axis=axis)
        edges = np.argwhere(before != after)
        out = before[tuple(edges.T)]
        quad = []
        for first, second in ((-1, -1), (0, -1), (0, 0), (-1, 0)):
            cell = edges.copy()
            cell[:, one] += first
            cell[:, two] += second
            quad.append(number[tuple(cell.T)])
        corners = np.stack(quad, axis=1)
        corners[~out] = corners[~out][:, ::-1]
        faces += [corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]]
    return points, np.concatenate(faces).astype(np.int32)


def _smoothed(mesh: Mesh, rounds: int = 4) -> Mesh:
    """Each point towards the mean of its neighbours and, in turn, a little further back."""
    one = mesh.triangles[:, [0, 1, 2, 1, 2, 0]].ravel()
    other = mesh.triangles[:, [1, 2, 0, 0, 1, 2]].ravel()
    count = np.bincount(one, minlength=len(mesh.points_mm)).clip(1)[:, None]
    points = mesh.points_mm.astype(float)
    for _ in range(rounds):
        for weight in (0.5, -0.53):
            sums = np.stack([np.bincount(one, points[other, axis], minlength=len(points)) for axis in range(3)], axis=1)
            points = points + weight * (sums / count - points)
    return Mesh(points.astype(np.float32), mesh.triangles)


def _text(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
