"""Analytic shapes on any grid, and what geometry says of them."""

from __future__ import annotations

import numpy as np

from hilum.volume import Grid

Triple = tuple[float, float, float]


def rotation(degrees: float, axis: Triple = (1.0, 0.0, 0.0)) -> np.ndarray:
    """(3, 3) turn about an axis (Rodrigues)."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * (k @ k)


def grid_around(extent_mm: Triple, spacing_mm: Triple, turn: np.ndarray | None = None) -> Grid:
    """An SPL grid (turned, if asked) whose centre is world 0 and that is at least so large along z, y, x."""
    d, h, w = spacing_mm
    shape = tuple(int(np.ceil(e / s)) + 4 for e, s in zip(extent_mm, spacing_mm, strict=True))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, -w], [0, -h, 0], [d, 0, 0]], float)
    if turn is not None:
        affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)  # type: ignore[arg-type]


def world_of(grid: Grid) -> np.ndarray:
    """(D, H, W, 3) world mm of each voxel."""
    return grid.world(np.stack(np.indices(grid.shape), axis=-1))


def ellipsoid(grid: Grid, centre_mm: Triple, half_axes_mm: Triple, turn: np.ndarray | None = None) -> np.ndarray:
    """Voxels whose centres lie in an ellipsoid with half axes along x, y, z, turned."""
    away = world_of(grid) - centre_mm
    if turn is not None:
        away = away @ turn
    mask: np.ndarray = ((away / half_axes_mm) ** 2).sum(axis=-1) <= 1
    return mask


def ball(grid: Grid, centre_mm: Triple, radius_mm: float) -> np.ndarray:
    """Voxels whose centres lie in a ball."""
    return ellipsoid(grid, centre_mm, (radius_mm,) * 3)


def cylinder(grid: Grid, radius_mm: float, height_mm: float, turn: np.ndarray) -> np.ndarray:
    """A cylinder around world 0, its axis along z before it is turned."""
    away = world_of(grid) @ turn
    mask: np.ndarray = (np.hypot(away[..., 0], away[..., 1]) <= radius_mm) & (np.abs(away[..., 2]) <= height_mm / 2)
    return mask


def ellipsoid_area_mm2(a: float, b: float, c: float) -> float:
    """Surface of an ellipsoid, integrated on 400 x 800 patches."""
    t, f = np.meshgrid((np.arange(400) + 0.5) / 400 * np.pi, (np.arange(800) + 0.5) / 800 * 2 * np.pi, indexing="ij")
    x, y = b * c * np.sin(t) ** 2 * np.cos(f), a * c * np.sin(t) ** 2 * np.sin(f)
    z = a * b * np.sin(t) * np.cos(t)
    return float(np.sqrt(x**2 + y**2 + z**2).sum() * (np.pi / 400) * (2 * np.pi / 800))
