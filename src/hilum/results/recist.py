"""RECIST 1.1 between two dates, as a suggestion.

Comes in: the measured tumours of the earlier date, what became of each, and what is new. Goes out: target lesions, sums
and a category with its reason. Source: Eisenhauer et al., Eur J Cancer 45 (2009) 228-247.

A target is a tumour of at least 10 mm in its longest axial diameter, and of at least twice the slice thickness where
slices are thicker than 5 mm; the five largest, no more than two in one organ (a pair of kidneys is one organ here).
Complete response: no tumour left. Partial response: the sum of diameters fell by 30 % or more. Progression: it rose by
20 % and by 5 mm or more, or a new tumour of at least 10 mm appeared. Else stable disease. RECIST compares with the
smallest sum since treatment began and wants progress of non-targets and confirmations judged: two dates cannot tell, so
this stays a suggestion. Cysts are never counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SMALLEST_MM = 10.0
MOST, MOST_IN_ORGAN = 5, 2
SOURCE = "RECIST 1.1: Eisenhauer et al., Eur J Cancer 45, 2009, 228-247"
CATEGORIES = {
    "CR": "complete response",
    "PR": "partial response",
    "SD": "stable disease",
    "PD": "progressive disease",
    "NE": "not evaluable",
}


def targets(lesions: Sequence[Mapping[str, Any]], slice_mm: float) -> list[Mapping[str, Any]]:
    """The target lesions of a date, largest first."""
    least = max(SMALLEST_MM, 2 * slice_mm if slice_mm > 5 else 0.0)
    chosen: list[Mapping[str, Any]] = []
    for lesion in sorted(lesions, key=lambda x: -x["long_axis_mm"]):
        crowd = sum(x["organ"] == lesion["organ"] for x in chosen)
        if lesion["kind"] == "tumour" and lesion["long_axis_mm"] >= least and crowd < MOST_IN_ORGAN:
            chosen.append(lesion)
    return chosen[:MOST]


def recist(
    before: Sequence[Mapping[str, Any]],
    now: Sequence[Mapping[str, Any]],
    became: Mapping[int, int | None],
    new: Sequence[int],
    slice_mm: float,
) -> dict[str, Any]:
    """Sums and category.

    Args:
        before: all lesions of the earlier date.
        now: all lesions of the later date.
        became: earlier number -> later number, None for one that vanished.
        new: later numbers that nothing earlier matches.
        slice_mm: slice spacing of the earlier scan.

    Returns:
        ``target_ids`` (earlier numbers), ``sum_before_mm``, ``sum_now_mm``, ``change_percent``, ``category``,
        ``meaning``, ``reason``, ``source``.
    """
    chosen = targets(before, slice_mm)
    later = {x["id"]: x for x in now}
    sizes = [(x["long_axis_mm"], _now_mm(later, became.get(x["id"]))) for x in chosen]
    first, second = sum(a for a, _ in sizes), sum(b for _, b in sizes)
    change = 100 * (second - first) / first if first else None
    fresh = [later[n] for n in new if later[n]["kind"] == "tumour"]
    unequivocal = [x["id"] for x in fresh if x["long_axis_mm"] >= SMALLEST_MM]
    left = any(x["kind"] == "tumour" for x in now)
    if unequivocal:
        category, reason = "PD", f"new tumour of at least {SMALLEST_MM:g} mm: lesion {', '.join(map(str, unequivocal))}"
    elif not chosen:
        category, reason = "NE", "no tumour of the earlier date is large enough to be a target"
    elif not left:
        category, reason = "CR", "no tumour is left"
    else:
        assert change is not None
        category = "PR" if change <= -30 else "PD" if change >= 20 and second - first >= 5 else "SD"
        reason = f"sum of diameters {first:.1f} mm, then {second:.1f} mm ({change:+.0f} %)"
    return {
        "target_ids": [x["id"] for x in chosen],
        "sum_before_mm": first,
        "sum_now_mm": second,
        "change_percent": change,
        "category": category,
        "meaning": CATEGORIES[category],
        "reason": reason,
        "source": SOURCE,
    }


def _now_mm(later: Mapping[int, Mapping[str, Any]], number: int | None) -> float:
    return 0.0 if number is None else float(later[number]["long_axis_mm"])
