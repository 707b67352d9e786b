"""One synthetic patient, from a seed to a CT with exact labels.

Comes in: a seed and perhaps a voxel grid. Goes out: a ``PhantomCase``: CT, labels and the facts that were drawn. It
knows no files.

Anatomy, lesions, brightness, tissue noise and the scanner each have a random stream of their own, so that one seed is
one patient on any grid. The grid is painted and scanned in slabs of slices to keep memory low.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hilum.errors import UsageError
from hilum.labels import SCHEMES
from hilum.phantom.acquisition import acquire, draw_scanner, make_grid
from hilum.phantom.anatomy import Part, Torso
from hilum.phantom.canvas import canvas, slabs
from hilum.phantom.extent import draw_extent
from hilum.phantom.kidneys import clear_bed, paint_isthmus, paint_kidney, paint_renal_vessels
from hilum.phantom.lesions import Lesion, paint_lesion
from hilum.phantom.patient import Patient, draw_patient, stream
from hilum.phantom.shapes import Slab
from hilum.phantom.torso import paint_torso
from hilum.phantom.viscera import paint_viscera
from hilum.volume import Grid, Volume

SCHEMES_MADE = ("kits", "abdomen", "lits", "ircadb", "trunk")


@dataclass(frozen=True)
class PhantomCase:
    """A synthetic scan.

    Attributes:
        ct: int16 HU, axes "LPS".
        labels: uint8 on the same grid.
        facts: JSON-able: seed, phase, anomaly, volumes by side, lesions with size and side.
    """

    ct: Volume
    labels: Volume
    facts: dict[str, Any]


def make_case(
    seed: int,
    *,
    shape: tuple[int, int, int] | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    small: bool = False,
    labels: str = "kits",
    phase: str | None = None,
    appearance: str = "usual",
) -> PhantomCase:
    """A synthetic CT of the abdomen with exact labels; the same arguments give the same voxels.

    Args:
        seed: the patient, 0 or more.
        shape: columns, rows, slices; by default 512 x 512 and as many slices as the drawn extent takes (about 30 to
            1000, as in KiTS23), or about 120 x 104 x 56 if small.
        spacing_mm: between columns, rows, slices; by default what holds the body, and slices of 0.5 to 5 mm.
        small: about 3 mm voxels, tumours of 10 to 80 mL, always with contrast medium, no anomalies of the kidneys: for
            laptops and tests.
        labels: "kits" (kidney, tumour, cyst), "abdomen" (right and left kidney with their lesions, liver, spleen) or
            "lits" (liver, tumour; a patient whose liver has lesions and whose kidneys have cysts at most) or "ircadb"
            (the same patients, with kidneys and spleen) or "trunk" (the patients of "kits"; liver, its tumours and
            spleen beside their labels).
        phase: "none", "arterial", "nephrographic", "delayed" or "excretory"; drawn if None.
        appearance: "usual", or "random": brightness, noise and sharpness drawn far more widely than scans differ.

    Raises:
        UsageError: a negative seed, an unknown scheme, phase or appearance, an impossible grid.
    """
    if labels not in SCHEMES_MADE:
        raise UsageError(f"labels {labels!r}", wanted=f"one of {list(SCHEMES_MADE)}")
    if seed < 0:
        raise UsageError(f"seed {seed}", wanted="a whole number of at least 0")
    patient = draw_patient(seed, small=small, phase=phase, appearance=appearance, liver=labels in ("lits", "ircadb"))
    scanner = draw_scanner(stream(seed, 3), plain=small, wide=appearance == "random")
    grid = _grid(patient, scanner.offset_mm, shape, spacing_mm, small, seed)
    part = np.empty(grid.shape[::-1], np.uint8)
    sx, sy, sz = grid.spacing_mm
    ct = np.empty(part.shape, np.int16)
    for k, plane in enumerate(acquire(_painted(patient, grid, seed, part), (sx, sy, sz), scanner, stream(seed, 4))):
        ct[k] = plane
    facts = _facts(patient, part, grid, seed)
    table = _label_table(patient.lesions, labels)
    for plane in part:
        plane[...] = table[plane]
    name = f"phantom {seed}"
    return PhantomCase(
        Volume.on(grid, ct.transpose(2, 1, 0), name, {"phantom_seed": seed}),
        Volume.on(grid, part.transpose(2, 1, 0), f"{name} labels", {"scheme": SCHEMES[labels].name}),
        facts,
    )


def _grid(
    patient: Patient,
    offset_mm: tuple[float, float],
    shape: tuple[int, int, int] | None,
    spacing_mm: tuple[float, float, float] | None,
    small: bool,
    seed: int,
) -> Grid:
    """The voxel grid: wide enough for the body; from head to foot around the kidneys, further up and down by chance."""
    torso = patient.torso
    columns, rows = shape[:2] if shape else (120, 104) if small else (512, 512)
    wide = 2 * torso.outer_half_width + 14
    step = round(max(wide / columns, 2.8 if small else 0.45), 3)
    height = 2.0
    if small or (shape and spacing_mm):
        slices, thick = shape[2] if shape else 56, 3.2 if small else 2.5
    else:
        extent = draw_extent(stream(seed, 7), torso.scale, patient.lowest_mm)
        thick = spacing_mm[2] if spacing_mm else 2.5 if shape else extent.spacing_mm
        slices = shape[2] if shape else max(8, round((extent.top_mm - extent.bottom_mm) / thick))
        height = 2.0 if shape else (extent.top_mm + extent.bottom_mm) / 2
    front = torso.front + torso.wall_front + torso.fat_front
    back = torso.MUSCLE_BACK - torso.fat_back - 12
    centre = (offset_mm[0], torso.scale * (front + back) / 2 + offset_mm[1], height)
    return make_grid((columns, rows, slices), spacing_mm or (step, step, thick), centre)


def _painted(patient: Patient, grid: Grid, seed: int, part: np.ndarray) -> Iterator[np.ndarray]:
    """Painted HU (float32) slice by slice; fills ``part`` (Z, Y, X) with part numbers on the way."""
    axes = canvas(grid, patient.torso.scale)
    for cut, slab in slabs(axes, patient.torso, stream(seed, 5)):
        paint_patient(slab, patient)
        part[cut] = slab.part
        yield from slab.hu


def paint_patient(slab: Slab, patient: Patient) -> None:
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
    if patient.anomaly == "horseshoe":
        paint_isthmus(slab, patient.kidneys, hu)
    for number, lesion in enumerate(patient.lesions):
        paint_lesion(slab, lesion, number, hu)


def _label_table(lesions: tuple[Lesion, ...], labels: str) -> np.ndarray:
    """(256,) uint8: part number to label."""
    table = np.zeros(256, np.uint8)
    if labels in ("kits", "trunk"):
        table[[Part.KIDNEY_RIGHT, Part.KIDNEY_LEFT]] = 1
        if labels == "trunk":
            table[[Part.LIVER, Part.SPLEEN]] = 4, 6
    elif labels == "lits":
        table[Part.LIVER] = 1
    else:
        organs = (1, 2, 3, 4) if labels == "abdomen" else (4, 5, 1, 6)
        table[[Part.KIDNEY_RIGHT, Part.KIDNEY_LEFT, Part.LIVER, Part.SPLEEN]] = organs
    right, left = (4, 5) if labels == "ircadb" else (1, 2)
    values = {
        "kits": {"tumour": 2, "cyst": 3, "liver tumour": 0},
        "trunk": {"tumour": 2, "cyst": 3, "liver tumour": 5},
        "lits": {"tumour": 0, "cyst": 0, "liver tumour": 2},
        "abdomen": {"liver tumour": 3},
        "ircadb": {"liver tumour": 2},
    }[labels]
    for number, lesion in enumerate(lesions):
        table[Part.LESION + number] = values.get(lesion.kind, right if lesion.side > 0 else left)
    return table


def _facts(patient: Patient, part: np.ndarray, grid: Grid, seed: int) -> dict[str, Any]:
    """What is true of this case, measured on its own voxels."""
    counts = np.zeros(256, np.int64)
    for plane in part:
        counts += np.bincount(plane.ravel(), minlength=256)
    ml = grid.voxel_volume_mm3 / 1000
    volumes = {
        "right_kidney": counts[Part.KIDNEY_RIGHT], "left_kidney": counts[Part.KIDNEY_LEFT],
        "liver": counts[Part.LIVER], "spleen": counts[Part.SPLEEN],
    }  # fmt: skip
    lesions = [
        _lesion_facts(lesion, Part.LESION + i, part, grid, patient.torso, float(counts[Part.LESION + i] * ml))
        for i, lesion in enumerate(patient.lesions)
        if counts[Part.LESION + i]
    ]
    return {
        "seed": seed,
        "phase": patient.contrast.phase,
        "anomaly": patient.anomaly,
        "bulk": round(patient.torso.bulk, 2),
        "volumes_ml": {name: round(float(n * ml), 3) for name, n in volumes.items()},
        "lesions": lesions,
    }


def _lesion_facts(
    lesion: Lesion, number: int, part: np.ndarray, grid: Grid, torso: Torso, volume_ml: float
) -> dict[str, Any]:
    total, sums = 0, np.zeros(3)
    for z, plane in enumerate(part):
        y, x = np.nonzero(plane == number)
        total += len(y)
        sums += (x.sum(), y.sum(), z * len(y))
    centre = [round(float(c), 1) for c in grid.world(sums / total)]
    return {
        "kind": lesion.kind,
        "subtype": lesion.subtype,
        "side": {1: "right", -1: "left", 0: ""}[lesion.side],
        "volume_ml": round(volume_ml, 3),
        "diameter_mm": round(2 * float(np.cbrt(np.prod(lesion.shape.radii))) * torso.scale, 1),
        "exophytic": round(lesion.exophytic, 2),
        "centre_mm": centre,
    }
