"""Paints what lies above the diaphragm: lungs, heart, mediastinum.

Comes in: a ``Slab`` whose trunk is painted, the patient's ``Torso`` and HU by tissue. Goes out: the painted slab. The
aorta below the arch and the vena cava are painted with the belly's great vessels.
"""

from __future__ import annotations

import numpy as np

from hilum.phantom.anatomy import Part, Torso
from hilum.phantom.exact import F
from hilum.phantom.shapes import Ellipsoid, Slab, Tube

HU = dict[str, float]


def paint_chest(slab: Slab, torso: Torso, cavity: np.ndarray, radius: np.ndarray, muscle: np.ndarray, hu: HU) -> None:
    """Lungs above the diaphragm, the heart and the great vessels between them."""
    above = torso.dome(slab.X, slab.Y, radius) - slab.Z
    diaphragm = np.maximum(above * F(0.75) - F(3.0), cavity)
    # what lies beside the spine stays soft tissue: vertebrae, aorta, crura
    middle = np.sqrt((slab.X * F(0.9)) ** 2 + (slab.Y - 2) ** 2) - F(33)
    slab.paint(np.maximum(diaphragm, -middle), muscle, Part.MUSCLE)
    # towards the shoulders the chest narrows
    taper = F(0.0045) * np.maximum(slab.Z - F(190), 0) ** 2
    lung = np.maximum(np.maximum(above * F(0.75), cavity + F(1.0) + taper), -middle)
    back = np.sqrt((np.abs(slab.X) - F(36)) ** 2 + ((slab.Y + F(46)) * F(1.35)) ** 2) - F(38)
    lung = np.maximum(lung, np.maximum(-back, -(np.abs(slab.X) - F(30)) * (slab.Y < -30)))  # not among the back muscles
    # behind the breastbone and around the heart fat keeps the lungs apart
    front = np.abs(slab.X + 8) - F(16) - F(0.35) * (slab.Y - F(torso.middle + 10)) + 2 * slab.ripple
    front = np.maximum(front, F(torso.middle + 10) - slab.Y)
    core = np.abs(slab.X + F(2)) - F(24) + 3 * slab.ripple - np.clip((slab.Z - F(230)) * F(0.15), 0, 12)
    front = np.minimum(front, np.maximum(core, F(195) - slab.Z))
    slab.paint(np.maximum(lung - taper, front), hu["visceral_fat"] + 4 * slab.ripple, Part.SOFT)
    if slab.z.max() > 190:
        # muscles of the shoulders, with fat between them, where the chest has narrowed
        planes = np.abs(slab.ripple) < F(0.09)
        value = F(hu["muscle"]) + planes * F(hu["visceral_fat"] - hu["muscle"] + 20)
        slab.paint(np.maximum(cavity, F(6) - cavity - taper), value, Part.MUSCLE, slab.Z > 195)
    lung = np.maximum(lung, -front)
    vessels = np.clip(slab.texture - F(1.6), 0, 1) * F(600)
    slab.paint(lung, F(hu["lung"]) + 15 * slab.ripple + vessels, Part.LUNG)
    _heart(slab, torso, hu)
    _mediastinum(slab, torso, hu)


def _heart(slab: Slab, torso: Torso, hu: HU) -> None:
    """Pericardial fat, muscle, and brighter blood in the chambers."""
    x, y, z = -26.0, torso.middle + 26, torso.dome_left + 36
    heart = Ellipsoid((x, y, z), (66.0, 52.0, 50.0))
    box = slab.around(heart, 8.0)
    if box is None:
        return
    distance = box.distance(heart) + box.ripple
    only = box.among(Part.LUNG) | (box.among(Part.SOFT) & (torso.middle < box.Y))
    box.paint(distance - F(6), hu["visceral_fat"], Part.VISCERAL_FAT, only)
    inside = only | box.among(Part.VISCERAL_FAT)
    wall = 0.55 * hu["heart"] + 0.45 * hu["muscle"]
    box.paint(distance, wall, Part.SOFT, inside)
    for centre, radii in (
        ((x - 26, y + 4, z), (24.0, 26.0, 30.0)), ((x + 14, y + 14, z), (28.0, 20.0, 28.0)),
        ((x - 4, y - 30, z + 14), (32.0, 16.0, 24.0)), ((x + 44, y - 6, z + 8), (16.0, 24.0, 30.0)),
    ):  # fmt: skip
        chamber = Ellipsoid(centre, radii)
        part = slab.around(chamber)
        if part is not None:
            blood = np.maximum(part.distance(chamber) + part.ripple, part.distance(heart) + F(5))
            part.paint(blood, hu["heart"] * F(1.1), None, part.part == Part.SOFT)


def _mediastinum(slab: Slab, torso: Torso, hu: HU) -> None:
    """Arch of the aorta, upper cava, trachea, oesophagus; the breastbone in front."""
    if slab.z.max() < 60:
        return
    y = torso.middle + 4
    arch = (
        (-10.0, 18.0, 255.0),
        (-16.0, 14.0, 282.0),
        (-2.0, y + 20, 296.0),
        (14.0, y + 30, 262.0),
        (6.0, y + 22, 205.0),
    )
    gullet = ((-2.0, 26.0, 420.0), (-6.0, 30.0, 250.0), (-10.0, 38.0, 130.0))
    tubes = (
        (Tube(arch, (12.0, 13.0, 14.0, 15.0, 15.0)), hu["aorta"], Part.VESSEL),
        (Tube(((26.0, y + 12, 310.0), (26.0, y + 6, 205.0)), (10.0, 10.0)), hu["cava"], Part.VESSEL),
        (Tube(((0.0, y - 4, 420.0), (2.0, y - 12, 246.0), (36.0, y - 14, 208.0)), (9.0, 9.0, 6.0)), -985.0, Part.LUNG),
        (Tube(((2.0, y - 12, 246.0), (-36.0, y - 16, 206.0)), (8.0, 6.0)), -985.0, Part.LUNG),
        (Tube(gullet, (7.0, 7.0, 8.0)), hu["gut_wall"], Part.SOFT),
    )  # fmt: skip
    for tube, bright, number in tubes:
        for piece in tube.pieces():
            box = slab.around(piece, 3.0)
            if box is not None:
                distance = box.distance(piece)
                room = ~box.among(Part.BONE, Part.VESSEL)
                box.paint(distance - F(1.5), hu["gut_wall"], Part.SOFT, room)
                box.paint(distance, bright, number, room)
    plate = slab.box([-30.0, torso.front - 12, 118.0], [30.0, torso.front + 14, 300.0])
    if plate is not None:
        bone = np.maximum(np.abs(plate.Y - F(torso.front + 2)) - F(5), np.abs(plate.X) - F(17))
        bone = np.maximum(np.maximum(bone, F(120) - plate.Z), plate.Z - F(296))
        plate.paint(bone, hu["cortical"] * F(0.6), Part.BONE)
        plate.paint(bone + F(1.6), hu["marrow"], None)
