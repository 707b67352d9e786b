"""Draws and paints the two kidneys in their beds of fat, with vessels and collecting systems.

Comes in: random numbers; then a ``Slab`` with the other organs on it. Goes out: frozen ``Kidney`` pairs; the painted
slab. It knows no lesions, except as shapes that push the fat aside.

As in KiTS, parenchyma (cortex and medulla) is kidney; the sinus with its fat, vessels and collecting system is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hilum.phantom.anatomy import Part
from hilum.phantom.exact import arctangent, cosine
from hilum.phantom.shapes import Ellipsoid, Slab, Tube, Vector, ellipsoid_distance, local, smooth_cut

F = np.float32
HU = dict[str, float]
# What gives way to a kidney, its fat and its lesions. Bone, muscle, lung and great vessels do not.
YIELDING = (Part.VISCERAL_FAT, Part.LIVER, Part.SPLEEN, Part.GUT, Part.SOFT)


@dataclass(frozen=True)
class Kidney:
    """One kidney on its own axes: h towards the hilum, v across, w towards the upper pole.

    Attributes:
        side: +1 the patient's right, -1 left (the sign of x).
        centre, axes: place, and rows h, v, w in body coordinates.
        radii: of the outline along h, v, w (mm).
        bend: how far the poles curve towards the hilum (mm).
        sinus: radii of the sinus along h, v, w; its centre lies at ``sinus_at`` along h.
        lobes: strength of the fetal lobulation (mm).
        pyramids: phases of the pattern of medullary pyramids.
        fat: thickness of the perirenal fat (mm).
        pelvis: radius of the renal pelvis (mm).
    """

    side: int
    centre: Vector
    axes: np.ndarray
    radii: Vector
    bend: float
    sinus: Vector
    sinus_at: float
    lobes: float
    pyramids: tuple[float, float]
    fat: float
    pelvis: float

    @property
    def part(self) -> Part:
        """The part number of its parenchyma."""
        return Part.KIDNEY_RIGHT if self.side > 0 else Part.KIDNEY_LEFT

    def point(self, h: float, v: float, w: float) -> Vector:
        """Body coordinates of a point on the kidney's own axes."""
        x, y, z = (np.array(self.centre) + np.array([h, v, w]) @ self.axes).tolist()
        return x, y, z

    def outline(self) -> Ellipsoid:
        """The smooth outside, for boxes."""
        return Ellipsoid(self.centre, self.radii, self.axes)


# Parenchyma of both kidneys in the KiTS23 training set: 5th, 50th, 95th percentile 249, 395, 612 mL (489 cases)
TOTAL_ML, TOTAL_SPREAD = 395.0, 0.25
_ML_AT_SIZE_ONE = 316.0  # of a pair drawn with size 1 in a body of scale 1, without lesions
ANOMALIES = ("absent", "ectopic", "horseshoe")


def draw_kidneys(
    rng: np.random.Generator, *, scale: float = 1.0, small: bool = False, anomaly: str = ""
) -> tuple[Kidney, ...]:
    """The right and the left kidney of one patient: alike in size, each with a pose of its own.

    Args:
        rng: random numbers.
        scale: world mm per body mm, so that volumes are right in the world.
        small: of average size, for quick learning.
        anomaly: "", or one of ``ANOMALIES``: one kidney missing and the other larger; one in the pelvis; both joined.
    """
    u = rng.uniform
    size = float(np.clip(rng.normal(1.025, 0.05), 0.9, 1.13))
    if not small:
        total = TOTAL_ML * np.exp(TOTAL_SPREAD * np.clip(rng.normal(), -2.2, 2.2))
        size = float(np.cbrt(total / _ML_AT_SIZE_ONE)) / scale
    sinus, fat = u(0.85, 1.15), u(6, 14)
    right, left = (_draw_kidney(rng, side, size, sinus, fat) for side in (1, -1))
    if not anomaly:
        return right, left
    if anomaly == "absent":
        kept = right if u() < 0.5 else left
        return (_draw_kidney(rng, kept.side, size * 1.2, sinus, fat),)
    if anomaly == "ectopic":
        low = -1 if u() < 0.6 else 1  # mostly the left
        moved = _moved(left if low < 0 else right, (low * u(24, 38), u(26, 36), u(-150, -128)), low * 0.3, 78.0)
        return (right, moved) if low < 0 else (moved, left)
    return tuple(_moved(k, (k.side * 50.0, 14.0, -34.0), k.side * 0.5, 72.0) for k in (right, left))


def _moved(kidney: Kidney, centre: Vector, tilt: float, turn_degrees: float) -> Kidney:
    """A kidney at another place, its upper pole tilted outwards, its hilum turned to the front."""
    up = np.array([tilt, -0.2, 1.0])
    return replace(kidney, centre=centre, axes=_axes(kidney.side, up, np.radians(turn_degrees)))


