"""Draws and paints what fills the belly besides the kidneys: liver, spleen, stomach, bowel, pancreas, great vessels.

Comes in: random numbers and the patient's ``Torso``; then a ``Slab`` whose trunk is painted. Goes out: a frozen
``Viscera``; the painted slab. It knows no kidneys, except that it leaves their beds to the fat.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hilum.phantom.anatomy import Part, Torso
from hilum.phantom.bowel import Hollow, draw_bowel, paint_hollow
from hilum.phantom.exact import F
from hilum.phantom.shapes import Ellipsoid, Slab, Tube, Vector, smooth_cut, smooth_union, turned

HU = dict[str, float]


@dataclass(frozen=True)
class Viscera:
    """Shapes of the belly's organs."""

    right_lobe: Ellipsoid
    left_lobe: Ellipsoid
    liver_hollow: Ellipsoid
    liver_vessels: tuple[tuple[Tube, str], ...]
    liver_cysts: tuple[Ellipsoid, ...]
    gallbladder: Ellipsoid
    spleen: Ellipsoid
    spleen_hollow: Ellipsoid
    hollows: tuple[Hollow, ...]
    pancreas: Tube
    adrenals: tuple[Tube, ...]
    aorta: Tube
    cava: Tube
    branches: tuple[Tube, ...]
    plaque: float


