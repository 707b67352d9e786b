"""One patient's trunk: its size and shape, drawn from random numbers, and the surfaces that organs lie against.

Comes in: a random generator. Goes out: a frozen ``Torso`` and the part numbers of everything painted. It knows no
voxels and no HU.

Body coordinates are mm for a person of standard size, origin in the spine at the height of the kidneys (about L1/L2);
the whole is then scaled by ``Torso.scale``. Sizes are typical of adults in anatomy text books.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np


class Part(IntEnum):
    """What a voxel belongs to; lesions follow from ``LESION`` on, one number each."""

    AIR = 0
    SKIN = 1
    FAT = 2
    VISCERAL_FAT = 3
    MUSCLE = 4
    BONE = 5
    LUNG = 6
    VESSEL = 7
    LIVER = 8
    SPLEEN = 9
    GUT = 10
    SOFT = 11
    KIDNEY_RIGHT = 12
    KIDNEY_LEFT = 13
    SINUS = 14
    LESION = 64


@dataclass(frozen=True)
class Torso:
    """The trunk's measures, in mm of the standard body unless said.

    Attributes:
        scale: world mm per body mm.
        half_width, front, back: the inside of the muscle wall: reach to the sides, largest and lowest y.
        wall_side, wall_front: thickness of the muscle wall.
        fat_side, fat_front, fat_back: thickness of the fat under the skin.
        waist: how much the width grows 120 mm above or below the kidneys, as a fraction.
        kyphosis: how far the spine bends back 100 mm away from L3.
        vertebra_pitch, vertebra_phase: height of a vertebra with its disc; where they begin.
        rib_pitch, rib_start: distance between ribs; height of the twelfth at the spine.
        infiltration: 0 to 1, fat streaks in the muscles.
        dome_right, dome_left, recess: height of the diaphragm's domes and of the lung's lower edge at the back.
        table_gap: from the back to the patient table; negative if there is no table.
        table_hu: of the table's shell.
        bulk: 0 slim to 1.2 heavy; stands for body mass, which widened the cavity and thickened the fat.
    """

    scale: float
    half_width: float
    front: float
    back: float
    wall_side: float
    wall_front: float
    fat_side: float
    fat_front: float
    fat_back: float
    waist: float
    kyphosis: float
    vertebra_pitch: float
    vertebra_phase: float
    rib_pitch: float
    rib_start: float
    infiltration: float
    dome_right: float
    dome_left: float
    recess: float
    table_gap: float
    table_hu: float
    bulk: float = 0.45

    MUSCLE_BACK = -70.0  # y of the back muscles' surface

    @property
    def middle(self) -> float:
        """y of the cavity's centre."""
        return (self.front + self.back) / 2

    @property
    def half_depth(self) -> float:
        """Half the cavity's extent from front to back."""
        return (self.front - self.back) / 2

    @property
    def outer_half_width(self) -> float:
        """From the midline to the skin at the sides, in world mm."""
        return self.scale * (self.half_width + self.wall_side + self.fat_side) * (1 + self.waist)

    def place(self, across: float, forward: float, z: float) -> tuple[float, float, float]:
        """A point by fractions of the cavity (-1 to 1 across, to the right; -1 back to 1 front) and its height."""
        return across * self.half_width, self.middle + forward * self.half_depth, z

    def widened(self, x: Any, z: Any) -> Any:
        """x as it would be without the waist."""
        return x / (1 + np.float32(self.waist) * ((z + 20) / np.float32(120)) ** 2)

    def cavity(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Signed distance to the inside of the wall, and the relative radius (0 centre, 1 wall)."""
        return ring(x, y, self.half_width, self.front, self.back, 0.3)

    def muscle_surface(self, x: Any, y: Any) -> Any:
        """Signed distance to the outside of the muscle wall."""
        return ring(x, y, self.half_width + self.wall_side, self.front + self.wall_front, self.MUSCLE_BACK, 0.3)[0]

    def skin_surface(self, x: Any, y: Any) -> Any:
        """Signed distance to the skin."""
        width = self.half_width + self.wall_side + self.fat_side
        front = self.front + self.wall_front + self.fat_front
        return ring(x, y, width, front, self.MUSCLE_BACK - self.fat_back, 0.22)[0]

    def dome(self, x: Any, y: Any, radius: Any) -> Any:
        """Height z of the diaphragm's underside at a relative cavity radius."""
        side = np.float32(0.5) + np.float32(0.5) * np.clip(x / np.float32(45), -1, 1)
        top = np.float32(self.dome_left) + np.float32(self.dome_right - self.dome_left) * side
        forward = np.clip((y - np.float32(self.middle)) / np.float32(self.half_depth), -1, 1)
        edge = np.float32(self.recess) + np.float32(30.0) * (forward + 1)
        r = np.minimum(radius, 1)
        steep = r * r
        return edge + (top - edge) * (1 - steep * steep * r)


def ring(x: Any, y: Any, half_width: float, front: float, back: float, square: float) -> tuple[Any, Any]:
    """Radial distance to an oval between an ellipse (``square`` 0) and a squarer one (1), and the relative radius."""
    middle, half_depth = np.float32((front + back) / 2), np.float32((front - back) / 2)
    y = y - middle
    a, b = (x / np.float32(half_width)) ** 2, (y / half_depth) ** 2
    radius = np.float32(1 - square) * np.sqrt(a + b) + np.float32(square) * np.sqrt(np.sqrt(a * a + b * b))
    radius = np.maximum(radius, np.float32(1e-3))
    return np.sqrt(x * x + y * y) * (1 - 1 / radius), radius


def draw_torso(rng: np.random.Generator, bulk: float | None = None) -> Torso:
    """One patient's trunk. ``bulk`` stands for body mass: it widens the cavity and thickens the fat."""
    drawn = float(np.clip(rng.normal(0.45, 0.28), 0.0, 1.2))
    bulk = drawn if bulk is None else bulk
    lean = float(rng.uniform(0.7, 1.3))  # fat under the skin against fat inside
    u = rng.uniform
    return Torso(
        scale=float(np.clip(rng.normal(1.0, 0.035), 0.92, 1.08)),
        half_width=118 + 18 * bulk + u(-4, 4),
        front=94 + 44 * bulk + u(-5, 6),
        back=-57 + u(-3, 2),
        wall_side=16 + u(-3, 4),
        wall_front=9 + u(-1.5, 3),
        fat_side=max(3.0, 5 + 26 * bulk * lean + u(-2, 3)),
        fat_front=max(4.0, 7 + 24 * bulk * lean + u(-2, 4)),
        fat_back=max(5.0, 8 + 24 * bulk * lean + u(-2, 4)),
        waist=u(-0.03, 0.04),
        kyphosis=u(4, 12),
        vertebra_pitch=u(32, 36),
        vertebra_phase=u(0, 34),
        rib_pitch=u(26, 31),
        rib_start=u(38, 58),
        infiltration=u(0.1, 1.0),
        dome_right=u(128, 152),
        dome_left=u(112, 138),
        recess=u(40, 66),
        table_gap=u(1, 14) if u() < 0.75 else -1.0,
        table_hu=u(-120, 250),
        bulk=bulk,
    )
