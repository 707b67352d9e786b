"""What became of each lesion between two dates.

Comes in: label maps and measurements of an earlier and a later date of one patient, of one label scheme. Goes out: the
table ``followup`` of ``measurements.json``: matched lesions with their growth, new and vanished ones, RECIST 1.1 sums.

Matching. Organs are laid on each other (``registration``), and every earlier lesion moves with its organ. Two lesions
of one label and organ may be one if at least a fifth of the smaller lies in the other, or if their centres lie within
10 mm or half their mean diameter, whichever is more. Pairs are chosen so that overlap and nearness are best in all.

Growth. Per cent of the earlier volume and long axis. Doubling time = days x ln 2 / ln(V2 / V1) (Schwartz, Cancer 14,
1961, 1272-1294); none where nothing grew. ``beyond_grid_error`` says whether a change exceeds what the two voxel grids
alone explain at 95 % (``digitising``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from hilum.errors import InputError
from hilum.files import plain
from hilum.labels import LabelScheme
from hilum.results.digitising import smallest_change
from hilum.results.lesion_map import LesionMap, lesion_map
from hilum.results.recist import recist
from hilum.results.registration import STILL, Motion, Organ, register_organs
from hilum.volume import Volume

LEAST_OVERLAP = 0.2
LEAST_DICE = (
    0.8  # of organs after registration; six pairs of unlike patients gave 0.52 to 0.85, one patient 0.9 and more
)
NEAR_MM = 10.0
_MOST_POINTS = 20_000
_NEVER = 1e3


def follow_up(
    labels: Volume,
    table: Mapping[str, Any],
    previous: Volume,
    previous_table: Mapping[str, Any],
    scheme: LabelScheme,
    *,
    days: float | None = None,
) -> dict[str, Any]:
    """Compare two dates.

    Args:
        labels, table: the later label map and its measurements.
        previous, previous_table: the earlier ones.
        scheme: of both.
        days: between the two; without it there is no doubling time.

    Returns:
        ``days``, ``registration`` (one entry an organ), ``matched``, ``new_ids``, ``vanished``, ``organs``, ``recist``,
        ``warnings``.

    Raises:
        InputError: the previous measurements are of another label scheme.
    """
    if previous_table.get("scheme") != scheme.name:
        raise InputError(
            f"was measured with label scheme {previous_table.get('scheme')!r}",
            where=previous.source or "the previous case",
            wanted=f"scheme {scheme.name!r}, as now",
            fix="measure both dates with one scheme",
        )
    warnings: list[str] = []
    motions = register_organs(labels, previous, scheme, table["organs"], previous_table["organs"])
    for (name, side), motion in motions.items():
        if motion.dice is not None and motion.dice < LEAST_DICE:
            warnings.append(
                f"The {f'{side} {name}'.strip()} fits the previous one poorly (Dice {motion.dice:.2f}): is it the same "
                "patient?"
            )
    if not motions:
        warnings.append("No organ is seen at both dates: lesions were matched without registration.")
    pairs = _pairs(labels, table, previous, previous_table, scheme, motions)
    spacing = [_spl_spacing(x) for x in (previous, labels)]
    old, new = ({x["id"]: x for x in t["lesions"]} for t in (previous_table, table))
    matched = [
        _change(old[b], new[a], overlap, distance, spacing, days)
        for (a, b), (overlap, distance) in sorted(pairs.items())
    ]
    became: dict[int, int | None] = dict.fromkeys(old)
    became.update({b: a for a, b in pairs})
    fresh = [n for n in new if n not in {a for a, _ in pairs}]
    answer: dict[str, Any] = {
        "days": days,
        "registration": [_moved(key, motion) for key, motion in motions.items()],
        "matched": matched,
        "new_ids": fresh,
        "vanished": [
            {k: old[b][k] for k in ("id", "label", "kind", "organ", "side", "volume_ml", "long_axis_mm")}
            for b, a in became.items()
            if a is None
        ],
        "organs": _organs(table["organs"], previous_table["organs"]),
        "recist": recist(previous_table["lesions"], table["lesions"], became, fresh, spacing[0][0]),
        "warnings": warnings,
    }
    rounded: dict[str, Any] = plain(answer, decimals=4)
    return rounded


def doubling_days(before_ml: float, now_ml: float, days: float | None) -> float | None:
    """The volume doubling time in days; None without dates or growth."""
    if days is None or days <= 0 or before_ml <= 0 or now_ml <= before_ml:
        return None
    return days * math.log(2) / math.log(now_ml / before_ml)


def _pairs(
    labels: Volume,
    table: Mapping[str, Any],
    previous: Volume,
    previous_table: Mapping[str, Any],
    scheme: LabelScheme,
    motions: Mapping[Organ, Motion],
) -> dict[tuple[int, int], tuple[float, float]]:
    """(later number, earlier number) -> share of the smaller that overlaps, distance of the centres in mm."""
    now, before = table["lesions"], previous_table["lesions"]
    maps = lesion_map(labels, scheme, now), lesion_map(previous, scheme, before)
    if not now or not before or maps[0] is None or maps[1] is None:
        return {}
    overlap, distance = np.zeros((len(now), len(before))), np.full((len(now), len(before)), np.inf)
    cost = np.full_like(overlap, _NEVER)
    for b, earlier in enumerate(before):
        motion = motions.get((earlier["organ"], earlier["side"])) or next(iter(motions.values()), STILL)
        found = _found(maps[1], int(earlier["id"]), maps[0], motion)
        centre = motion(earlier["centroid_mm"])
        for a, later in enumerate(now):
            if later["label"] != earlier["label"] or later["organ"] != earlier["organ"]:
                continue
            common_ml = found.get(int(later["id"]), 0.0) * earlier["volume_ml"]
            overlap[a, b] = min(1.0, common_ml / min(earlier["volume_ml"], later["volume_ml"]))
            distance[a, b] = float(np.linalg.norm(centre - np.asarray(later["centroid_mm"])))
            size = (earlier["equivalent_sphere_mm"] + later["equivalent_sphere_mm"]) / 2
            if overlap[a, b] >= LEAST_OVERLAP or distance[a, b] <= max(NEAR_MM, size / 2):
                cost[a, b] = 1 - overlap[a, b] + min(1.0, distance[a, b] / 50)
    rows, columns = linear_sum_assignment(cost)
    return {
        (int(now[a]["id"]), int(before[b]["id"])): (float(overlap[a, b]), float(distance[a, b]))
        for a, b in zip(rows, columns, strict=True)
        if cost[a, b] < _NEVER
    }


def _found(before: LesionMap, number: int, now: LesionMap, motion: Motion) -> dict[int, float]:
    """Which share of an earlier lesion's voxels comes to lie in which later lesion."""
    points = np.argwhere(before.ids_DHW == number)
    if len(points) == 0:
        return {}
    points = points[:: max(1, len(points) // _MOST_POINTS)]
    index = np.round(now.grid.index(motion(before.grid.world(points)))).astype(int)
    inside = ((index >= 0) & (index < now.ids_DHW.shape)).all(axis=1)
    counts = np.bincount(now.ids_DHW[tuple(index[inside].T)])
    return {int(n): float(counts[n] / len(points)) for n in np.flatnonzero(counts) if n > 0}


def _change(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    overlap: float,
    distance_mm: float,
    spacing_mm: Sequence[Sequence[float]],
    days: float | None,
) -> dict[str, Any]:
    axis_limit, volume_limit = smallest_change(before, now, spacing_mm[0], spacing_mm[1])
    axis, volume = now["long_axis_mm"] - before["long_axis_mm"], now["volume_ml"] - before["volume_ml"]
    return {
        "id": now["id"],
        "previous_id": before["id"],
        "overlap": overlap,
        "distance_mm": distance_mm,
        "volume_before_ml": before["volume_ml"],
        "volume_change_ml": volume,
        "volume_change_percent": 100 * volume / before["volume_ml"],
        "volume_grid_error_ml": volume_limit,
        "volume_beyond_grid_error": abs(volume) > volume_limit,
        "doubling_days": doubling_days(before["volume_ml"], now["volume_ml"], days),
        "long_axis_before_mm": before["long_axis_mm"],
        "long_axis_change_mm": axis,
        "long_axis_change_percent": 100 * axis / before["long_axis_mm"],
        "long_axis_grid_error_mm": axis_limit,
        "long_axis_beyond_grid_error": abs(axis) > axis_limit,
    }


def _moved(key: Organ, motion: Motion) -> dict[str, Any]:
    return {
        "organ": key[0],
        "side": key[1],
        "moved_mm": motion.moved_mm,
        "turned_degrees": motion.degrees,
        "dice": motion.dice,
    }


def _organs(now: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Volumes of the organs that both dates show; none where one is cut by the field of view."""
    earlier = {(x["name"], x["side"]): x for x in before}
    lines = []
    for organ in now:
        other = earlier.get((organ["name"], organ["side"]))
        if other is None or organ["cut_by_field_of_view"] or other["cut_by_field_of_view"]:
            continue
        change = organ["parenchyma_ml"] - other["parenchyma_ml"]
        lines.append(
            {
                "name": organ["name"],
                "side": organ["side"],
                "parenchyma_before_ml": other["parenchyma_ml"],
                "parenchyma_change_ml": change,
                "parenchyma_change_percent": 100 * change / other["parenchyma_ml"] if other["parenchyma_ml"] else None,
            }
        )
    return lines


def _spl_spacing(volume: Volume) -> tuple[float, float, float]:
    return volume.oriented().spacing_mm
