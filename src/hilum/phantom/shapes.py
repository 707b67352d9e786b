"""Solid shapes, smooth noise and the canvas they are painted on.

Comes in: shapes in body coordinates (mm). Goes out: Hounsfield units and part numbers on a piece of a voxel grid. This
module knows no anatomy.

Every shape is a *signed distance*: negative inside, positive outside, in mm (approximate away from the surface, right
near it). A voxel on a surface gets a mixture of both sides, as in a scanner; its part number follows the sign.

Arrays are (Z, Y, X): axis 0 towards the head. Body axes are those of RAS+: x to the patient's right, y to the front,
z to the head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Vector = tuple[float, float, float]
# How far the smooth warp moves a point at most, along each axis; boxes are widened by it.
WARP_MM = 5.5


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid; ``axes`` are its three unit axes as rows, or None for the body's own."""

    centre: Vector
    radii: Vector
    axes: np.ndarray | None = None

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner of a box around it."""
        axes = np.eye(3) if self.axes is None else self.axes
        reach = np.sqrt(((axes * np.array(self.radii)[:, None]) ** 2).sum(axis=0))
        return np.array(self.centre) - reach, np.array(self.centre) + reach


@dataclass(frozen=True)
class Tube:
    """A chain of round cones through ``points`` with a radius at each."""

    points: tuple[Vector, ...]
    radii: tuple[float, ...]

    def pieces(self) -> Iterator[Tube]:
        """Its cones one by one, so that each is painted in its own small box."""
        for i in range(len(self.points) - 1):
            yield Tube(self.points[i : i + 2], self.radii[i : i + 2])

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner of a box around it."""
        points, radii = np.array(self.points), np.array(self.radii)[:, None]
        return (points - radii).min(axis=0), (points + radii).max(axis=0)


