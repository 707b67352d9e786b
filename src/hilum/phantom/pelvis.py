"""Paints what lies below the fourth lumbar vertebra: pelvic bones and muscles, hips, bladder, rectum, thighs.

Comes in: a ``Slab`` whose trunk is painted, the patient's ``Torso`` and HU by tissue. Goes out: the painted slab. It
knows no organs of the belly.
"""

from __future__ import annotations

import numpy as np

from hilum.phantom.anatomy import Part, Torso
from hilum.phantom.exact import F
from hilum.phantom.shapes import Ellipsoid, Slab, Tube, local, smooth_union

HU = dict[str, float]
TOP_MM = -85.0  # body z above which nothing here is painted
HIP = (88.0, 8.0, -268.0)


def paint_pelvis(slab: Slab, torso: Torso, hu: HU) -> None:
    """Muscles, then bones, then organs; the belly's organs are painted later and keep out of muscle and bone."""
    if slab.z.min() > TOP_MM:
        return
    _muscles(slab, torso, hu)
    for side in (1.0, -1.0):
        _wing(slab, side, hu)
        _hip(slab, side, hu)
    sacrum = Tube(((0.0, -22.0, -160.0), (0.0, -48.0, -215.0), (0.0, -52.0, -250.0)), (32.0, 30.0, 18.0))
    box = slab.around(sacrum)
    if box is not None:
        distance = np.maximum(box.distance(sacrum) + box.ripple, np.abs(box.Y + F(34)) - F(40))
        _bone(box, distance, hu, 0.8)
    _organs(slab, hu)
    _thighs(slab)


def _bone(box: Slab, distance: np.ndarray, hu: HU, hard: float = 1.0) -> None:
    box.paint(distance, hu["cortical"] * F(hard), Part.BONE)
    box.paint(distance + F(1.9), hu["marrow"] + F(25) * box.texture, None)


def _muscles(slab: Slab, torso: Torso, hu: HU) -> None:
    """The pelvis narrows the cavity: iliacus, gluteal and obturator muscles with planes of fat between them."""
    down = np.clip((F(-105) - slab.Z) / F(95), 0, 1)
    half = F(torso.half_width) * (1 - down) + F(62) * down
    side = half - np.abs(slab.X)
    back = slab.Y + F(40) + F(20) * (1 - down)
    room = np.minimum(smooth_union(side, side + 60, 4.0), back)  # positive inside the lesser pelvis
    # gluteal muscles behind, iliac muscles at the sides; in front of them lie bowel and belly wall
    flank = np.sqrt(((np.abs(slab.X) - F(98)) * F(0.85)) ** 2 + (slab.Y + F(8)) ** 2) - F(58)
    front = np.minimum(flank, slab.Y + F(22)) + 3 * slab.ripple
    planes = np.abs(slab.ripple) < F(0.06)
    value = F(hu["muscle"]) + 3 * slab.ripple + planes * F(hu["visceral_fat"] - hu["muscle"] + 30)
    inside = slab.among(Part.VISCERAL_FAT)
    slab.paint(np.maximum(np.maximum(room, front), slab.Z + F(112)), value, Part.MUSCLE, inside)


def _wing(slab: Slab, side: float, hu: HU) -> None:
    shell = Ellipsoid((side * 66.0, 2.0, -195.0), (60.0, 62.0, 98.0))
    box = slab.around(shell, 12.0)
    if box is None:
        return
    u, v, _ = local(shell.centre, None, box.X, box.Y, box.Z)
    distance = box.distance(shell)
    lateral = F(8) - (u * F(side * 0.75) - v * F(0.66))
    lateral = np.maximum(lateral, F(-282) - box.Z)
    inside = box.among(Part.VISCERAL_FAT, Part.MUSCLE, Part.FAT)
    box.paint(np.maximum(np.abs(distance) - F(14), lateral), hu["muscle"], Part.MUSCLE, inside)
    wing = np.maximum(np.abs(distance + F(0.8) * box.ripple) - F(3.6), lateral)
    _bone(box, wing, hu)


