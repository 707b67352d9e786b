"""Draws and paints tumours and cysts of the kidneys.

Comes in: random numbers and the two kidneys; then a ``Slab`` with kidneys on it. Goes out: frozen ``Lesion`` objects;
the painted slab, each lesion with a part number of its own. It knows no label scheme.

Tumour volumes follow KiTS-like patients (median about 30 mL over two orders of magnitude); a tumour sits anywhere but
in the hilum and bulges out by 10 to 75 % of its diameter, as nephrometry scores describe (Kutikov and Uzzo 2009).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hilum.phantom.anatomy import Part
from hilum.phantom.kidneys import YIELDING, Kidney
from hilum.phantom.shapes import Ellipsoid, Slab, Vector, ellipsoid_distance, local, turned

F = np.float32
HU = dict[str, float]


@dataclass(frozen=True)
class Lesion:
    """One mass of a kidney.

    Attributes:
        kind: "tumour" or "cyst".
        side: +1 right, -1 left.
        shape: its smooth outline.
        exophytic: the share of its diameter outside the kidney's outline, 0 to 1.
        below_cortex: HU by which enhanced tumour tissue stays below the cortex.
        mottle: HU of mottling.
        necrosis: radius of the dead centre as a share of the outline; 0 for none.
        rough: how uneven the surface is (mm).
    """

    kind: Literal["tumour", "cyst"]
    side: int
    shape: Ellipsoid
    exophytic: float
    below_cortex: float
    mottle: float
    necrosis: float
    rough: float


def draw_lesions(
    rng: np.random.Generator, kidneys: tuple[Kidney, Kidney], scale: float, small: bool
) -> tuple[Lesion, ...]:
    """One or two tumours, and in half of the patients one to three cysts.

    Args:
        rng: random numbers.
        kidneys: right and left.
        scale: world mm per body mm, so that volumes are right in the world.
        small: for coarse voxels and little training: tumours of 10 to 80 mL, clearly darker than the cortex and
            mottled; cysts of 14 to 30 mm.
    """
    u = rng.uniform
    median, spread, low, high = (34.0, 0.5, 10.0, 80.0) if small else (32.0, 1.15, 2.9, 420.0)
    lesions: list[Lesion] = []
    first = kidneys[int(u() < 0.5)]
    two = u() < 0.15
    for i in range(1 + two):
        kidney = first if i == 0 or u() < 0.7 else kidneys[int(first.side > 0)]
        volume_ml = float(np.clip(median * np.exp(rng.normal(0, spread)) * (1.0 if i == 0 else 0.6), low, high))
        radius = (volume_ml * 1000 * 0.75 / np.pi) ** (1 / 3) / scale
        lesions.append(_draw_tumour(rng, kidney, radius, small, lesions))
    if u() < 0.5:
        for _ in range(int(rng.choice([1, 2, 3], p=[0.55, 0.3, 0.15]))):
            kidney = kidneys[int(u() < 0.5)]
            diameter = float(np.clip(18 * np.exp(rng.normal(0, 0.45)), *((14.0, 30.0) if small else (6.0, 60.0))))
            radius = diameter / 2 / scale
            exophytic = u(0.15, 0.7)
            at = _place(rng, kidney, radius, exophytic, lesions)
            radii = (radius, radius * u(0.92, 1.05), radius * u(0.92, 1.05))
            lesions.append(Lesion("cyst", kidney.side, Ellipsoid(at, radii), exophytic, 0.0, 0.0, 0.0, 0.15))
    return tuple(lesions)


def _draw_tumour(rng: np.random.Generator, kidney: Kidney, radius: float, small: bool, others: list[Lesion]) -> Lesion:
    u = rng.uniform
    exophytic = u(0.45, 0.75) if radius > 30 else u(0.1, 0.7)
    at = _place(rng, kidney, radius, exophytic, others)
    stretch = np.exp(rng.normal(0, 0.09, 3))
    stretch /= np.cbrt(stretch.prod())
    a, b, c = (float(radius * s) for s in stretch)
    dead = u(0.3, 0.5 if small else 0.65)
    dead = dead if radius > 15 and u() < (0.45 if small else 0.65) else 0.0
    below = u(65, 100) if small else u(30, 100)
    mottle = u(10, 24) if small else u(4, 18)
    shape = Ellipsoid(at, (a, b, c), turned((u(0, 90), u(0, 90), u(0, 90))))
    return Lesion("tumour", kidney.side, shape, exophytic, below, mottle, dead, min(2.0, u(0.03, 0.09) * radius))


def _place(rng: np.random.Generator, kidney: Kidney, radius: float, exophytic: float, others: list[Lesion]) -> Vector:
    """A centre on the kidney's surface, away from the hilum, the spine and other lesions."""
    radii = np.array(kidney.radii)
    best, best_room = kidney.centre, -np.inf
    for _ in range(12):
        n = rng.normal(size=3)
        n /= np.linalg.norm(n)
        surface = n / np.linalg.norm(n / radii)
        normal = surface / radii**2
        normal /= np.linalg.norm(normal)
        local_at = surface - normal * radius * (1 - 2 * exophytic)
        at = kidney.point(*local_at.tolist())
        gaps = [
            float(np.linalg.norm(np.array(at) - other.shape.centre)) - radius - max(other.shape.radii)
            for other in others
        ]
        outward = normal @ kidney.axes
        room = min([8.0, *gaps])
        room -= 40 * max(0.0, n[0] - 0.35)  # the hilum
        room -= radius * max(0.0, -outward[1] - 0.35)  # the back wall
        room -= radius * max(0.0, -outward[0] * kidney.side - 0.4)  # psoas and spine
        if room > best_room:
            best, best_room = at, room
    return best


def paint_lesion(slab: Slab, lesion: Lesion, number: int, hu: HU) -> None:
    """Paint one lesion; its voxels get the part number ``Part.LESION + number``."""
    box = slab.around(lesion.shape, 5.0)
    if box is None:
        return
    distance = box.distance(lesion.shape) + F(lesion.rough) * box.ripple
    earlier = np.zeros(256, bool)
    earlier[Part.LESION :] = lesion.kind == "tumour"  # a tumour overrides a cyst, a cyst no tumour
    room = box.among(*YIELDING, Part.KIDNEY_RIGHT, Part.KIDNEY_LEFT, Part.SINUS) | earlier[box.part]
    box.paint(distance, _tissue(box, lesion, hu), Part.LESION + number, room)


def _tissue(box: Slab, lesion: Lesion, hu: HU) -> np.ndarray | float:
    if lesion.kind == "cyst":
        return hu["cyst"]
    enhanced = hu["cortex"] > 60
    solid = hu["cortex"] - lesion.below_cortex if enhanced else hu["cortex"] + 4
    solid = max(solid, 30.0)
    tissue = F(solid) + F(lesion.mottle if enhanced else 2.0) * (F(0.6) * box.ripple + F(0.6) * box.texture)
    if lesion.necrosis > 0:
        u, v, w = local(lesion.shape.centre, lesion.shape.axes, box.X, box.Y, box.Z)
        a, b, c = (r * lesion.necrosis for r in lesion.shape.radii)
        dead = ellipsoid_distance(u, v, w, (a, b, c)) + 3 * box.ripple + F(1.2) * box.texture
        share = np.clip(F(0.5) - dead / F(5.0), 0, 1) * F(0.85)
        tissue = tissue + share * (F(22.0 if enhanced else 16.0) - tissue)
    return tissue