def _axes(side: int, up: np.ndarray, turn: float) -> np.ndarray:
    """Rows h, v, w from the direction of the upper pole and how far the hilum looks to the front."""
    up = up / np.linalg.norm(up)
    hilum = np.array([-side * np.cos(turn), np.sin(turn), 0.0])
    hilum -= up * (hilum @ up)
    hilum /= np.linalg.norm(hilum)
    return np.stack([hilum, np.cross(up, hilum), up])


def _draw_kidney(rng: np.random.Generator, side: int, size: float, sinus: float, fat: float) -> Kidney:
    u = rng.uniform
    size *= float(np.clip(rng.normal(1.0, 0.03), 0.94, 1.06))
    centre = (side * u(65, 75), u(-3, 6), (u(-16, -2) if side > 0 else u(-4, 10)))
    # the upper pole lies nearer to the spine and further back
    up = np.array([-side * u(0.1, 0.34), -u(0.15, 0.42), 1.0])
    return Kidney(
        side=side,
        centre=centre,
        axes=_axes(side, up, np.radians(u(25, 55))),
        radii=(u(31, 34.5) * size, u(25.5, 29) * size, u(54, 61) * size),
        bend=u(4, 9),
        sinus=(u(19, 23) * sinus, u(9, 12.5) * sinus, u(23, 29) * sinus),
        sinus_at=u(15, 19) * size,
        lobes=u(0.5, 1.4),
        pyramids=(u(0, 6.28), u(0, 6.28)),
        fat=fat * u(0.8, 1.2),
        pelvis=u(4, 8.5),
    )


def kidney_at(rng: np.random.Generator, side: int, centre: Vector) -> Kidney:
    """A kidney of average size at a place, for what leads to it: the kidney itself may be drawn elsewhere."""
    return replace(_draw_kidney(rng, side, 1.0, 1.0, 8.0), centre=centre)


def clear_bed(slab: Slab, kidney: Kidney, masses: Sequence[Ellipsoid], hu: HU) -> None:
    """Push organs off the kidney and its masses: perirenal fat takes their place."""
    for shape, fat in ((kidney.outline(), kidney.fat), *((mass, 4.0) for mass in masses)):
        box = slab.around(shape, fat + 4)
        if box is None:
            continue
        bed = box.distance(shape) - F(fat) + F(1.5) * box.ripple
        room = box.among(*YIELDING)
        box.paint(bed, hu["visceral_fat"] + 4 * box.ripple, Part.VISCERAL_FAT, room)
        if fat > 4:
            # Gerota's fascia shows as a thin line
            seen = box.among(Part.VISCERAL_FAT) & (box.ripple > -0.2)
            box.paint(np.abs(bed) - F(0.4), hu["visceral_fat"] + 50, None, seen)


def paint_renal_vessels(slab: Slab, kidney: Kidney, hu: HU) -> None:
    """Artery and vein from the great vessels to the hilum, and the ureter down to the pelvis."""
    gate = kidney.point(kidney.sinus_at + 8, 0.0, 0.0)
    s = kidney.side
    if s > 0:
        vein: tuple[Vector, ...] = ((24.0, 27.0, gate[2] + 14), gate)
        artery: tuple[Vector, ...] = ((-6.0, 28.0, 8.0), (22.0, 17.0, 4.0), gate)
    else:
        vein = ((18.0, 32.0, 12.0), (-6.0, 45.0, 10.0), (-28.0, 32.0, 6.0), gate)
        artery = ((-10.0, 28.0, 8.0), (-26.0, 20.0, 4.0), gate)
    if gate[2] < -100:  # a kidney in the pelvis takes its vessels from those of the pelvis
        vein, artery = ((s * 22.0, 20.0, -140.0), gate), ((s * 20.0, 22.0, -135.0), gate)
    out = kidney.point(kidney.sinus_at + 20, 0.0, -12.0)
    ureter: tuple[Vector, ...] = (out, (s * 38.0, 16.0, out[2] - 45), (s * 34.0, 14.0, -150.0))
    for points, radius, bright in (
        (artery, 2.8, hu["aorta"]),
        (ureter, 2.2, hu["urine"] + 15),
        (vein, 5.0, hu["cava"]),
    ):
        for piece in Tube(points, (radius,) * len(points)).pieces():
            box = slab.around(piece)
            if box is not None:
                box.paint(box.distance(piece), bright, Part.SOFT, box.among(Part.VISCERAL_FAT, Part.SOFT))


