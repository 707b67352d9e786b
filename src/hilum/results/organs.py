"""The entry of each organ: volumes, axes, surface, densities, burden, shares of a pair.

Comes in: the ``Part`` of each organ and side, and the lesions' entries. Goes out: a list of plain tables and the split
function estimate. It draws nothing.

A volume holds the organ's lesions; ``parenchyma_ml`` is the organ without them. Length, width and thickness are those
of the parenchyma along its own principal axes, so that a tumour does not lengthen the organ that it grows on; surface
and sphericity are those of the whole. ``tumour_burden_percent`` is tumour over whole organ, cysts not counted.

Split function. The share of each side in the parenchyma of both is an *estimate* of differential function: it assumes
that every mL works alike. Summerlin et al. (AJR 191, 2008, 1552-1558) compared it with gamma camera renography; after
obstruction or stenosis it does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hilum.results.density import enhancement, hu_statistics
from hilum.results.inside import Inside, Part
from hilum.results.kidney import Kidney
from hilum.results.shape import moments, own_axes, sphericity


def organ_entry(
    inside: Inside, part: Part, kidney: Kidney | None, lesions: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """One organ, or one side of a pair.

    Args:
        inside: the label map.
        part: the organ's voxels.
        kidney: its frame if it is one.
        lesions: all lesions' entries, numbered.
    """
    mine = [x for x in lesions if x["organ"] == part.organ and x["side"] == part.side]
    voxel_ml = inside.voxel_ml
    volume_ml, parenchyma_ml = float(part.whole_DHW.sum() * voxel_ml), float(part.own_DHW.sum() * voxel_ml)
    kinds = inside.labels_DHW[part.box]
    by_kind = {
        f"{kind}_ml": sum(
            float(((kinds == value) & part.whole_DHW).sum() * voxel_ml) for value in inside.scheme.of(part.organ, kind)
        )
        for kind in ("tumour", "cyst")
    }
    hu, second = (None if x is None else x[part.box][part.own_DHW] for x in (inside.hu_DHW, inside.second_DHW))
    area_mm2 = part.surface.total_mm2
    return {
        "name": part.organ,
        "side": part.side,
        "volume_ml": volume_ml,
        "parenchyma_ml": parenchyma_ml,
        "lesions_ml": volume_ml - parenchyma_ml,
        **by_kind,
        "tumour_burden_percent": 100 * by_kind["tumour_ml"] / volume_ml,
        "lesion_ids": [x["id"] for x in mine],
        "cut_by_field_of_view": inside.at_edge(part.tight),
        "centroid_mm": part.grid.world(moments(part.whole_DHW)[0]),
        **_axes(part),
        "surface_cm2": area_mm2 / 100,
        "sphericity": sphericity(volume_ml * 1000, area_mm2),
        **hu_statistics(hu),
        "enhancement": enhancement(hu, second),
        "sinus": _sinus(kidney),
    }


def _axes(part: Part) -> dict[str, Any]:
    if not part.own_DHW.any():
        return {"length_mm": None, "width_mm": None, "thickness_mm": None, "length_points_mm": None}
    axes = own_axes(part.own_DHW, part.grid)
    length, width, thickness = (float(x) for x in axes.extents_mm)
    return {
        "length_mm": length,
        "width_mm": width,
        "thickness_mm": thickness,
        "length_points_mm": axes.length_points_mm,
    }


def _sinus(kidney: Kidney | None) -> dict[str, Any] | None:
    """The sinus of a kidney: what it was taken from, volume and centre; None if there is none."""
    if kidney is None or kidney.sinus is None:
        return None
    mask, grid = kidney.sinus.mask_DHW, kidney.part.grid
    return {
        "source": kidney.sinus.source,
        "volume_ml": float(mask.sum() * grid.voxel_volume_mm3 / 1000),
        "centroid_mm": grid.world(moments(mask)[0]),
    }


def split_function(organs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The split function estimate of the kidneys.

    Returns:
        ``right_percent`` and ``left_percent`` of the parenchyma, both null if ``not_computable`` says why; ``basis``.
    """
    kidneys = {x["side"]: x for x in organs if x["name"] == "kidney" and x["side"]}
    basis = "share of the parenchymal volume, an estimate"
    reason = None
    if len(kidneys) < 2:
        reason = "two kidneys are not labelled"
    elif any(x["parenchyma_ml"] == 0 for x in kidneys.values()):
        reason = "a kidney has no parenchyma labelled"
    elif any(x["cut_by_field_of_view"] for x in kidneys.values()):
        reason = "a kidney is cut by the field of view"
    if reason is not None:
        return {"right_percent": None, "left_percent": None, "basis": basis, "not_computable": f"because {reason}"}
    right, left = kidneys["right"]["parenchyma_ml"], kidneys["left"]["parenchyma_ml"]
    share = 100 * right / (right + left)
    return {"right_percent": share, "left_percent": 100 - share, "basis": basis, "not_computable": None}
