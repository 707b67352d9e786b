"""Paints the trunk: skin, fat, muscles, lungs, ribs, spine, pelvis, and the table below.

Comes in: a ``Slab`` of air, the patient's ``Torso`` and HU by tissue. Goes out: nothing; the slab is painted. It
knows no organs inside the belly.
"""

from __future__ import annotations

import numpy as np

from hilum.phantom.anatomy import Part, Torso
from hilum.phantom.chest import paint_chest
from hilum.phantom.exact import F, arctangent, bell, cosine
from hilum.phantom.pelvis import paint_pelvis
from hilum.phantom.shapes import Slab, smooth_union

HU = dict[str, float]


def paint_torso(slab: Slab, torso: Torso, hu: HU) -> None:
    """Everything but the organs, from the outside in."""
    x = torso.widened(slab.X, slab.Z)
    skin = torso.skin_surface(x, slab.Y)
    # the groove along the back
    skin += F(7.0) * bell(x / F(20)) * np.clip((F(-40) - slab.Y) / F(30), 0, 1)
    _table(slab, torso)
    slab.paint(skin, hu["skin"], Part.SKIN)
    # septa: thin sheets where the noise crosses zero
    fat = F(hu["fat"]) + 4 * slab.ripple + 22 * (np.abs(slab.texture) < F(0.05))
    slab.paint(skin + F(2.0 + 0.2 * slab.soft_mm), fat, Part.FAT)
    muscle = _muscle(slab, torso, hu)
    wall = torso.muscle_surface(x, slab.Y) + F(1.2) * slab.ripple
    wall += F(9.0) * bell(x / F(14)) * (slab.Y < -40)
    # beside the back muscles the wall is thin: fat lies in the groove between them and the flank
    beyond = np.clip((np.abs(x) - F(62)) / F(14), 0, 1) * np.clip((F(-28) - slab.Y) / F(16), 0, 1)
    wall += F(8.5) * beyond * np.clip((F(128) - np.abs(x)) / F(25), 0, 1)
    slab.paint(wall, muscle, Part.MUSCLE)
    cavity, radius = torso.cavity(x, slab.Y)
    _layers(slab, cavity, hu)
    slab.paint(cavity, hu["visceral_fat"] + 5 * slab.ripple, Part.VISCERAL_FAT)
    if slab.z.max() > torso.recess - 30:
        paint_chest(slab, torso, cavity, radius, muscle, hu)
    _muscles(slab, torso, hu)
    _ribs(slab, torso, cavity, x, hu)
    _spine(slab, torso, hu)
    paint_pelvis(slab, torso, hu)


def _muscle(slab: Slab, torso: Torso, hu: HU) -> np.ndarray:
    """Muscle HU with fatty streaks."""
    streaks = np.clip(slab.texture - F(1.1), 0, F(0.9)) * F(60 * torso.infiltration)
    muscle: np.ndarray = F(hu["muscle"]) + 3 * slab.ripple - streaks
    return muscle


def _layers(slab: Slab, cavity: np.ndarray, hu: HU) -> None:
    """The thin fat planes between the three flat muscles at the sides."""
    # the white line between the straight muscles
    front = (slab.part == Part.MUSCLE) & (slab.Y > 50)
    slab.paint(np.abs(slab.X) - F(1.5), hu["visceral_fat"] + 60, None, front)
    side = (slab.Y > -35) & (np.abs(slab.X) > 75) & (slab.Z < 45)
    for depth in (5.5, 10.5):
        slab.paint(np.abs(cavity - F(depth) - slab.ripple * F(0.7)) - F(0.35), hu["visceral_fat"], None, side)


