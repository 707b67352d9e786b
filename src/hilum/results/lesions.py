"""The entry of each lesion: found, measured, numbered.

Comes in: the label map cut out, and its organs. Goes out: a list of plain tables and the lesions' masks. A lesion is
one component (26 neighbours) of one lesion label of at least ``SMALLEST_LESION_VOXELS``. Lesions are numbered from 1 by
organ (in the scheme's order), side (right, left), and falling volume: the same map gets the same numbers everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np

from hilum.components import Box, components_of
from hilum.results.density import composition, enhancement, hu_statistics, texture
from hilum.results.diameters import diameters
from hilum.results.inside import Inside, Part
from hilum.results.kidney import Kidney
from hilum.results.renal import renal_scores, t_stage_by_size
from hilum.results.shape import moments, sphericity, surface_of
from hilum.results.sides import SIDES
from hilum.results.surroundings import satellites, surroundings

SMALLEST_LESION_VOXELS = 3


@dataclass(frozen=True)
class Lesion:
    """One component of one lesion label.

    Attributes:
        value: its label.
        side: "right", "left" or "".
        box: where it lies in the ``Inside``; tight.
        mask_DHW: in that box.
        volume_ml: its volume.
        centroid_mm: (3,) world mm.
    """

    value: int
    side: str
    box: Box
    mask_DHW: np.ndarray
    volume_ml: float
    centroid_mm: np.ndarray


def find_lesions(inside: Inside) -> tuple[list[Lesion], dict[str, int]]:
    """Every lesion in the order of its number, and how many specks of each label were too small to list.

    A lesion that the cut of a horseshoe kidney divides goes as a whole to the side where most of it lies: the side map
    is changed.
    """
    scheme = inside.scheme
    values = [label.value for label in scheme.labels if label.is_lesion]
    if not values:
        return [], {}
    keep = np.zeros(256, np.uint8)
    keep[values] = values
    components, _ = components_of(keep[inside.labels_DHW])
    facts = cc3d.statistics(components)
    found: list[Lesion] = []
    specks: dict[str, int] = {}
    for number, (voxels, box) in enumerate(zip(facts["voxel_counts"], facts["bounding_boxes"], strict=True)):
        if number == 0 or voxels == 0:
            continue
        mask = components[box] == number
        label = scheme.label(int(inside.labels_DHW[box][mask][0]))
        if voxels < SMALLEST_LESION_VOXELS:
            specks[label.name] = specks.get(label.name, 0) + 1
            continue
        side: str = label.side
        map_DHW = inside.side_DHW.get(label.organ)
        if not side and map_DHW is not None:
            code = int(np.bincount(map_DHW[box][mask], minlength=3).argmax())
            map_DHW[box][mask] = code
            side = SIDES[code]
        centroid_mm = inside.grid.world(moments(mask)[0] + [part.start for part in box])
        found.append(Lesion(label.value, side, box, mask, float(voxels * inside.voxel_ml), centroid_mm))
    place = {organ: n for n, organ in enumerate(scheme.organs)}
    sides = ("right", "left", "")

    def rank(lesion: Lesion) -> tuple[int, int, float, list[float]]:
        organ = place.get(scheme.label(lesion.value).organ, len(place))
        return organ, sides.index(lesion.side), -lesion.volume_ml, [-c for c in np.round(lesion.centroid_mm, 6)]

    return sorted(found, key=rank), specks


def lesion_entries(
    inside: Inside,
    lesions: list[Lesion],
    parts: Mapping[tuple[str, str], Part],
    kidneys: Mapping[tuple[str, str], Kidney | None],
    margin_mm: float,
) -> list[dict[str, Any]]:
    """The table of every lesion.

    Args:
        inside: the label map.
        lesions: from ``find_lesions``.
        parts: (organ, side) -> the organ's voxels.
        kidneys: the same for kidneys.
        margin_mm: of healthy tissue, for the resected volume.
    """
    entries = [_entry(inside, n, lesion, parts, kidneys, margin_mm) for n, lesion in enumerate(lesions, start=1)]
    near = satellites(entries, [(lesion.box, lesion.mask_DHW) for lesion in lesions], inside.grid)
    return [entry | {"satellite_ids": ids} for entry, ids in zip(entries, near, strict=True)]


def _entry(
    inside: Inside,
    number: int,
    lesion: Lesion,
    parts: Mapping[tuple[str, str], Part],
    kidneys: Mapping[tuple[str, str], Kidney | None],
    margin_mm: float,
) -> dict[str, Any]:
    """One lesion's table but for its satellites."""
    label, box, mask = inside.scheme.label(lesion.value), lesion.box, lesion.mask_DHW
    start = np.array([part.start for part in box])
    grid = inside.grid.cropped(start, [part.stop for part in box])
    size = diameters(mask, grid)
    surface = surface_of(mask, grid)
    key = (label.organ, lesion.side)
    part, kidney = parts.get(key), kidneys.get(key)
    hu_DHW, second_DHW = (None if x is None else x[box] for x in (inside.hu_DHW, inside.second_DHW))
    hu, second = (None if x is None else x[mask] for x in (hu_DHW, second_DHW))
    look = texture(mask, grid, hu_DHW, second_DHW)
    entry = {
        "id": number,
        "label": label.name,
        "value": lesion.value,
        "kind": label.kind,
        "organ": label.organ,
        "side": lesion.side,
        "volume_ml": lesion.volume_ml,
        "long_axis_mm": size.long_mm,
        "short_axis_mm": size.short_mm,
        "long_axis_points_mm": size.long_points_mm,
        "short_axis_points_mm": size.short_points_mm,
        "any_direction_mm": size.any_direction_mm,
        "equivalent_sphere_mm": float((6000.0 * lesion.volume_ml / np.pi) ** (1 / 3)),
        "surface_cm2": surface.total_mm2 / 100,
        "sphericity": sphericity(lesion.volume_ml * 1000, surface.total_mm2),
        "slice_index": int(inside.start[0] + start[0] + size.slice_index),
        "centroid_mm": lesion.centroid_mm,
        "cut_by_field_of_view": inside.at_edge(box),
        **hu_statistics(hu),
        "enhancement": enhancement(hu, second),
        **look,
        "composition": composition(look["fluid_percent"], label.kind),
        **surroundings(mask, box, surface, part, kidney),
    }
    renal = label.organ == "kidney" and label.kind == "tumour"
    placed = mask if part is None else part.placed(box, mask)
    entry["renal"] = renal_scores(entry, placed, kidney, margin_mm) if renal else None
    entry["t_stage_by_size"] = t_stage_by_size(size.long_mm) if renal else None
    return entry