def _hip(slab: Slab, side: float, hu: HU) -> None:
    """Socket, head, neck and shaft of the femur; pubis and ischium."""
    x, y, z = side * HIP[0], HIP[1], HIP[2]
    low = [min(x, side * 5) - 60, -75.0, -480.0]
    high = [max(x, side * 5) + 60, 80.0, -225.0]
    box = slab.box(low, high)
    if box is None:
        return
    flesh = Tube(((x, y, z + 20), (side * 96.0, 0.0, -330.0), (side * 98.0, 0.0, -480.0)), (56.0, 72.0, 74.0))
    planes = np.abs(box.ripple) < F(0.06)
    value = F(hu["muscle"]) + 3 * box.ripple + planes * F(hu["visceral_fat"] - hu["muscle"] + 30)
    outer = np.where(F(-318) < box.Z, F(64) - np.abs(box.X), F(-1e3))  # the lesser pelvis stays free
    box.paint(np.maximum(box.distance(flesh), outer), value, Part.MUSCLE, box.among(Part.VISCERAL_FAT, Part.FAT))
    head = box.distance(Ellipsoid((x, y, z), (23.0, 23.0, 23.0)))
    socket = np.maximum(np.maximum(head - F(10), -(head - F(2.5))), (box.X - F(x)) * F(side) - F(10))
    arms = Tube(((x - side * 18, -22.0, z - 12), (side * 62.0, -42.0, -335.0)), (16.0, 15.0))
    pubis = Tube(
        ((x - side * 16, 24.0, z - 4), (side * 9.0, 56.0, -305.0), (side * 55.0, -30.0, -345.0)), (12.0, 10.0, 8.0)
    )
    _bone(box, smooth_union(np.minimum(socket, box.distance(arms)), box.distance(pubis), 4.0), hu)
    neck = Tube(((x, y, z), (side * 120.0, -4.0, -305.0), (side * 118.0, 2.0, -480.0)), (15.0, 19.0, 14.0))
    femur = smooth_union(head, box.distance(neck), 3.0)
    box.paint(femur, hu["cortical"], Part.BONE)
    thick = F(2.0) + F(4.0) * np.clip((F(-320) - box.Z) / F(40), 0, 1)  # the shaft's cortex is thick
    box.paint(femur + thick, hu["marrow"] * F(0.9) + F(30) * box.texture, None)


def _organs(slab: Slab, hu: HU) -> None:
    """Bladder, rectum, and the soft tissue between them."""
    between = Ellipsoid((0.0, 14.0, -322.0), (25.0, 20.0, 20.0))
    bladder = Ellipsoid((0.0, 30.0, -286.0), (40.0, 30.0, 32.0))
    free = (Part.VISCERAL_FAT, Part.SOFT)
    box = slab.around(between)
    if box is not None:
        box.paint(box.distance(between) + box.ripple, hu["muscle"] + F(8), Part.SOFT, box.among(*free))
    box = slab.around(bladder, 3.0)
    if box is not None:
        distance = box.distance(bladder) + box.ripple
        room = box.among(*free)
        box.paint(distance, hu["gut_wall"], Part.SOFT, room)
        bright = F(8) + F(max(hu["urine"] - 30, 0.0) * 0.5) * np.clip((F(24) - box.Y) / F(4), 0, 1)  # it layers
        box.paint(distance + F(3), bright, None, room)
    rectum = Tube(((0.0, -22.0, -225.0), (0.0, -34.0, -290.0), (0.0, -30.0, -345.0)), (15.0, 20.0, 11.0))
    box = slab.around(rectum, 3.0)
    if box is not None:
        distance = box.distance(rectum) + F(1.4) * box.ripple
        room = box.among(*free)
        box.paint(distance, hu["gut_wall"], Part.GUT, room)
        stool = F(35) - np.clip(box.texture - F(0.6), 0, 1) * F(500)
        box.paint(distance + F(3.2), stool, None, room & (box.part == Part.GUT))


def _thighs(slab: Slab) -> None:
    """Below the perineum the legs part: air between and beside them."""
    box = slab.box([-400.0, -300.0, -1000.0], [400.0, 400.0, -335.0])
    if box is None:
        return
    x = np.abs(box.X) - F(98)
    leg = np.sqrt((x * F(0.98)) ** 2 + (box.Y * F(0.95)) ** 2) - F(92)
    air = np.maximum(-leg, box.Z + F(352) + F(0.2) * box.Y)
    box.paint(air, F(-1000.0), Part.AIR, box.part != Part.AIR)