def _table(slab: Slab, torso: Torso) -> None:
    """A carbon-fibre table: two thin shells around foam, curved like a trough."""
    if torso.table_gap < 0:
        return
    top = torso.MUSCLE_BACK - torso.fat_back - torso.table_gap
    low = np.array([-230.0, top - 40, slab.z.min()])
    box = slab.box(low, [230.0, top + 70, slab.z.max()])
    if box is None:
        return
    # plain positions: the table does not bend with the patient
    x, y = box.x.astype(F)[None, None, :], box.y.astype(F)[None, :, None]
    below = np.sqrt(x * x + (y - F(top + 430)) ** 2) - F(430)
    trough = np.maximum(np.maximum(-below, below - F(22)), np.abs(x) - F(205))
    trough = np.broadcast_to(trough, box.hu.shape)
    box.paint(trough, F(torso.table_hu), None)
    box.paint(trough + F(2.8), F(-960.0), None)


def _muscles(slab: Slab, torso: Torso, hu: HU) -> None:
    """Back muscles, psoas, quadratus lumborum and the crura of the diaphragm."""
    box = slab.box([-115.0, -80.0, slab.z.min()], [115.0, 40.0, slab.z.max()])
    if box is None:
        return
    muscle, height = _muscle(box, torso, hu), box.Z
    x, y = np.abs(box.X), box.Y
    inside = box.among(Part.VISCERAL_FAT, Part.MUSCLE)
    back = np.sqrt((x - 36) ** 2 + ((y + 46) * F(1.35)) ** 2) - F(35)
    box.paint(back + box.ripple, muscle, Part.MUSCLE, inside)
    # fat in the clefts between multifidus, longissimus and iliocostalis
    cleft = np.minimum(np.abs(x - F(20) - F(0.3) * (y + 46)), np.abs(x - F(43) + F(0.25) * (y + 46))) + box.ripple
    cleft = np.maximum(np.abs(cleft) - F(0.5), np.maximum(y + 30, back + F(3)))
    box.paint(cleft, hu["fat"] + F(60), None, box.part == Part.MUSCLE)
    # psoas: from T12 down, growing and moving outwards
    down = np.clip((F(28) - height) / F(120), 0, F(1.3))
    psoas = np.sqrt(((x - 28 - 11 * down) * F(1.1)) ** 2 + ((y + 5 - 6 * down) * F(0.85)) ** 2) - (
        2 + 17 * np.sqrt(down)
    )
    box.paint(np.maximum(psoas + F(1.5) * box.ripple, height - 28), muscle, Part.MUSCLE, inside)
    tilt = (x - 62) * F(0.35) + y + 38
    quadratus = np.sqrt(((x - 62) * F(0.5)) ** 2 + tilt**2) - F(8.0)
    box.paint(np.maximum(quadratus + box.ripple, height - 30), muscle, Part.MUSCLE, inside)
    crura = np.abs(np.sqrt(x * x + (box.Y - 14) ** 2) - F(21)) - F(2.6) - 2 * np.clip(height / F(80), -1, 1)
    crura = np.maximum(np.maximum(crura, -height - 10), F(4) - y)
    box.paint(crura + F(0.5) * box.ripple, muscle, Part.MUSCLE, inside)


def _ribs(slab: Slab, torso: Torso, cavity: np.ndarray, x: np.ndarray, hu: HU) -> None:
    """Ribs run round the wall, falling towards the side, and end in cartilage at the front."""
    near = np.flatnonzero((np.abs(cavity - F(6)) < 9) & (torso.rib_start - 125 < slab.Z))
    if not len(near):
        return
    z, wall = slab.Z.ravel()[near], cavity.ravel()[near] - F(5.5)
    forward = -(slab.Y.ravel()[near] - F(torso.middle)) / F(torso.half_depth)
    angle = arctangent(np.abs(x.ravel()[near]) / F(torso.half_width), forward)  # 0 at the back, pi at the front
    drop = F(48) * (1 - cosine(np.minimum(angle * F(1.15), F(np.pi)))) - F(14) * np.clip(angle - F(2.0), 0, 1)
    number = np.round((z + drop - F(torso.rib_start)) / F(torso.rib_pitch))
    above = z + drop - F(torso.rib_start) - number * F(torso.rib_pitch)
    rib = np.sqrt((above * F(0.62)) ** 2 + wall**2) - F(3.9)
    reach = F(1.15) + F(0.42) * number
    valid = (number >= 0) & (angle < np.minimum(reach, F(2.75))) & (angle > F(0.25))
    bony = angle < np.minimum(reach, F(2.1))
    shell = np.where(rib > -1.5, F(hu["cortical"] * 0.95), F(hu["marrow"] + 60))
    value = np.where(bony, shell, F(hu["cartilage"]))
    share = np.clip(F(0.5) - rib / F(slab.soft_mm), 0, 1) * valid
    flat = slab.hu.reshape(-1)
    flat[near] += share * (value - flat[near])
    slab.part.reshape(-1)[near[(rib < 0) & valid]] = Part.BONE


