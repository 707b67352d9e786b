"""Draws and paints masses: tumours and cysts of the kidneys, tumours of the liver.

Comes in: random numbers and the organs; then a ``Slab`` with organs on it. Goes out: frozen ``Lesion`` objects; the
painted slab, each lesion with a part number of its own. It knows no label scheme.

Renal tumours follow the KiTS23 training set in size (``SIZES``); a tumour sits anywhere but in the hilum and bulges out
by 10 to 75 % of its diameter, as nephrometry scores describe (Kutikov and Uzzo, J Urol 2009;182:844-853).
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
Subtype = Literal[
    "clear_cell", "papillary", "chromophobe", "fat_rich", "simple", "complex", "metastasis", "hcc", "haemangioma"
]
# mL of renal tumour in a KiTS23 patient: median, and the spread of its logarithm below and above (489 cases: 5th, 50th,
# 95th percentile 2.9, 32, 664 mL)
SIZES = (32.0, 1.46, 1.84)
_RENAL: tuple[tuple[Subtype, float], ...] = (
    ("clear_cell", 0.70), ("papillary", 0.13), ("chromophobe", 0.08), ("fat_rich", 0.09)
)  # fmt: skip


@dataclass(frozen=True)
class Lesion:
    """One mass.

    Attributes:
        kind: "tumour" or "cyst" of a kidney, or "liver tumour".
        subtype: what it consists of.
        side: +1 right, -1 left, 0 in the liver.
        shape: its smooth outline.
        exophytic: the share of its diameter outside the kidney's outline, 0 to 1.
        brighter: HU by which its solid tissue differs from others of its subtype.
        below_cortex: least HU by which enhanced tissue stays below the cortex, for what is to be learnt quickly.
        mottle: HU of mottling.
        necrosis: radius of the dead centre as a share of the outline; 0 for none.
        rough: how uneven the surface is (mm).
    """

    kind: Literal["tumour", "cyst", "liver tumour"]
    subtype: Subtype
    side: int
    shape: Ellipsoid
    exophytic: float = 0.0
    brighter: float = 0.0
    below_cortex: float = -1000.0
    mottle: float = 0.0
    necrosis: float = 0.0
    rough: float = 0.15


def draw_lesions(
    rng: np.random.Generator, kidneys: tuple[Kidney, ...], scale: float, small: bool
) -> tuple[Lesion, ...]:
    """Mostly one tumour, and in half of the patients one to four cysts.

    Args:
        rng: random numbers.
        kidneys: those that the patient has.
        scale: world mm per body mm, so that volumes are right in the world.
        small: for coarse voxels and little training: tumours of 10 to 80 mL, clearly darker than the cortex and
            mottled; cysts of 14 to 30 mm.
    """
    u = rng.uniform
    lesions: list[Lesion] = []
    first = kidneys[int(u() * len(kidneys))]
    count = 1 + int(u() < 0.15) if small else int(rng.choice([1, 2, 3, 5], p=[0.83, 0.1, 0.05, 0.02]))
    for i in range(count):
        kidney = first if i == 0 or u() < 0.7 else kidneys[int(u() * len(kidneys))]
        volume_ml = _tumour_ml(rng, small) * (1.0 if i == 0 else 0.6 if small else 0.15)
        radius = (volume_ml * 1000 * 0.75 / np.pi) ** (1 / 3) / scale
        lesions.append(_draw_tumour(rng, kidney, radius, small, lesions))
    if u() < (0.5 if small else 0.56):
        for _ in range(int(rng.choice([1, 2, 3, 4], p=[0.5, 0.28, 0.15, 0.07]))):
            kidney = kidneys[int(u() * len(kidneys))]
            diameter = float(np.clip(18 * np.exp(rng.normal(0, 0.55)), *((14.0, 30.0) if small else (5.0, 90.0))))
            radius = diameter / 2 / scale
            exophytic = u(0.15, 0.7)
            at = _place(rng, kidney, radius, exophytic, lesions)
            radii = (radius, radius * u(0.92, 1.05), radius * u(0.92, 1.05))
            subtype: Subtype = "complex" if not small and u() < 0.2 and diameter > 15 else "simple"
            bright = u(0, 25) if subtype == "complex" else u(-3, 3)
            lesions.append(Lesion("cyst", subtype, kidney.side, Ellipsoid(at, radii), exophytic, bright))
    return tuple(lesions)


def _tumour_ml(rng: np.random.Generator, small: bool) -> float:
    if small:
        return float(np.clip(34.0 * np.exp(rng.normal(0, 0.5)), 10.0, 80.0))
    z = float(rng.normal())
    median, below, above = SIZES
    return float(np.clip(median * np.exp(z * (below if z < 0 else above)), 0.6, 1100.0))


def _draw_tumour(rng: np.random.Generator, kidney: Kidney, radius: float, small: bool, others: list[Lesion]) -> Lesion:
    u = rng.uniform
    exophytic = u(0.45, 0.75) if radius > 30 else u(0.1, 0.7)
    at = _place(rng, kidney, radius, exophytic, others)
    stretch = np.exp(rng.normal(0, 0.09, 3))
    stretch /= np.cbrt(stretch.prod())
    a, b, c = (float(radius * s) for s in stretch)
    names, shares = zip(*(_RENAL[:3] if small else _RENAL), strict=True)
    subtype: Subtype = names[int(rng.choice(len(names), p=np.array(shares) / sum(shares)))]
    dead = u(0.3, 0.5 if small else 0.7)
    likely = {"clear_cell": 0.7, "papillary": 0.4, "chromophobe": 0.25, "fat_rich": 0.0}[subtype]
    dead = dead if radius > 15 and u() < (0.45 if small else likely) else 0.0
    mottle = u(10, 24) if small else u(4, 14) * (1.5 if subtype == "clear_cell" else 0.8)
    below = u(65, 100) if small else -1000.0
    shape = Ellipsoid(at, (a, b, c), turned((u(0, 90), u(0, 90), u(0, 90))))
    rough = min(2.0 if small else 3.0, u(0.03, 0.09) * radius)
    return Lesion(
        "tumour", subtype, kidney.side, shape, exophytic, float(rng.normal(0, 12)), below, mottle, dead, rough
    )


def draw_liver_lesions(rng: np.random.Generator, liver: Ellipsoid, scale: float, sought: bool) -> tuple[Lesion, ...]:
    """Metastases, hepatocellular carcinoma or haemangiomas.

    Args:
        rng: random numbers.
        liver: the right lobe, in which they lie.
        scale: world mm per body mm.
        sought: the liver is what is looked at: nine patients in ten have lesions, else one in ten.
    """
    u = rng.uniform
    if u() > (0.9 if sought else 0.1):
        return ()
    kinds: list[Subtype] = ["metastasis", "hcc", "haemangioma"]
    subtype = kinds[int(rng.choice(3, p=[0.6, 0.25, 0.15]))]
    count = {"metastasis": int(np.clip(rng.geometric(0.25), 1, 14)), "hcc": int(rng.integers(1, 4))}.get(subtype, 1)
    lesions: list[Lesion] = []
    for i in range(count):
        median = {"metastasis": 9.0, "hcc": 16.0, "haemangioma": 12.0}[subtype]
        radius = float(np.clip(median * np.exp(rng.normal(0, 0.55)), 2.5, 55)) * (1.0 if i == 0 else 0.7) / scale
        n = rng.normal(size=3)
        n *= u() ** (1 / 3) * 0.8 / np.linalg.norm(n)
        x, y, z = (np.array(liver.centre) + n * np.array(liver.radii)).tolist()
        radii = (radius, radius * u(0.85, 1.15), radius * u(0.85, 1.15))
        dead = u(0.3, 0.65) if subtype != "haemangioma" and radius > 10 and u() < 0.5 else 0.0
        lesions.append(
            Lesion(
                "liver tumour", subtype, 0, Ellipsoid((x, y, z), radii, turned((u(0, 90), u(0, 90), u(0, 90)))),
                brighter=float(rng.normal(0, 7)), mottle=u(2, 9), necrosis=dead, rough=min(2.0, 0.07 * radius),
            )
        )  # fmt: skip
    return tuple(lesions)


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
    if lesion.kind == "liver tumour":
        room = (box.part == Part.LIVER) | (box.part >= Part.LESION)
    else:
        earlier = np.zeros(256, bool)
        earlier[Part.LESION :] = lesion.kind == "tumour"  # a tumour overrides a cyst, a cyst no tumour
        room = box.among(*YIELDING, Part.KIDNEY_RIGHT, Part.KIDNEY_LEFT, Part.SINUS) | earlier[box.part]
    u, v, w = local(lesion.shape.centre, lesion.shape.axes, box.X, box.Y, box.Z)
    dead: np.ndarray | None = None
    if lesion.necrosis > 0:
        a, b, c = (r * lesion.necrosis for r in lesion.shape.radii)
        dead = ellipsoid_distance(u, v, w, (a, b, c))
    tissue = tissue_hu(lesion, distance, dead, box.ripple, box.texture, hu)
    box.paint(distance, tissue, Part.LESION + number, room)


def tissue_hu(
    lesion: Lesion, distance: np.ndarray, dead: np.ndarray | None, ripple: np.ndarray, texture: np.ndarray, hu: HU
) -> np.ndarray:
    """HU of a lesion's inside.

    Args:
        lesion: what it consists of.
        distance: signed distance (mm) to its surface, negative inside.
        dead: signed distance to the dead centre, or None.
        ripple, texture: noise of about 14 and 5 mm, of the same shape.
        hu: the patient's HU by tissue.
    """
    if lesion.subtype in ("simple", "complex"):
        fluid = np.full(distance.shape, F(hu["cyst"] + lesion.brighter))
        if lesion.subtype == "complex":  # a wall, septa and perhaps chalk: Bosniak IIF and III
            solid = F(hu["papillary"])
            septa = np.abs(ripple - F(0.25)) * F(9) - F(1.1)
            fluid += np.clip(F(0.5) - septa / F(2), 0, 1) * (solid - fluid)
            fluid += np.clip(F(2.0) + distance, 0, 1) * (solid - fluid)
            fluid += np.clip(texture - F(2.3), 0, 1) * (septa < 0) * F(500)
        return fluid
    enhanced = hu["cortex"] > 60
    solid_hu = hu[lesion.subtype] + lesion.brighter * (1.0 if enhanced else 0.3)
    if enhanced:
        solid_hu = max(min(solid_hu, hu["cortex"] - lesion.below_cortex), 30.0)
    mottle = lesion.mottle if enhanced else min(lesion.mottle, 2.0)
    tissue = F(solid_hu) + F(mottle) * (F(0.6) * ripple + F(0.6) * texture)
    if lesion.subtype == "fat_rich":
        share = np.clip((ripple + F(0.5) * texture - F(0.1)) * F(2), 0, F(0.95))
        tissue = tissue + share * (F(hu["sinus_fat"] + 8) - tissue)
    if lesion.subtype == "haemangioma":  # nodules fill in from the rim
        rim = np.clip((distance + F(4.5) + F(3) * ripple) / F(3), 0, 1)
        tissue = tissue + rim * (F(hu["haemangioma_rim"]) - tissue)
    if lesion.subtype == "metastasis":
        rim = np.clip(F(1) - np.abs(distance + F(2.0)) / F(1.8), 0, 1)
        tissue = tissue + rim * F(0.5) * (F(hu["liver"]) - tissue)
    if lesion.subtype == "hcc":  # a capsule
        tissue = tissue + np.clip(F(1) - np.abs(distance + F(0.8)), 0, 1) * F(12 if enhanced else -4)
    if dead is not None:
        share = np.clip(F(0.5) - (dead + 3 * ripple + F(1.2) * texture) / F(5.0), 0, 1) * F(0.85)
        tissue = tissue + share * (F(hu["necrosis"]) - tissue)
    result: np.ndarray = tissue
    return result