def draw_viscera(rng: np.random.Generator, torso: Torso) -> Viscera:
    """One patient's organs, placed by fractions of the cavity so that they fit it."""
    u = rng.uniform
    big = u(0.98, 1.16)
    at = torso.place
    right = Ellipsoid(
        at(u(0.54, 0.6), u(-0.1, 0.05), u(48, 66)),
        (u(74, 84) * big, u(72, 84) * big, u(84, 100) * big),
        turned((u(-8, 8), u(8, 22), u(-10, 10))),
    )
    left = Ellipsoid(at(u(0.0, 0.12), u(0.42, 0.55), u(68, 86)), (u(62, 84), u(30, 40), u(34, 46)), turned((0, 12, 0)))
    hollow = Ellipsoid(at(u(0.1, 0.18), u(-0.1, 0.08), u(-14, 8)), (u(44, 54), u(38, 48), u(46, 60)))
    portal = at(0.16, -0.05, 30.0)
    vessels = _liver_vessels(rng, torso, portal)
    lesions = tuple(
        Ellipsoid(at(u(0.3, 0.85), u(-0.5, 0.4), u(10, 95)), (r, r * u(0.8, 1.1), r * u(0.8, 1.1)))
        for r in (u(3, 14), u(3, 9), u(3, 7))[: int(u() * 5) // 2]
    )
    gallbladder = Ellipsoid(
        at(u(0.36, 0.48), u(0.3, 0.5), u(-14, 8)), (u(12, 19), u(14, 22), u(22, 34)), turned((35, 0, 0))
    )
    spleen_at = at(u(-0.84, -0.74), u(-0.34, -0.14), u(44, 68))
    spleen = Ellipsoid(spleen_at, (u(29, 38), u(44, 56), u(50, 66)), turned((u(15, 40), 0, u(-30, -12))))
    toward = (spleen_at[0] + u(34, 42), spleen_at[1] + u(14, 20), spleen_at[2] - u(0, 10))
    plaque = u() if u() < 0.4 else 0.0
    return Viscera(
        right, left, hollow, vessels, lesions, gallbladder, spleen,
        Ellipsoid(toward, (u(26, 32), u(26, 34), u(44, 60)), turned((0, 0, -30))),
        draw_bowel(rng, torso),
        Tube((at(0.3, 0.0, -12), at(0.16, 0.12, 4), at(-0.14, 0.1, 16), at(-0.5, -0.2, u(24, 40))), (12, 10, 9, 7)),
        tuple(
            Tube(((s * 20.0, 10.0, 62.0), (s * 26.0, 0.0, 48.0), (s * 36.0, -12.0, 40.0)), (1.5, 2.6, 1.5))
            for s in (1.0, -1.0)
        ),
        *_draw_vessels(rng, torso), plaque,
    )  # fmt: skip


def _liver_vessels(rng: np.random.Generator, torso: Torso, portal: Vector) -> tuple[tuple[Tube, str], ...]:
    """Portal branches from the gate, hepatic veins towards the cava: two trees of three orders each."""
    u, at = rng.uniform, torso.place
    found: list[tuple[Tube, str]] = []
    gate = at(0.42, -0.05, 48.0)
    found.append((_branch(rng, portal, gate, 6.0, 4.5), "portal"))
    for _ in range(6):
        node = at(u(0.3, 0.85), u(-0.5, 0.5), u(5, 105))
        found.append((_branch(rng, gate, node, 4.2, 2.4), "portal"))
        for _ in range(3):
            end = tuple(float(a + b) for a, b in zip(node, rng.normal(0, 1, 3) * (26, 24, 26), strict=True))
            found.append((_branch(rng, node, end, 2.4, 0.9), "portal"))  # type: ignore[arg-type]
    found.append((_branch(rng, portal, at(u(0.0, 0.12), u(0.4, 0.6), u(60, 85)), 4.5, 1.8), "portal"))
    drain = at(0.2, -0.42, u(96, 106))
    for across, forward in ((0.75, -0.15), (0.45, 0.4), (0.05, 0.5)):
        node = at(across * u(0.75, 0.95), forward, u(62, 88))
        found.append((_branch(rng, drain, node, 5.2, 3.2), "hepatic_vein"))
        for _ in range(4):
            end = at(across + u(-0.2, 0.2), forward + u(-0.3, 0.3), u(0, 70))
            found.append((_branch(rng, node, end, 3.0, 1.0), "hepatic_vein"))
    return tuple(found)


def _branch(
    rng: np.random.Generator, start: tuple[float, float, float], end: tuple[float, float, float], r0: float, r1: float
) -> Tube:
    """A tapering, bent vessel."""
    bend = rng.normal(0, 6, 3)
    middle = tuple(float(0.5 * (a + b) + c) for a, b, c in zip(start, end, bend, strict=True))
    return Tube((start, middle, end), (r0, 0.5 * (r0 + r1), r1))  # type: ignore[arg-type]


def _draw_vessels(rng: np.random.Generator, torso: Torso) -> tuple[Tube, Tube, tuple[Tube, ...]]:
    """Aorta left of the midline, cava right, and what leaves them for bowel, liver and spleen."""
    u = rng.uniform
    r = u(8.5, 11.5)
    y = 16.5 + r + 3
    lean = u(-4, 3)
    aorta = Tube(
        (
            (-10 + lean, y - 10, 260),
            (-9 + lean, y, 90),
            (-7, y, 0),
            (-4, y, -92),
            (-24, y - 4, -150),
            (-40, y - 14, -215),
        ),
        (r + 2, r + 1, r, r - 1, 0.62 * r, 0.55 * r),
    )
    q = u(9.5, 13)
    cava = Tube(
        ((26, 38, 160), (24, 30, 95), (24, 27, 30), (20, 25, -90), (32, 18, -150), (44, 8, -215)),
        (q + 2, q + 1, q, q - 1, 0.7 * q, 0.62 * q),
    )
    celiac, mesenteric = (-8.0, y + r + 2, 36.0), (-7.0, y + r + 1, 22.0)
    at = torso.place
    branches = [
        Tube(((-8.0, y, 36.0), (-6.0, y + r + 12, 38.0), at(0.16, -0.05, 34)), (3.6, 3.2, 2.8)),
        _branch(rng, celiac, at(-0.62, -0.2, 52), 2.8, 2.0),
        Tube((mesenteric, (-6.0, y + r + 14, 8.0), (-4.0, y + r + 16, -60.0)), (3.6, 3.4, 2.4)),
        Tube((at(0.16, -0.05, 30), (8.0, y + r + 14, 4.0), (8.0, y + r + 16, -60.0)), (6.5, 5.5, 4.0)),
        _branch(rng, (8.0, y + r + 12, 12.0), at(-0.66, -0.22, 48), 4.5, 3.5),
    ]
    for _ in range(26):
        start = (u(-10, 12), y + r + 15, u(-60, 0))
        branches.append(_branch(rng, start, at(u(-0.65, 0.65), u(-0.1, 0.65), u(-125, -5)), u(1.6, 2.6), 0.8))
    return aorta, cava, tuple(branches)


def paint_viscera(slab: Slab, torso: Torso, viscera: Viscera, hu: HU) -> None:
    """Every organ but the kidneys, each kept inside the cavity and below the diaphragm."""
    free = (Part.VISCERAL_FAT,)
    for hollow in viscera.hollows:
        paint_hollow(slab, hollow, hu)
    for branch in viscera.branches:
        for piece in branch.pieces():
            box = slab.around(piece)
            if box is not None:
                bright = hu["portal"] * 0.6 + hu["aorta"] * 0.4
                # small vessels are soft tissue that masses push aside
                box.paint(box.distance(piece), bright, Part.SOFT, box.among(*free))
    box = slab.around(viscera.pancreas, 4.0)
    if box is not None:
        distance = box.distance(viscera.pancreas) + 2 * box.ripple + F(1.0) * box.texture
        box.paint(distance, hu["pancreas"] + 5 * box.texture, Part.SOFT, box.among(*free))
    for gland in viscera.adrenals:
        box = slab.around(gland)
        if box is not None:
            box.paint(box.distance(gland), hu["adrenal"], Part.SOFT, box.among(*free))
    _paint_liver(slab, torso, viscera, hu)
    _paint_spleen(slab, torso, viscera, hu)
    _paint_great_vessels(slab, viscera, hu)


def _inside(box: Slab, torso: Torso, gap_mm: float) -> np.ndarray:
    """Signed distance to the abdominal cavity, shrunk by a gap: inside the wall, below the diaphragm."""
    cavity, radius = torso.cavity(torso.widened(box.X, box.Z), box.Y)
    under = (box.Z - torso.dome(box.X, box.Y, radius)) * F(0.75)
    room: np.ndarray = np.maximum(cavity + F(gap_mm), under + F(gap_mm + 3))
    return room


def _paint_liver(slab: Slab, torso: Torso, viscera: Viscera, hu: HU) -> None:
    low = np.minimum(viscera.right_lobe.bounds()[0], viscera.left_lobe.bounds()[0])
    high = np.maximum(viscera.right_lobe.bounds()[1], viscera.left_lobe.bounds()[1])
    high[2] += 60
    box = slab.box(low, high, 8.0)
    if box is None:
        return
    # the upper half is drawn out, so that the liver fills the dome of the diaphragm
    lifted = replace(box, Z=np.where(F(60) < box.Z, F(60) + F(0.6) * (box.Z - F(60)), box.Z))
    liver = smooth_union(lifted.distance(viscera.right_lobe), lifted.distance(viscera.left_lobe), 22.0)
    # the lower surface rises from the right flank to the left
    lower = F(-36) + F(0.38) * (F(torso.half_width) - box.X) - F(0.12) * (box.Y - F(torso.middle))
    liver = -smooth_union(-liver, (box.Z - lower) * F(0.9), 18.0)
    liver = smooth_cut(liver, box.distance(viscera.liver_hollow), 10.0)
    # the bed of spine, cava and right kidney
    bed = np.sqrt((box.X - 6) ** 2 + (box.Y - 0) ** 2) - F(40)
    liver = smooth_cut(liver, bed, 10.0)
    # the fissure of the round ligament notches the front of the lower edge
    fissure = np.abs(box.X - F(0.14 * torso.half_width) - F(0.3) * (box.Z - 40) - 2 * box.ripple) - F(1.5)
    fissure = np.maximum(np.maximum(fissure, F(torso.middle + 0.35 * torso.half_depth) - box.Y), box.Z - 52)
    liver = np.maximum(smooth_cut(liver, fissure, 5.0), _inside(box, torso, 1.5))
    liver += F(1.0) * box.ripple
    room = box.among(Part.VISCERAL_FAT, Part.GUT, Part.SOFT, Part.VESSEL)
    box.paint(liver, F(hu["liver"]) + F(1.5) * box.ripple, Part.LIVER, room)
    for vessel, name in viscera.liver_vessels:
        for piece in vessel.pieces():
            part = slab.around(piece)
            if part is not None:
                part.paint(part.distance(piece), hu[name], None, part.part == Part.LIVER)
    for lesion in viscera.liver_cysts:
        part = slab.around(lesion)
        if part is not None:
            part.paint(part.distance(lesion), hu["cyst"] + 4, None, part.part == Part.LIVER)
    part = slab.around(viscera.gallbladder, 2.0)
    if part is not None:
        room = part.among(Part.VISCERAL_FAT, Part.GUT, Part.LIVER)
        distance = part.distance(viscera.gallbladder)
        part.paint(distance, hu["gut_wall"], Part.SOFT, room)
        part.paint(distance + F(1.6), hu["bile"], None, room)


def _paint_spleen(slab: Slab, torso: Torso, viscera: Viscera, hu: HU) -> None:
    box = slab.around(viscera.spleen, 4.0)
    if box is None:
        return
    spleen = smooth_cut(box.distance(viscera.spleen), box.distance(viscera.spleen_hollow), 8.0)
    spleen = np.maximum(spleen, _inside(box, torso, 1.5)) + F(1.2) * box.ripple
    room = box.among(Part.VISCERAL_FAT, Part.GUT, Part.SOFT, Part.VESSEL)
    box.paint(spleen, F(hu["spleen"]) + F(1.5) * box.ripple, Part.SPLEEN, room)


def _paint_great_vessels(slab: Slab, viscera: Viscera, hu: HU) -> None:
    for vessel, name in ((viscera.cava, "cava"), (viscera.aorta, "aorta")):
        for piece in vessel.pieces():
            box = slab.around(piece, 2.0)
            if box is None:
                continue
            room = ~box.among(Part.BONE, Part.LUNG)
            distance = box.distance(piece)
            box.paint(
                distance - F(1.2),
                hu["visceral_fat"] if name == "aorta" else hu["gut_wall"],
                Part.SOFT,
                box.among(Part.MUSCLE),
            )
            box.paint(distance, hu[name], Part.VESSEL, room)
            if name == "aorta" and viscera.plaque > 0:
                crust = np.maximum(np.abs(distance) - F(1.0), F(1.9 - viscera.plaque) - box.ripple)
                box.paint(crust, F(500.0), None, room)