def _spine(slab: Slab, torso: Torso, hu: HU) -> None:
    """Vertebrae with discs, canal, arch, and processes; the same one repeats."""
    box = slab.box([-46.0, -70.0, slab.z.min()], [46.0, 26.0, slab.z.max()])
    if box is None:
        return
    pitch = torso.vertebra_pitch
    x, y = np.abs(box.X), box.Y
    z = np.mod(box.Z - F(torso.vertebra_phase), F(pitch)) - F(pitch / 2)
    waist = F(1.8) * (1 - (z / F(13)) ** 2)
    oval = _oval(x, y, 22.5, 16.5) + np.clip(waist, 0, 2)
    oval = np.maximum(oval, F(-13.5) - y - F(0.02) * x * x)  # the back of the body is flat
    half = F(pitch / 2 - 3.8)
    body = np.maximum(oval, np.abs(z) - half)
    box.paint(np.maximum(np.maximum(oval + 1, F(0.5) - body), F(-160) - box.Z), hu["disc"], Part.BONE)
    arch = np.maximum(np.maximum(np.abs(_oval(x, y + 24, 14.5, 11.0)) - F(3.0), y + 13), np.abs(z - 1) - F(10))
    pedicle = np.maximum(np.sqrt(((x - 14) * F(0.8)) ** 2 + ((z - 4) * F(0.7)) ** 2) - F(4.5), np.abs(y + 15) - F(8))
    reach = (y + 48) / F(14)
    spinous = np.maximum(x - F(2.6) - F(0.8) * reach**2, np.abs(z + 4 - F(0.25) * (y + 34)) - F(9))
    spinous = np.maximum(np.maximum(spinous, y + 33), F(-62) - y)
    across = np.sqrt(((y + 20 + F(0.25) * x) * F(1.1)) ** 2 + ((z - 3) * F(0.8)) ** 2) - F(4.2)
    transverse = np.maximum(np.maximum(across, x - 38), 10 - x)
    facet = np.sqrt((x - 16) ** 2 + (y + 29) ** 2 + (F(0.5) * (np.abs(z) - F(pitch / 2))) ** 2) - F(6.5)
    bone = smooth_union(np.minimum(np.minimum(arch, spinous), facet), np.minimum(transverse, pedicle), 2.0)
    # below the fifth lumbar vertebra the sacrum goes on
    end = F(-160) - box.Z
    bone, body = np.maximum(np.minimum(bone, body), end), np.maximum(body, end)
    marrow = hu["marrow"] + F(28) * box.texture
    box.paint(bone, hu["cortical"], Part.BONE)
    box.paint(bone + F(1.6), marrow + 60, None)
    box.paint(body + F(1.9), marrow, None)
    canal = np.maximum(_oval(x, y + 24, 10.5, 7.8), end - 60)
    box.paint(canal, hu["visceral_fat"] + 60, Part.BONE)
    box.paint(canal + F(1.6), hu["cord"], None)


def _oval(x: np.ndarray, y: np.ndarray, a: float, b: float) -> np.ndarray:
    """Distance (mm) to an upright elliptic cylinder; first order."""
    k0 = np.sqrt((x / F(a)) ** 2 + (y / F(b)) ** 2)
    k1 = np.sqrt((x / F(a * a)) ** 2 + (y / F(b * b)) ** 2)
    distance: np.ndarray = k0 * (k0 - 1) / np.maximum(k1, F(1e-6))
    return distance
