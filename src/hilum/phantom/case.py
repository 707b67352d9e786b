"""One synthetic patient, from a seed to a CT with exact labels.

Comes in: a seed and perhaps a voxel grid. Goes out: a ``PhantomCase``: CT, labels and the facts that were drawn. It
knows no files.

Anatomy, lesions, brightness, tissue noise and the scanner each have a random stream of their own, so that one seed is
one patient on any grid. The grid is painted in slabs of slices to keep memory low.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hilum.errors import UsageError
from hilum.labels import SCHEMES
from hilum.phantom.acquisition import acquire, draw_scanner, make_grid
from hilum.phantom.anatomy import Part, Torso, draw_torso
from hilum.phantom.contrast import Contrast, draw_contrast
from hilum.phantom.kidneys import Kidney, clear_bed, draw_kidneys, paint_kidney, paint_renal_vessels
from hilum.phantom.lesions import Lesion, draw_lesions, paint_lesion
from hilum.phantom.shapes import WARP_MM, Noise, Slab
from hilum.phantom.torso import paint_torso
from hilum.phantom.viscera import Viscera, draw_viscera, paint_viscera
from hilum.volume import Grid, Volume

SCHEMES_MADE = ("kits", "abdomen")
SLAB_VOXELS = 1_500_000


@dataclass(frozen=True)
class PhantomCase:
    """A synthetic scan.

    Attributes:
        ct: int16 HU, axes "LPS".
        labels: uint8 on the same grid.
        facts: JSON-able: seed, phase, volumes by side, lesions with size and side.
    """

    ct: Volume
    labels: Volume
    facts: dict[str, Any]


@dataclass(frozen=True)
class Patient:
    """All that was drawn about one patient's body."""

    torso: Torso
    viscera: Viscera
    kidneys: tuple[Kidney, Kidney]
    lesions: tuple[Lesion, ...]
    contrast: Contrast


def make_case(
    seed: int,
    *,
    shape: tuple[int, int, int] | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    small: bool = False,
    labels: str = "kits",
    phase: str | None = None,
) -> PhantomCase:
    """A synthetic contrast CT of the upper abdomen with exact labels; the same arguments give the same bytes.

    Args:
        seed: the patient, 0 or more.
        shape: columns, rows, slices; by default 512 x 512 x 100, or about 120 x 104 x 56 if small.
        spacing_mm: between columns, rows, slices; by default what holds the body, and 2.5 mm slices.
        small: about 3 mm voxels, tumours of 10 to 80 mL, always with contrast medium: for laptops and tests.
        labels: "kits" (kidney, tumour, cyst) or "abdomen" (right and left kidney with their lesions, liver, spleen).
        phase: "none", "arterial" or "nephrographic"; drawn if None.

    Raises:
        UsageError: a negative seed, an unknown scheme or phase, an impossible grid.
    """
    if labels not in SCHEMES_MADE:
        raise UsageError(f"labels {labels!r}", wanted=f"one of {list(SCHEMES_MADE)}")
    if seed < 0:
        raise UsageError(f"seed {seed}", wanted="a whole number of at least 0")
    patient = draw_patient(seed, small=small, phase=phase)
    scanner = draw_scanner(_stream(seed, 3))
    grid = _grid(patient.torso, scanner.offset_mm, shape, spacing_mm, small)
    hu, part = _paint(patient, grid, seed)
    sx, sy, sz = grid.spacing_mm
    ct = acquire(hu, (sx, sy, sz), scanner, _stream(seed, 4))
    facts = _facts(patient, part, grid, seed)
    table = _label_table(patient.lesions, labels)
    name = f"phantom {seed}"
    return PhantomCase(
        Volume.on(grid, ct.transpose(2, 1, 0), name, {"phantom_seed": seed}),
        Volume.on(grid, table[part].transpose(2, 1, 0), f"{name} labels", {"scheme": SCHEMES[labels].name}),
        facts,
    )


def draw_patient(seed: int, *, small: bool = False, phase: str | None = None) -> Patient:
    """Everything about a body but its tissue noise."""
    body = _stream(seed, 0)
    torso = draw_torso(body)
    viscera = draw_viscera(body, torso)
    kidneys = draw_kidneys(body)
    lesions = draw_lesions(_stream(seed, 1), kidneys, torso.scale, small)
    contrast = draw_contrast(_stream(seed, 2), phase, 0.0 if small else 0.08)
    return Patient(torso, viscera, kidneys, lesions, contrast)


def _stream(seed: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, number]))


def _grid(
    torso: Torso,
    offset_mm: tuple[float, float],
    shape: tuple[int, int, int] | None,
    spacing_mm: tuple[float, float, float] | None,
    small: bool,
) -> Grid:
    """The voxel grid: wide enough for the body, and centred on the kidneys from head to foot."""
    if shape is None:
        shape = (120, 104, 56) if small else (512, 512, 100)
    if spacing_mm is None:
        wide = 2 * torso.outer_half_width + 14
        step = max(wide / shape[0], 2.8 if small else 0.6)
        spacing_mm = (round(step, 3), round(step, 3), 3.2 if small else 2.5)
    front = torso.front + torso.wall_front + torso.fat_front
    back = torso.MUSCLE_BACK - torso.fat_back - 12
    centre = (offset_mm[0], torso.scale * (front + back) / 2 + offset_mm[1], 2.0)
    return make_grid(shape, spacing_mm, centre)


