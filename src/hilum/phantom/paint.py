"""A CT painted around a real label map: its labelled voxels stay exactly as they are, the body is synthetic.

Comes in: a KiTS label map in any orientation, a seed. Goes out: a ``PaintedCase``: a CT on the label map's own grid.
It is for label maps that are public where their images are not. It knows no files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hilum.labels import SCHEMES
from hilum.phantom.acquisition import acquire, draw_scanner
from hilum.phantom.anatomy import Part
from hilum.phantom.around import Surroundings, paint_labels, survey
from hilum.phantom.canvas import canvas, slabs
from hilum.phantom.case import paint_patient
from hilum.phantom.contrast import draw_contrast
from hilum.phantom.fitting import Fit, fit_body
from hilum.phantom.kidneys import Kidney, kidney_at, paint_renal_vessels
from hilum.phantom.patient import Patient, stream
from hilum.phantom.viscera import draw_viscera
from hilum.volume import Volume

# part number to the labels of scheme "trunk" that no KiTS label map holds
_ORGANS = np.zeros(256, np.uint8)
_ORGANS[[Part.LIVER, Part.SPLEEN]] = 4, 6


@dataclass(frozen=True)
class PaintedCase:
    """A synthetic CT around real labels.

    Attributes:
        ct: int16 HU on the label map's own grid.
        organs: uint8 on the same grid, scheme "trunk": the label map, and elsewhere the painted liver and spleen;
            None unless asked for.
        facts: JSON-able: seed, phase, how the body was laid, what the lesions were taken for.
    """

    ct: Volume
    organs: Volume | None
    facts: dict[str, Any]


def paint_around(
    labels: Volume, seed: int, *, phase: str | None = None, appearance: str = "usual", organs: bool = False
) -> PaintedCase:
    """Paint a body around labelled kidneys.

    Args:
        labels: a KiTS label map (1 kidney, 2 tumour, 3 cyst), any orientation.
        seed: of all that the labels leave open; the same seed gives the same voxels.
        phase: of contrast; drawn if None (without contrast medium in one of fifty).
        appearance: "usual" or "random", as ``make_case`` has it.
        organs: tell too where liver and spleen were painted.

    Raises:
        LabelError: unknown labels, or none at all.
        UsageError: an unknown phase or appearance.
    """
    where = labels.source or "the label map"
    array = SCHEMES["kits"].check(labels.array, where)
    turned = labels.with_array(array).oriented("LPS")
    sx, sy, sz = turned.spacing_mm
    fit = fit_body(turned.array, (sx, sy, sz), stream(seed, 0))
    body = stream(seed, 1)
    viscera = draw_viscera(body, fit.torso)
    contrast = draw_contrast(stream(seed, 2), phase, 0.02, appearance=appearance)
    patient = Patient(fit.torso, viscera, (), (), contrast)
    kidneys = tuple(kidney_at(body, side, centre) for side, centre in sorted(fit.centres.items()))
    seen = survey(turned.array.transpose(2, 1, 0), (sz, sy, sx), stream(seed, 6))
    scanner = draw_scanner(stream(seed, 3), wide=appearance == "random")
    ct = np.empty(turned.shape[::-1], np.int16)
    part = np.empty(ct.shape, np.uint8) if organs else None
    planes = _painted(patient, kidneys, fit, seen, seed, part)
    for k, plane in enumerate(acquire(planes, (sx, sy, sz), scanner, stream(seed, 4))):
        ct[k] = plane
    found = None
    if part is not None:
        found = _placed(
            np.where(turned.array > 0, turned.array, _ORGANS[part.transpose(2, 1, 0)]), turned, labels, seed
        )
    return PaintedCase(_placed(ct.transpose(2, 1, 0), turned, labels, seed), found, _facts(fit, seen, patient, seed))


def _placed(array: np.ndarray, turned: Volume, labels: Volume, seed: int) -> Volume:
    """An array that lies as ``turned`` does, on the label map's own grid and in its axis order."""
    image = turned.with_array(array).oriented(labels.codes)
    assert image.shape == labels.shape, (image.shape, labels.shape)
    return Volume.on(
        labels.grid, image.array, f"painted around {labels.source or 'the label map'}", {"phantom_seed": seed}
    )


def _painted(
    patient: Patient, kidneys: tuple[Kidney, ...], fit: Fit, seen: Surroundings, seed: int, part: np.ndarray | None
) -> Iterator[np.ndarray]:
    """Painted HU slice by slice, from the feet up; fills ``part`` (Z, Y, X) with part numbers on the way."""
    hu = patient.contrast.hu
    for cut, slab in slabs(canvas(fit.grid, fit.torso.scale, fit.origin_mm), fit.torso, stream(seed, 5)):
        paint_patient(slab, patient)
        for kidney in kidneys:
            paint_renal_vessels(slab, kidney, hu)
        paint_labels(slab, cut, seen, hu)
        if part is not None:
            part[cut] = slab.part
        yield from slab.hu


def _facts(fit: Fit, seen: Surroundings, patient: Patient, seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "phase": patient.contrast.phase,
        "scale": fit.torso.scale,
        "bulk": round(fit.torso.bulk, 2),
        "sides": ["right" if side > 0 else "left" for side in sorted(fit.centres, reverse=True)],
        "lesions": [
            {"kind": lesion.kind, "subtype": lesion.subtype, "depth_mm": round(depth, 1)}
            for lesion, depth in seen.found
        ],
    }
