"""One lesion in its organ: where it lies, how deep, how much of it stands out, what it touches.

Comes in: a lesion's mask with its box, the ``Part`` it belongs to and, for a kidney, the ``Kidney``. Goes out: plain
numbers; null where the organ is not there or does not have such a thing. It knows no HU.

Definitions.

* ``contact_area_cm2``: the area of the lesion's faces towards the organ's own tissue (see ``shape`` and ``contact``):
  the contact surface area of Leslie et al., BJU Int 116, 2015, 917-927, measured instead of calculated from two radii.
* ``free_surface_percent``: the share of the lesion's surface that looks out of the organ (not at tissue, another
  lesion or the sinus).
* ``distance_to_surface_mm``: the gap between the lesion and the nearest place outside the organ; 0 if it reaches the
  surface. The sinus of a kidney counts as inside.
* ``exophytic_percent`` (kidney): the share of the lesion's volume outside the convex outline of the parenchyma, rims of
  lesions left out (see ``contour``). It spans the bed of the lesion flat, so of a lesion in a convex border somewhat
  too much stands out.
* ``pole`` (kidney): "upper", "middle" or "lower": where most of the volume lies, told apart by the polar lines; null if
  the edge of the scan cuts the kidney.
* ``anterior_posterior`` (kidney): on which side of the plane through the kidney's centre that holds its long axis and
  its hilum; "both" if neither side holds two thirds of the volume.
* ``satellite_ids``: smaller lesions of the same label in the same organ and side within ``SATELLITE_MM`` of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hilum.components import Box, components_of
from hilum.results.contact import OUTSIDE, TISSUE, areas_mm2, faces_look
from hilum.results.distances import border_of, gap_mm, gap_to_tree_mm
from hilum.results.inside import Part
from hilum.results.kidney import Kidney, along_mm
from hilum.results.shape import Surface
from hilum.volume import Grid

SATELLITE_MM = 10.0
CLEARLY = 2 / 3

NOWHERE: dict[str, Any] = {
    "attached": None,
    "contact_area_cm2": None,
    "free_surface_percent": None,
    "distance_to_surface_mm": None,
    "exophytic_percent": None,
    "pole": None,
    "anterior_posterior": None,
}


def surroundings(
    mask_DHW: np.ndarray, box: Box, surface: Surface, part: Part | None, kidney: Kidney | None
) -> dict[str, Any]:
    """The keys of ``NOWHERE``, filled where the organ is there.

    Args:
        mask_DHW: the lesion in its tight box.
        box: where that lies in the ``Inside``.
        surface: of the lesion, indices in its box.
        part: the organ, or side of it, that the lesion belongs to.
        kidney: the frame, if that is a kidney.
    """
    if part is None or not part.own_DHW.any():
        return dict(NOWHERE)
    shift = np.array([its.start - mine.start for its, mine in zip(box, part.box, strict=True)])
    solid = part.whole_DHW if kidney is None else kidney.solid_DHW
    looks = faces_look(surface, shift, part.own_DHW, solid)
    outside = looks.at == OUTSIDE
    contact_mm2, free_mm2 = areas_mm2(surface, looks)
    found = {
        "attached": bool((looks.at == TISSUE).any()) or _hangs_together(part, shift, mask_DHW),
        "contact_area_cm2": contact_mm2 / 100,
        "free_surface_percent": 100 * free_mm2 / surface.total_mm2,
        "distance_to_surface_mm": _depth_mm(outside, surface, shift, part, kidney),
    }
    if kidney is None:
        return NOWHERE | found
    window = tuple(slice(a, a + n) for a, n in zip(shift, mask_DHW.shape, strict=True))
    grid = part.grid.cropped(shift, shift + mask_DHW.shape)
    inside_hull = int((part.hull_DHW[window] & mask_DHW).sum())
    shares = zone_shares(mask_DHW, grid, kidney)
    front = float((along_mm(mask_DHW, grid, kidney.front) > kidney.front @ kidney.centre_mm).mean())
    return found | {
        "exophytic_percent": 100 * (1 - inside_hull / int(mask_DHW.sum())),
        "pole": None if kidney.cut else ("lower", "middle", "upper")[int(np.argmax(shares))],
        "anterior_posterior": "anterior" if front >= CLEARLY else "posterior" if front <= 1 - CLEARLY else "both",
    }


def _depth_mm(
    outside: np.ndarray, surface: Surface, shift: np.ndarray, part: Part, kidney: Kidney | None
) -> float | None:
    """The gap to the nearest voxel outside; 0 if a face of the lesion looks there."""
    if outside.any():
        return 0.0
    index, tree = part.outside if kidney is None else kidney.outside
    if len(index) == 0:
        return None
    return gap_to_tree_mm(np.unique(surface.inner + shift, axis=0), tree, part.grid)


def _hangs_together(part: Part, shift: np.ndarray, mask_DHW: np.ndarray) -> bool:
    """Whether a lesion is connected to the organ's own tissue, if only across other lesions or corners."""
    pieces, _ = components_of(part.whole_DHW)
    window = tuple(slice(a, a + n) for a, n in zip(shift, mask_DHW.shape, strict=True))
    mine = pieces[window][mask_DHW][0]
    return bool((pieces[part.own_DHW] == mine).any())


def zone_shares(mask_DHW: np.ndarray, grid: Grid, kidney: Kidney) -> tuple[float, float, float]:
    """Shares of a lesion's volume below the lower polar line, between the two, and above the upper one."""
    along = along_mm(mask_DHW, grid, kidney.up)
    low, high = kidney.polar_mm
    below, above = float((along < low).mean()), float((along > high).mean())
    return below, 1 - below - above, above


def satellites(
    entries: Sequence[Mapping[str, Any]], masks: Sequence[tuple[Box, np.ndarray]], grid: Grid
) -> list[list[int]]:
    """For each lesion the ids of its satellites.

    Args:
        entries: with ``id``, ``label``, ``organ``, ``side``, ``volume_ml``.
        masks: each lesion's box in the ``Inside`` and its mask.
        grid: of the ``Inside``.
    """
    borders: dict[int, np.ndarray] = {}
    found: list[list[int]] = [[] for _ in entries]
    same = ("label", "organ", "side")
    for n, big in enumerate(entries):
        for m, small in enumerate(entries):
            if n == m or any(big[key] != small[key] for key in same) or small["volume_ml"] >= big["volume_ml"]:
                continue
            if _boxes_apart_mm(masks[n][0], masks[m][0], grid) > SATELLITE_MM:
                continue
            for k in (n, m):
                if k not in borders:
                    borders[k] = border_of(masks[k][1]) + [part.start for part in masks[k][0]]
            gap = gap_mm(borders[m], borders[n], grid)
            if gap is not None and gap <= SATELLITE_MM:
                found[n].append(small["id"])
    return found


def _boxes_apart_mm(one: Box, other: Box, grid: Grid) -> float:
    """A lower bound of the distance between two boxes: exact on orthogonal grids, 0 on sheared ones."""
    axes = grid.affine[:3, :3] / np.array(grid.spacing_mm)
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-4:
        return 0.0
    apart = [max(0, a.start - b.stop, b.start - a.stop) for a, b in zip(one, other, strict=True)]
    return float(np.linalg.norm(np.array(apart) * grid.spacing_mm))