def _paint(patient: Patient, grid: Grid, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """HU (float32) and part numbers (uint8) of the whole grid, (Z, Y, X)."""
    nx, ny, nz = grid.shape
    scale = patient.torso.scale
    x, y, z = ((grid.affine[a, 3] + grid.affine[a, a] * np.arange(n)) / scale for a, n in enumerate((nx, ny, nz)))
    rng = _stream(seed, 5)
    warps = [Noise(rng, 52.0) for _ in range(3)]
    ripple, texture = Noise(rng, 13.0), Noise(rng, 5.0)
    hu = np.full((nz, ny, nx), np.float32(-1000))
    part = np.zeros((nz, ny, nx), np.uint8)
    soft = float(np.cbrt(np.prod(grid.spacing_mm))) / scale
    depth = max(1, SLAB_VOXELS // (nx * ny))
    for start in range(0, nz, depth):
        cut = slice(start, min(nz, start + depth))
        zs = z[cut]
        moved = [np.clip(warp.on(zs, y, x) * np.float32(2.2), -WARP_MM, WARP_MM) for warp in warps]
        moved[0] += x[None, None, :].astype(np.float32)
        moved[1] += y[None, :, None].astype(np.float32)
        bend = (patient.torso.kyphosis * ((zs + 50) / 100) ** 2).astype(np.float32)
        moved[1] += bend[:, None, None]
        moved[2] += zs[:, None, None].astype(np.float32)
        slab = Slab(
            x, y, zs, moved[0], moved[1], moved[2], hu[cut], part[cut],
            ripple.on(zs, y, x), texture.on(zs, y, x), bend, soft,
        )  # fmt: skip
        _paint_patient(slab, patient)
    return hu, part


def _paint_patient(slab: Slab, patient: Patient) -> None:
    """The whole patient on one slab, in the order in which later things override earlier ones."""
    hu = patient.contrast.hu
    paint_torso(slab, patient.torso, hu)
    paint_viscera(slab, patient.torso, patient.viscera, hu)
    for kidney in patient.kidneys:
        masses = [lesion.shape for lesion in patient.lesions if lesion.side == kidney.side]
        clear_bed(slab, kidney, masses, hu)
    for kidney in patient.kidneys:
        paint_renal_vessels(slab, kidney, hu)
        paint_kidney(slab, kidney, hu)
    for number, lesion in enumerate(patient.lesions):
        paint_lesion(slab, lesion, number, hu)


def _label_table(lesions: tuple[Lesion, ...], labels: str) -> np.ndarray:
    """(256,) uint8: part number to label."""
    table = np.zeros(256, np.uint8)
    if labels == "kits":
        table[[Part.KIDNEY_RIGHT, Part.KIDNEY_LEFT]] = 1
    else:
        table[[Part.KIDNEY_RIGHT, Part.KIDNEY_LEFT, Part.LIVER, Part.SPLEEN]] = (1, 2, 3, 4)
    for number, lesion in enumerate(lesions):
        kits = 2 if lesion.kind == "tumour" else 3
        table[Part.LESION + number] = kits if labels == "kits" else (1 if lesion.side > 0 else 2)
    return table


def _facts(patient: Patient, part: np.ndarray, grid: Grid, seed: int) -> dict[str, Any]:
    """What is true of this case, measured on its own voxels."""
    counts = np.bincount(part.ravel(), minlength=256)
    ml = grid.voxel_volume_mm3 / 1000
    lesions = []
    for number, lesion in enumerate(patient.lesions):
        volume = float(counts[Part.LESION + number] * ml)
        if volume > 0:
            voxels = np.stack(np.unravel_index(np.flatnonzero(part == Part.LESION + number), part.shape)[::-1])
            centre = [round(float(c), 1) for c in grid.world(voxels.mean(axis=1))]
            lesions.append(
                {
                    "kind": lesion.kind,
                    "side": "right" if lesion.side > 0 else "left",
                    "volume_ml": round(volume, 3),
                    "diameter_mm": round(2 * float(np.cbrt(np.prod(lesion.shape.radii))) * patient.torso.scale, 1),
                    "exophytic": round(lesion.exophytic, 2),
                    "centre_mm": centre,
                }
            )
    volumes = {
        "right_kidney": counts[Part.KIDNEY_RIGHT], "left_kidney": counts[Part.KIDNEY_LEFT],
        "liver": counts[Part.LIVER], "spleen": counts[Part.SPLEEN],
    }  # fmt: skip
    return {
        "seed": seed,
        "phase": patient.contrast.phase,
        "volumes_ml": {name: round(float(n * ml), 3) for name, n in volumes.items()},
        "lesions": lesions,
    }
