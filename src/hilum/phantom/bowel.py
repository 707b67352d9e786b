"""Draws and paints stomach, duodenum, small bowel and colon with gas, fluid, stool and contrast medium.

Comes in: random numbers and the patient's ``Torso``; then a ``Slab`` whose trunk is painted. Goes out: frozen
``Hollow`` pieces; the painted slab. It knows no other organs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hilum.phantom.anatomy import Part, Torso
from hilum.phantom.exact import F
from hilum.phantom.shapes import Slab, Tube, Vector

HU = dict[str, float]
LOOPS = 92  # of small bowel, each about 8 cm


@dataclass(frozen=True)
class Hollow:
    """A piece of stomach or bowel: wall, content, and the level above which gas stands.

    Attributes:
        shape: its outside.
        wall_mm: thickness of the wall.
        content_hu: of what is in it.
        gas_above: y (mm) above which gas stands, in a patient on the back; infinity for none.
        stool: 0 to 1, mottled by gas bubbles.
        folds: how strongly the outside is puckered (mm).
    """

    shape: Tube
    wall_mm: float
    content_hu: float
    gas_above: float
    stool: float
    folds: float


def draw_bowel(rng: np.random.Generator, torso: Torso) -> tuple[Hollow, ...]:
    """Stomach, colon, duodenum and small bowel loops, in the order of painting: the first keeps its place."""
    u, at = rng.uniform, torso.place
    oral = u(180, 320) if u() < 0.25 else 0.0  # positive oral contrast medium
    water = oral or u(5, 30)
    full = u(0.8, 1.2)
    fundus, body, antrum = at(-0.5, u(-0.2, 0.0), u(78, 92)), at(-0.45, 0.42, u(40, 56)), at(0.12, 0.55, u(8, 30))
    level = body[1] + u(-4, 26)
    food = u() < 0.35
    content = oral * 0.9 if oral else (u(35, 60) if food else u(2, 20))
    stomach = Tube((fundus, body, antrum), (32 * full, 30 * full, 17.0))
    found = [Hollow(stomach, u(3.5, 5), content, level, 0.35 if food else 0.0, 1.2)]
    found += _colon(rng, torso)
    duodenum = Tube(
        (at(0.3, 0.12, 12), at(0.38, -0.1, -14), at(0.3, -0.2, -42), at(-0.12, -0.12, -46)), (11, 12, 11, 10)
    )
    found.append(Hollow(duodenum, 2.5, water, np.inf, 0.0, 1.0))
    for number in range(LOOPS):
        # starts lie spread over the belly, from the pelvis up
        side, forward = u(-0.66, 0.6), u(-0.1, 0.72)
        z = 2.0 - 262.0 * (number + u()) / LOOPS
        if z < -190:
            side *= 0.5
        loop = _loop(rng, at(side, forward, z), u(8.5, 13.0))
        gas = loop.points[0][1] + u(-2, 6) if u() < 0.14 else np.inf
        found.append(Hollow(loop, u(1.8, 3.2), water if u() < 0.6 else u(20, 55), gas, 0.0, 1.3))
    return tuple(found)


def _loop(rng: np.random.Generator, start: Vector, radius: float) -> Tube:
    """A winding piece of small bowel: each step turns by less than a right angle and swings back up or down."""
    heading = rng.normal(0, 1, 3) * (1.0, 0.6, 0.5)
    points, radii = [start], [radius]
    for _ in range(4):
        heading = 0.55 * heading / np.linalg.norm(heading) + rng.normal(0, 0.62, 3) * (1.0, 0.7, 0.55)
        step = heading / np.linalg.norm(heading) * rng.uniform(15, 24)
        x, y, z = (float(a + b) for a, b in zip(points[-1], step, strict=True))
        points.append((x, y, z))
        radii.append(radius * float(rng.uniform(0.75, 1.15)))
    return Tube(tuple(points), tuple(radii))


def _colon(rng: np.random.Generator, torso: Torso) -> list[Hollow]:
    u, at = rng.uniform, torso.place
    w = u(-10, 10)
    sag = u(-90, -30)
    ways: tuple[tuple[Vector, ...], ...] = (
        ((0.72, 0.05, -185), (0.82, -0.14, -150), (0.84, -0.1, -70 + w), (0.7, 0.26, -32 + w)),
        ((0.68, 0.34, -32 + w), (0.4, 0.7, -45 + w), (0.0, 0.76, sag), (-0.5, 0.66, -28), (-0.78, 0.22, 26)),
        ((-0.82, 0.1, 28), (-0.86, -0.14, -20), (-0.85, -0.12, -110), (-0.74, 0.1, -172)),
        ((-0.7, 0.16, -182), (-0.4, 0.3, -212), (0.05, 0.1, -222), (-0.1, -0.3, -240)),
    )
    found = []
    for way, radius in zip(ways, (u(20, 29), u(15, 25), u(11, 18), u(11, 17)), strict=True):
        points = tuple(at(*p) for p in way)
        radii = tuple(radius * u(0.8, 1.1) for _ in points)
        stool = u(0.2, 1.0) if u() < 0.75 else 0.0
        airy = float(np.mean([p[1] for p in points])) + u(-2, radius) if u() < 0.55 else np.inf
        found.append(Hollow(Tube(points, radii), u(1.8, 2.8), u(15, 60), airy, stool, 2.6))
    return found


def paint_hollow(slab: Slab, hollow: Hollow, hu: HU) -> None:
    """One piece; where something else lies already, it gives way."""
    box = slab.around(hollow.shape, 4.0)
    if box is None:
        return
    only = box.among(Part.VISCERAL_FAT)
    if not only.any():
        return
    distance = box.distance(hollow.shape) + F(hollow.folds) * (box.ripple + F(0.45) * box.texture)
    # neighbours keep a film of fat between them
    box.paint(distance + F(0.8), hu["gut_wall"], Part.GUT, only)
    content = np.full(distance.shape, F(hollow.content_hu))
    if hollow.stool > 0:
        bubbles = np.clip(box.texture - F(1.3 - hollow.stool), 0, 1)
        content += 12 * box.ripple - F(420 * hollow.stool) * bubbles
    if hollow.gas_above < np.inf:
        gas = np.clip(F(0.5) + (box.Y - F(hollow.gas_above)) / F(box.soft_mm), 0, 1)
        content += gas * (F(-960) - content)
    box.paint(distance + F(0.8 + hollow.wall_mm), content, None, only & (box.part == Part.GUT))
