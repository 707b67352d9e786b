"""A voxel grid as slabs to paint on: warped body coordinates, tissue noise, empty air.

Comes in: a grid whose axes run along the body's, and a ``Torso``. Goes out: ``Slab`` after ``Slab``, from the feet
up. It paints nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hilum.phantom.anatomy import Torso
from hilum.phantom.shapes import WARP_MM, Noise, Slab
from hilum.volume import Grid

SLAB_VOXELS = 1_500_000


@dataclass(frozen=True)
class Canvas:
    """Body positions (mm) of columns, rows and slices, and the width of a blurred surface."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    soft_mm: float


def canvas(grid: Grid, scale: float, origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Canvas:
    """The canvas of a grid in "LPS" order.

    Args:
        grid: where the voxels lie.
        scale: world mm per body mm.
        origin_mm: world position of the body's origin.
    """
    x, y, z = (
        np.round((grid.affine[a, 3] - origin_mm[a] + grid.affine[a, a] * np.arange(n)) / scale, 6)
        for a, n in enumerate(grid.shape)
    )
    return Canvas(x, y, z, float(np.cbrt(np.prod(grid.spacing_mm))) / scale)


def slabs(axes: Canvas, torso: Torso, rng: np.random.Generator) -> Iterator[tuple[slice, Slab]]:
    """Which slices, and the slab of air to paint them on.

    Args:
        axes: from ``canvas``.
        torso: whose spine bends the coordinates.
        rng: random numbers of warp and tissue noise, all drawn before the first slab.
    """
    warps = [Noise(rng, 52.0) for _ in range(3)]
    ripple, texture = Noise(rng, 13.0), Noise(rng, 5.0)
    x, y = axes.x, axes.y
    depth = max(1, SLAB_VOXELS // (len(x) * len(y)))
    for start in range(0, len(axes.z), depth):
        cut = slice(start, min(len(axes.z), start + depth))
        zs = axes.z[cut]
        moved = [np.clip(warp.on(zs, y, x) * np.float32(2.2), -WARP_MM, WARP_MM) for warp in warps]
        moved[0] += x[None, None, :].astype(np.float32)
        moved[1] += y[None, :, None].astype(np.float32)
        bend = (torso.kyphosis * np.clip((zs + 50) / 100, -2.2, 2.2) ** 2).astype(np.float32)
        moved[1] += bend[:, None, None]
        moved[2] += zs[:, None, None].astype(np.float32)
        size = (len(zs), len(y), len(x))
        yield cut, Slab(
            x, y, zs, moved[0], moved[1], moved[2], np.full(size, np.float32(-1000)), np.zeros(size, np.uint8),
            ripple.on(zs, y, x), texture.on(zs, y, x), bend, axes.soft_mm,
        )  # fmt: skip