def paint_kidney(slab: Slab, kidney: Kidney, hu: HU) -> None:
    """Cortex, medulla and sinus with what runs in it."""
    box = slab.around(kidney.outline(), 6.0)
    if box is None:
        return
    h, v, w = local(kidney.centre, kidney.axes, box.X, box.Y, box.Z)
    rh, _, rw = kidney.radii
    bent = h - F(kidney.bend) * (w / F(rw)) ** 2
    outside = ellipsoid_distance(bent, v, w, kidney.radii) + F(kidney.lobes) * box.ripple
    sinus = ellipsoid_distance(h - F(kidney.sinus_at), v, w, kidney.sinus) + F(2.6) * box.ripple + F(0.8) * box.texture
    # the hilum's mouth: wide open on the side of the great vessels
    mouth = ellipsoid_distance(h - F(rh + 4), v, w, (14.0, kidney.sinus[1] + 2, 0.62 * kidney.sinus[2]))
    hollow = np.minimum(sinus, mouth)
    parenchyma = smooth_cut(outside, hollow, 4.0)
    room = box.among(*YIELDING)
    box.paint(parenchyma, _parenchyma_hu(kidney, box, (h, v, w), outside, sinus, hu), kidney.part, room)
    within = np.maximum(hollow, outside)
    room = box.among(*YIELDING, kidney.part)
    box.paint(np.maximum(within, parenchyma * F(-1)), hu["sinus_fat"] + 8 * box.ripple, Part.SINUS, room & (within < 0))
    _paint_sinus(slab, kidney, hu)


def _parenchyma_hu(kidney: Kidney, box: Slab, at: Any, outside: np.ndarray, sinus: np.ndarray, hu: HU) -> np.ndarray:
    """Cortex, with pyramids of medulla between columns of cortex."""
    h, v, w = at
    first, second = (F(p) for p in kidney.pyramids)
    around = arctangent(v, h - F(kidney.sinus_at))
    columns = cosine(w * F(0.33) + first) + cosine(4 * around + second)
    pyramid = np.maximum(F(6.5) + outside, F(-3.0) * columns - F(2.5))
    pyramid = np.maximum(pyramid, sinus - F(18))
    share = np.clip(F(0.5) - pyramid / F(max(2.0, box.soft_mm)), 0, 1)
    value: np.ndarray = F(hu["cortex"]) + share * F(hu["medulla"] - hu["cortex"]) + F(2.5) * box.ripple
    return value


def _paint_sinus(slab: Slab, kidney: Kidney, hu: HU) -> None:
    """Renal pelvis with two calyces, and segmental vessels, inside the sinus."""
    at, q = kidney.sinus_at, kidney.pelvis
    rw = kidney.sinus[2]
    centre = kidney.point(at + 6, -2.0, -4.0)
    things = [
        (Tube((kidney.point(at + 16, -1.0, -9.0), centre), (q * 0.8, q)), hu["urine"]),
        (Tube((centre, kidney.point(at - 8, 0.0, 0.72 * rw)), (q * 0.6, 2.4)), hu["urine"]),
        (Tube((centre, kidney.point(at - 8, 0.0, -0.72 * rw)), (q * 0.6, 2.4)), hu["urine"]),
    ]
    for up in (0.55, 0.1, -0.5):
        vein = Tube((kidney.point(at + 14, 4.0, 0.0), kidney.point(at - 12, 4.5, up * rw)), (3.6, 1.8))
        things.append((vein, 0.5 * (hu["cava"] + hu["aorta"])))
    for shape, bright in things:
        box = slab.around(shape)
        if box is not None:
            box.paint(box.distance(shape), bright, None, box.part == Part.SINUS)


def paint_isthmus(slab: Slab, kidneys: Sequence[Kidney], hu: HU) -> None:
    """The bridge of parenchyma between the lower poles of a horseshoe kidney, in front of aorta and cava."""
    ends = [kidney.point(2.0, 0.0, -0.8 * kidney.radii[2]) for kidney in kidneys]
    y = max(52.0, *(end[1] for end in ends))
    middle = (0.0, y, min(end[2] for end in ends) + 2)
    bridge = Tube((ends[0], middle, ends[1]), (13.0, 9.0, 13.0))
    box = slab.around(bridge, 6.0)
    if box is None:
        return
    distance = box.distance(bridge) + F(0.8) * box.ripple
    value = F(hu["cortex"]) + np.clip((-distance - F(5)) / F(2), 0, 1) * F(hu["medulla"] - hu["cortex"])
    for kidney in kidneys:
        room = box.among(*YIELDING) & ((box.X > 0) == (kidney.side > 0))
        box.paint(distance - F(5.0), hu["visceral_fat"], Part.VISCERAL_FAT, room)
        room = box.among(*YIELDING) & ((box.X > 0) == (kidney.side > 0))
        box.paint(distance, value, kidney.part, room)