class Noise:
    """Smooth random values of mean 0 and spread about 1: a cubic B-spline over a lattice of normal numbers.

    The lattice lies fixed in the body, so that one patient looks alike on any voxel grid. It is interpolated with four
    taps an axis and no BLAS, whose order of summation varies with the number of threads.
    """

    EXTENT_MM = (320.0, 320.0, 620.0)

    def __init__(self, rng: np.random.Generator, pitch_mm: float):
        self.pitch_mm = pitch_mm
        nx, ny, nz = (int(2 * e / pitch_mm) + 4 for e in self.EXTENT_MM)
        # 0.479 is the mean over positions of the sum of squared cubic B-spline weights
        self._lattice = rng.standard_normal((nz, ny, nx), dtype=np.float32) * np.float32(0.479**-1.5)

    def on(self, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """(len(z), len(y), len(x)) float32 values on a regular grid of positions in mm."""
        values = self._lattice
        for axis, positions in enumerate((z, y, x)):
            place = (positions + self.EXTENT_MM[2 - axis]) / self.pitch_mm + 1
            place = np.clip(place, 1, values.shape[axis] - 2.001)
            base = np.floor(place).astype(np.intp)
            t = (place - base).astype(np.float32)
            taps = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
            shape = [1, 1, 1]
            shape[axis] = len(positions)
            total = np.zeros((), np.float32)
            for k, weights in enumerate(taps):
                total = total + np.take(values, base - 1 + k, axis=axis) * (weights / np.float32(6)).reshape(shape)
            values = total
        return values


@dataclass
class Slab:
    """A piece of the voxel grid while it is painted.

    Attributes:
        x, y, z: plain body positions (mm) of the columns, rows and slices; x and y descend (LPS order).
        X, Y, Z: (Z, Y, X) float32 body coordinates after the warp.
        hu: (Z, Y, X) float32.
        part: (Z, Y, X) uint8, what a voxel belongs to.
        ripple, texture: (Z, Y, X) float32 noise of about 14 mm and 5 mm, to roughen surfaces and to mottle tissue.
        bend: (Z,) how far (mm) each slice is moved forward before the warp: the curve of the spine.
        soft_mm: width over which a surface is blurred, about one voxel.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    X: np.ndarray
    Y: np.ndarray
    Z: np.ndarray
    hu: np.ndarray
    part: np.ndarray
    ripple: np.ndarray
    texture: np.ndarray
    bend: np.ndarray
    soft_mm: float

    def box(self, low: Any, high: Any, margin_mm: float = 0.0) -> Slab | None:
        """The views inside a box of body coordinates, or None if the slab does not reach it."""
        margin = WARP_MM + margin_mm + self.soft_mm
        cuts = []
        ahead = behind = 0.0
        for positions, axis in ((self.z, 2), (self.y, 1), (self.x, 0)):
            above = positions >= low[axis] - margin - (ahead if axis == 1 else 0.0)
            inside = np.flatnonzero(above & (positions <= high[axis] + margin - (behind if axis == 1 else 0.0)))
            if not len(inside):
                return None
            cuts.append(slice(int(inside[0]), int(inside[-1]) + 1))
            if axis == 2:
                ahead, behind = float(self.bend[cuts[0]].max()), float(self.bend[cuts[0]].min())
        cut = tuple(cuts)
        return Slab(
            self.x[cuts[2]], self.y[cuts[1]], self.z[cuts[0]], self.X[cut], self.Y[cut], self.Z[cut], self.hu[cut],
            self.part[cut], self.ripple[cut], self.texture[cut], self.bend[cuts[0]], self.soft_mm,
        )  # fmt: skip

    def around(self, shape: Ellipsoid | Tube, margin_mm: float = 0.0) -> Slab | None:
        """The views inside the box of a shape."""
        return self.box(*shape.bounds(), margin_mm)

    def paint(self, distance: np.ndarray, hu: Any, part: int | None, only: np.ndarray | None = None) -> None:
        """Fill the inside of a signed distance with HU (number or array), where ``only`` is true.

        ``part`` None changes HU alone (a vessel inside the liver stays liver).
        """
        share = np.clip(np.float32(0.5) - distance / np.float32(self.soft_mm), 0, 1)
        if only is not None:
            share *= only
        self.hu += share * (hu - self.hu)
        if part is not None:
            inside = distance < 0 if only is None else (distance < 0) & only
            self.part[inside] = part

    def among(self, *parts: int) -> np.ndarray:
        """Where the part number is one of these."""
        table = np.zeros(256, bool)
        table[list(parts)] = True
        found: np.ndarray = table[self.part]
        return found

    def distance(self, shape: Ellipsoid | Tube) -> np.ndarray:
        """Signed distance (mm) to a shape at every voxel."""
        if isinstance(shape, Tube):
            return tube_distance(shape, self.X, self.Y, self.Z)
        u, v, w = local(shape.centre, shape.axes, self.X, self.Y, self.Z)
        return ellipsoid_distance(u, v, w, shape.radii)


def local(
    centre: Vector, axes: np.ndarray | None, x: np.ndarray, y: np.ndarray, z: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates along a shape's own axes (rows of ``axes``), from its centre."""
    x, y, z = x - np.float32(centre[0]), y - np.float32(centre[1]), z - np.float32(centre[2])
    if axes is None:
        return x, y, z
    a = axes.astype(np.float32)
    u, v, w = (a[i, 0] * x + a[i, 1] * y + a[i, 2] * z for i in range(3))
    return u, v, w


def ellipsoid_distance(u: np.ndarray, v: np.ndarray, w: np.ndarray, radii: Vector) -> np.ndarray:
    """Signed distance to an ellipsoid on its own axes: k0 (k0 - 1) / k1 with k0 = |p/r|, k1 = |p/r^2|.

    A well-known first-order bound; exact for a sphere.
    """
    a, b, c = (np.float32(1 / r) for r in radii)
    u, v, w = u * a, v * b, w * c
    k0 = np.sqrt(u * u + v * v + w * w)
    u, v, w = u * a, v * b, w * c
    k1 = np.sqrt(u * u + v * v + w * w)
    distance: np.ndarray = k0 * (k0 - 1) / np.maximum(k1, np.float32(1e-6))
    return distance


def tube_distance(tube: Tube, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Signed distance to a chain of round cones (radius linear along each piece)."""
    best: np.ndarray | None = None
    for piece in tube.pieces():
        (ax, ay, az), (bx, by, bz) = piece.points
        dx, dy, dz = (np.float32(b - a) for a, b in ((ax, bx), (ay, by), (az, bz)))
        px, py, pz = x - np.float32(ax), y - np.float32(ay), z - np.float32(az)
        t = np.clip((px * dx + py * dy + pz * dz) / max(float(dx * dx + dy * dy + dz * dz), 1e-6), 0, 1)
        t = t.astype(np.float32)
        far = np.sqrt((px - t * dx) ** 2 + (py - t * dy) ** 2 + (pz - t * dz) ** 2)
        far -= np.float32(piece.radii[0]) + t * np.float32(piece.radii[1] - piece.radii[0])
        best = far if best is None else np.minimum(best, far)
    assert best is not None
    return best


def smooth_union(a: np.ndarray, b: np.ndarray, width_mm: float) -> np.ndarray:
    """The union of two distances with a fillet of about ``width_mm`` (polynomial smooth minimum)."""
    h = np.maximum(np.float32(width_mm) - np.abs(a - b), 0)
    union: np.ndarray = np.minimum(a, b) - h * h * np.float32(0.25 / width_mm)
    return union


def smooth_cut(a: np.ndarray, b: np.ndarray, width_mm: float) -> np.ndarray:
    """``a`` without ``b``, the new edge rounded."""
    return -smooth_union(-a, b, width_mm)


def turned(angles_degrees: Vector) -> np.ndarray:
    """Rows: unit axes after turning about x, then y, then z."""
    cx, cy, cz = np.cos(np.radians(angles_degrees))
    sx, sy, sz = np.sin(np.radians(angles_degrees))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    axes: np.ndarray = (about_z @ about_y @ about_x).T
    return axes
