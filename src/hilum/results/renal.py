"""Renal scores of one tumour: R.E.N.A.L. nephrometry, PADUA, C-index, resected volume, T stage by size.

Comes in: the tumour's measurements, its mask in its kidney's box, and the ``Kidney``. Goes out: tables of
``{"value": ..., "not_computable": null}``, where a value is null if and only if ``not_computable`` begins with
"because". ``DEFINITIONS`` gives each formula and its source. It reads no file and knows no HU.

What an automatic score cannot know. A mass that touches the main renal vessels gets the suffix "h" in R.E.N.A.L.: no
vessels are labelled, so it is never given. The collecting system's involvement (PADUA) needs a segmented collecting
system; PADUA's total is then a range. Of a kidney that the edge of the scan cuts, L, the pole, the C-index and the
share of parenchyma left are not computable. Without a sinus, N and PADUA's sinus are not computable. With an estimated
sinus, N is an interval: from the widest to the narrowest sinus that the shape of the kidney allows (see ``kidney``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hilum.results.distances import border_of, gap_mm, within
from hilum.results.kidney import Kidney, along_mm

MARGIN_MM = 5.0
ENDOPHYTIC_PERCENT = 5.0  # a digital outline is rough: below this nothing stands out
CROSSING = 0.05  # of the volume on the far side of a line, before the mass counts as crossing it

_CUT = "the edge of the scan cuts the kidney"
_KUTIKOV = "Kutikov and Uzzo, J Urol 182, 2009, 844-853"
_FICARRA = "Ficarra et al., Eur Urol 56, 2009, 786-793"
DEFINITIONS: dict[str, dict[str, str]] = {
    "nephrometry.r": {
        "formula": "long axis in the axial plane, cm: up to 4 is 1 point, above 4 and below 7 is 2, 7 and more is 3",
        "source": _KUTIKOV,
    },
    "nephrometry.e": {
        "formula": "share of the volume outside the kidney's outline without the mass (convex hull of the parenchyma "
        "but for rims thinner than 6 mm around lesions): 50 % and more is 1 point, less is "
        f"2, below {ENDOPHYTIC_PERCENT:.0f} % (entirely endophytic) is 3",
        "source": _KUTIKOV,
    },
    "nephrometry.n": {
        "formula": "gap between tumour and sinus, mm: 7 and more is 1 point, above 4 and below 7 is 2, up to 4 is 3; "
        "low and high from the widest and the narrowest sinus",
        "source": _KUTIKOV,
    },
    "nephrometry.a": {
        "formula": "a or p if two thirds of the volume lie before or behind the plane of long axis and hilum, else x",
        "source": _KUTIKOV,
    },
    "nephrometry.l": {
        "formula": "entirely beyond a polar line is 1 point, crossing one is 2, more than half between the lines, or "
        f"across the middle between them, is 3; crossing means at least {CROSSING:.0%} of the volume",
        "source": _KUTIKOV,
    },
    "nephrometry.total": {
        "formula": "R + E + N + L, 4 to 12, and the letter of A: 4 to 6 low, 7 to 9 moderate, 10 to 12 high complexity",
        "source": _KUTIKOV,
    },
    "padua": {
        "formula": "pole 1 or middle 2; exophytic 50 % and more 1, less 2, endophytic 3; lateral rim 1, medial 2; "
        "sinus free 1, touched 2; collecting system free 1, involved 2; long axis up to 4 cm 1, up to 7 cm 2, above 3; "
        "total 6 to 14",
        "source": _FICARRA,
    },
    "c_index": {
        "formula": "distance from the tumour's centre to the kidney's centre (centroid of the convex hull of the "
        "parenchyma without rims of lesions) over half the long axis; below 1 the tumour covers the centre",
        "source": "Simmons et al., J Urol 183, 2010, 1708-1713 (kidney's centre by the hull)",
    },
    "resection": {
        "formula": "tumour and the parenchyma within the margin of it; remaining: parenchyma left on this side, %",
        "source": "own definition; a margin of equal width, no bed lost to ischaemia or suture",
    },
    "t_stage_by_size": {
        "formula": "long axis, cm: up to 4 T1a, up to 7 T1b, up to 10 T2a, above T2b; size only, invasion unknown",
        "source": "AJCC Cancer Staging Manual, 8th edition, 2017, kidney",
    },
}


def known(value: Any, **more: Any) -> dict[str, Any]:
    """A score that could be computed."""
    return {"value": value, **more, "not_computable": None}


def unknown(reason: str, **more: Any) -> dict[str, Any]:
    """A score that could not, and why."""
    return {"value": None, **more, "not_computable": f"because {reason}"}


def t_stage_by_size(long_axis_mm: float) -> dict[str, Any]:
    """T1a, T1b, T2a or T2b, from the long axis alone."""
    stages = ((40.0, "T1a"), (70.0, "T1b"), (100.0, "T2a"))
    return known(next((stage for limit, stage in stages if long_axis_mm <= limit), "T2b"), size_only=True)


def renal_scores(
    entry: Mapping[str, Any], mask_DHW: np.ndarray, kidney: Kidney | None, margin_mm: float = MARGIN_MM
) -> dict[str, Any]:
    """All scores of one renal tumour.

    Args:
        entry: the tumour's measurements: ``long_axis_mm``, ``volume_ml``, ``centroid_mm``, ``exophytic_percent``,
            ``anterior_posterior``, ``pole``, ``attached``.
        mask_DHW: the tumour in the box of its kidney.
        kidney: its kidney; None if there is no parenchyma on that side.
        margin_mm: of healthy tissue, for the resected volume.

    Returns:
        ``nephrometry`` (r, e, n, a, l, total), ``padua`` (its seven parts and total), ``c_index``, ``resection``.
    """
    reason = None
    if kidney is None:
        reason = "no parenchyma is labelled on this side"
    elif not entry["attached"]:
        reason = "the tumour does not touch its kidney"
    if kidney is None or reason is not None:
        missing = unknown(reason or "")
        return {
            "nephrometry": {key: dict(missing) for key in ("r", "e", "n", "a", "l", "total")},
            "padua": {key: dict(missing) for key in (*_PADUA_PARTS, "total")},
            "c_index": dict(missing),
            "resection": dict(missing, margin_mm=margin_mm),
        }
    near = nearness(mask_DHW, kidney)
    return {
        "nephrometry": _nephrometry(entry, mask_DHW, kidney, near),
        "padua": _padua(entry, kidney, near),
        "c_index": _c_index(entry, kidney),
        "resection": _resection(mask_DHW, kidney, margin_mm),
    }


def nearness(mask_DHW: np.ndarray, kidney: Kidney) -> dict[str, Any]:
    """The gap to the sinus in mm: ``value``, ``low`` and ``high`` (null: no sinus surely there), and its ``basis``."""
    if kidney.sinus is None:
        return unknown(
            "no sinus is labelled and the outline shows no hilum to estimate it from", low=None, high=None, basis=None
        )
    sinus, grid = kidney.sinus, kidney.part.grid
    border = border_of(mask_DHW)
    value = gap_mm(border, border_of(sinus.mask_DHW), grid)
    if sinus.source == "segmented":
        return known(value, low=value, high=value, basis="segmented sinus")
    low, high = (gap_mm(border, border_of(mask), grid) for mask in (sinus.wide_DHW, sinus.narrow_DHW))
    return known(value, low=low, high=high, basis="estimated sinus")


def _steps(value: float, first: float, second: float) -> int:
    """1 up to the first limit, 3 from the second on, 2 between."""
    return 1 if value <= first else 3 if value >= second else 2


def _near_points(gap: float) -> int:
    return 1 if gap >= 7 else 3 if gap <= 4 else 2


def _exophytic_points(percent: float) -> int:
    return 1 if percent >= 50 else 3 if percent < ENDOPHYTIC_PERCENT else 2


def _nephrometry(
    entry: Mapping[str, Any], mask_DHW: np.ndarray, kidney: Kidney, near: Mapping[str, Any]
) -> dict[str, Any]:
    size_cm = entry["long_axis_mm"] / 10
    r = known(size_cm, points=_steps(size_cm, 4, 7))
    e = known(entry["exophytic_percent"], points=_exophytic_points(entry["exophytic_percent"]))
    letter = {"anterior": "a", "posterior": "p"}.get(entry["anterior_posterior"], "x")
    place = unknown(_CUT, points=None, basis=None)
    if not kidney.cut:
        where, points = _polar(mask_DHW, kidney)
        place = known(where, points=points, basis=kidney.polar_basis)
    n = dict(near, points=None, points_low=None, points_high=None)
    if near["value"] is not None:
        fewest = 1 if near["high"] is None else _near_points(near["high"])
        n |= {"points": _near_points(near["value"]), "points_low": fewest, "points_high": _near_points(near["low"])}
    parts = {"r": r, "e": e, "n": n, "a": known(letter), "l": place}
    low = r["points"] + e["points"] + (n["points_low"] or 1) + (place["points"] or 1)
    high = r["points"] + e["points"] + (n["points_high"] or 3) + (place["points"] or 3)
    missing = [key.upper() for key in "nl" if parts[key]["points"] is None]
    if missing:
        reason = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        return {**parts, "total": unknown(reason, low=low, high=high, text=None, complexity=None)}
    score = r["points"] + e["points"] + n["points"] + place["points"]
    complexity = "low" if score <= 6 else "moderate" if score <= 9 else "high"
    return {**parts, "total": known(score, low=low, high=high, text=f"{score}{letter}", complexity=complexity)}


def _polar(mask_DHW: np.ndarray, kidney: Kidney) -> tuple[str, int]:
    """Where the mass lies by the polar lines, and its points."""
    along = along_mm(mask_DHW, kidney.part.grid, kidney.up)
    low, high = kidney.polar_mm
    between = float(((along >= low) & (along <= high)).mean())
    above_middle = float((along > (low + high) / 2).mean())
    if between > 1 - CROSSING:
        return "between the polar lines", 3
    if CROSSING <= above_middle <= 1 - CROSSING:
        return "across the middle", 3
    if between > 0.5:
        return "mostly across a polar line", 3
    return ("crosses a polar line", 2) if between >= CROSSING else ("beyond a polar line", 1)


_PADUA_PARTS = ("longitudinal", "exophytic", "rim", "sinus", "collecting_system", "size", "face")


def _padua(entry: Mapping[str, Any], kidney: Kidney, near: Mapping[str, Any]) -> dict[str, Any]:
    size_cm = entry["long_axis_mm"] / 10
    medial = float((np.array(entry["centroid_mm"]) - kidney.centre_mm) @ kidney.medial) > 0
    middle = entry["pole"] == "middle"
    pole = unknown(_CUT, points=None) if entry["pole"] is None else known(entry["pole"], points=2 if middle else 1)
    parts = {
        "longitudinal": pole,
        "exophytic": known(entry["exophytic_percent"], points=_exophytic_points(entry["exophytic_percent"])),
        "rim": known("medial" if medial else "lateral", points=2 if medial else 1),
        "sinus": unknown("there is no sinus", points=None),
        "collecting_system": unknown("the collecting system is not labelled", points=None),
        "size": known(size_cm, points=1 if size_cm <= 4 else 2 if size_cm <= 7 else 3),
        "face": known(entry["anterior_posterior"]),
    }
    if near["value"] is not None:
        touched = near["value"] <= 0
        parts["sinus"] = known("involved" if touched else "free", points=2 if touched else 1, basis=near["basis"])
    points = [part["points"] for part in parts.values() if "points" in part]
    told = sum(p for p in points if p is not None)
    gaps = sum(p is None for p in points)
    total = unknown("the collecting system is not labelled", low=told + gaps, high=told + 2 * gaps)
    return {**parts, "total": total}


def _c_index(entry: Mapping[str, Any], kidney: Kidney) -> dict[str, Any]:
    if kidney.cut:
        return unknown(_CUT, distance_mm=None)
    distance_mm = float(np.linalg.norm(np.array(entry["centroid_mm"]) - kidney.centre_mm))
    return known(distance_mm / (entry["long_axis_mm"] / 2), distance_mm=distance_mm)


def _resection(mask_DHW: np.ndarray, kidney: Kidney, margin_mm: float) -> dict[str, Any]:
    """Tumour and the healthy tissue around it that would go, in the box around it that the margin needs."""
    part = kidney.part
    reach = np.ceil((margin_mm + 1) / np.array(part.grid.spacing_mm)).astype(int) + 1
    found = np.argwhere(mask_DHW)
    start = np.maximum(found.min(axis=0) - reach, 0)
    stop = np.minimum(found.max(axis=0) + 1 + reach, mask_DHW.shape)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    voxel_ml = part.grid.voxel_volume_mm3 / 1000
    near = within(mask_DHW[box], part.grid.cropped(start, stop), margin_mm)
    healthy_ml = float((near & part.own_DHW[box]).sum() * voxel_ml)
    own_ml = float(part.own_DHW.sum() * voxel_ml)
    return known(
        len(found) * voxel_ml + healthy_ml,
        margin_mm=margin_mm,
        healthy_ml=healthy_ml,
        remaining_parenchyma_percent=None if kidney.cut else 100 * (1 - healthy_ml / own_ml),
    )
