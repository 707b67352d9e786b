"""From labels to the numbers of a report: organs, lesions, scores.

Comes in: a label map, its scheme and, if there are any, one or two scans. Goes out: one table of plain numbers
(``measurements.json``). It knows no network and draws nothing.

What is counted. Volumes are voxels times the voxel's volume (the determinant of the affine, so oblique and sheared
grids are right). Specks below ``SMALLEST_LESION_VOXELS`` count in the volumes, are not listed, and are told of in the
warnings. The keys of the table:

* ``format``, ``scheme``, ``grid``, ``smallest_lesion_voxels``, ``lesion_count``, ``warnings`` (sentences);
* ``volumes_ml`` by label name, ``volumes_by_side_ml`` for what comes in pairs;
* ``organs``: a list, one table for each organ and side that is there: see ``organs``;
* ``lesions``: a list, one table for each lesion: see ``lesions`` (size), ``diameters``, ``density`` (HU),
  ``surroundings`` (place), ``renal`` (scores, tumours of the kidney only, else null);
* ``split_function``: see ``organs.split_function``;
* ``definitions``: formula and source of each renal score, by its place in a lesion's table.

A quantity that cannot be had is null. Points are world mm (RAS+); slice indices count axial slices from the feet,
from 0. Percentages are 0 to 100.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hilum.errors import UsageError
from hilum.files import plain
from hilum.labels import LabelScheme
from hilum.results.inside import Inside, bounding_box, cut_out, find_sides, parts_of
from hilum.results.kidney import kidney_of
from hilum.results.lesions import SMALLEST_LESION_VOXELS, find_lesions, lesion_entries
from hilum.results.organs import organ_entry, split_function
from hilum.results.renal import DEFINITIONS, MARGIN_MM
from hilum.results.sides import SIDES
from hilum.results.summary import SUMMARY_FIELDS, summary_row, title, write_measurements, write_summary
from hilum.volume import INSIDE, Volume, require_same_grid

__all__ = [
    "SMALLEST_LESION_VOXELS",
    "SUMMARY_FIELDS",
    "bounding_box",
    "measure",
    "summary_row",
    "title",
    "write_measurements",
    "write_summary",
]

FORMAT = 2


def measure(
    labels: Volume,
    scheme: LabelScheme,
    scan: Volume | None = None,
    second: Volume | None = None,
    *,
    margin_mm: float = MARGIN_MM,
) -> dict[str, Any]:
    """All measurements of one label map, as JSON's own types.

    Args:
        labels: the label map, any axis order; checked against the scheme.
        scheme: what the labels mean.
        scan: HU on the same grid (its axes may be listed in another order); adds densities and finds the body's
            mid-plane.
        second: another phase on the same grid; adds enhancement. It needs ``scan``.
        margin_mm: of healthy tissue around a renal tumour, for the resected volume.

    Returns: the table whose keys the module's docstring lists.

    Raises:
        LabelError: a value the scheme does not know.
        GeometryError: a scan lies on another grid.
        UsageError: a second phase without a first, or a negative margin.
    """
    if second is not None and scan is None:
        raise UsageError("a second phase without a scan", wanted="both", fix="give the one phase as the scan")
    if not margin_mm >= 0:
        raise UsageError(f"a margin of {margin_mm} mm", wanted="0 mm or more")
    array = scheme.check(labels.array, labels.source)
    full = labels.grid.oriented(INSIDE)
    for volume in (scan, second):
        if volume is not None:
            require_same_grid(labels.oriented(), volume.oriented())
    scan, second = (None if volume is None else volume.oriented() for volume in (scan, second))
    inside = cut_out(labels.with_array(array), scheme, scan, second)
    warnings: list[str] = []
    volumes_ml = dict.fromkeys((label.name for label in scheme.labels), 0.0)
    organs: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    if inside is None:
        warnings.append("The label map is empty.")
    else:
        counts = np.bincount(inside.labels_DHW.ravel(), minlength=256)
        volumes_ml = {label.name: float(counts[label.value] * inside.voxel_ml) for label in scheme.labels}
        warnings += find_sides(inside, scan)
        organs, entries, specks = _organs_and_lesions(inside, margin_mm)
        warnings += _warnings(organs, entries, specks)
    result = {
        "format": FORMAT,
        "scheme": scheme.name,
        "grid": {"shape": full.shape, "spacing_mm": full.spacing_mm, "axes": full.codes},
        "smallest_lesion_voxels": SMALLEST_LESION_VOXELS,
        "organs": organs,
        "lesions": entries,
        "lesion_count": len(entries),
        "volumes_ml": volumes_ml,
        "volumes_by_side_ml": {} if inside is None else _volumes_by_side(inside),
        "split_function": split_function(organs) if "kidney" in scheme.organs else None,
        "definitions": DEFINITIONS if any(x["renal"] for x in entries) else {},
        "warnings": warnings,
    }
    table: dict[str, Any] = plain(result, decimals=4)  # a tenth of a micrometre and of a microlitre
    return table


def _organs_and_lesions(
    inside: Inside, margin_mm: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, int]]:
    """The tables of organs and lesions, and the specks that are no lesions."""
    lesions, specks = find_lesions(inside)
    parts = {(part.organ, part.side): part for part in parts_of(inside)}
    kidneys = {key: kidney_of(inside, part) for key, part in parts.items() if part.organ == "kidney"}
    entries = lesion_entries(inside, lesions, parts, kidneys, margin_mm)
    organs = [organ_entry(inside, part, kidneys.get(key), entries) for key, part in parts.items()]
    return organs, entries, specks


def _volumes_by_side(inside: Inside) -> dict[str, dict[str, float]]:
    """For every label of what comes in pairs: mL on the right and on the left."""
    table: dict[str, dict[str, float]] = {}
    for organ, side_DHW in inside.side_DHW.items():
        codes = inside.labels_DHW.astype(np.uint16) | side_DHW.astype(np.uint16) << 8
        counts = np.bincount(codes.ravel(), minlength=768)
        for value in inside.scheme.of(organ):
            by_side = {SIDES[code]: float(counts[value + 256 * code] * inside.voxel_ml) for code in (1, 2)}
            table[inside.scheme.label(value).name] = by_side
    return table


def _warnings(
    organs: Sequence[Mapping[str, Any]], lesions: Sequence[Mapping[str, Any]], specks: Mapping[str, int]
) -> list[str]:
    """What a reader must know before trusting a number."""
    said = []
    for organ in organs:
        name = title(organ)
        if organ["cut_by_field_of_view"]:
            said.append(f"The {name} reaches the edge of the scan: its volume is at least {organ['volume_ml']:.0f} mL.")
        if organ["parenchyma_ml"] == 0:
            said.append(f"Lesions were found on the {name}, but no {organ['name']} itself.")
    for lesion in lesions:
        if lesion["attached"] is False:
            said.append(f"Lesion {lesion['id']} ({lesion['label']}) does not touch the {organ_of(lesion)}.")
    for label, count in specks.items():
        what = f"{count} speck{'s' if count > 1 else ''}"
        said.append(f"{what} of {label} below {SMALLEST_LESION_VOXELS} voxels not counted as lesions.")
    return said


def organ_of(lesion: Mapping[str, Any]) -> str:
    """``"left kidney"`` of a lesion's table."""
    return f"{lesion['side']} {lesion['organ']}".strip()
