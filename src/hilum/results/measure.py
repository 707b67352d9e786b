"""From labels to the numbers of a report: volumes, lesions, diameters, densities.

Comes in: a label map, its scheme and, if there is one, the scan. Goes out: one table of plain numbers
(``measurements.json``) and rows for a CSV. It knows no network and draws nothing.

What is counted. Volumes are voxels times the voxel's volume (the determinant of the affine, so oblique and sheared
grids are right). An organ's volume holds its lesions; ``parenchyma_ml`` is the organ without them. A lesion is one
component (26 neighbours) of one lesion label of at least ``SMALLEST_LESION_VOXELS``; smaller specks count in the
volumes, are not listed, and are told of in the warnings. Lesions are numbered from 1 by organ (in the scheme's
order), side (right, left), and falling volume: the same map gets the same numbers everywhere. Diameters: see
``diameters``; sides: see ``sides``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cc3d
import numpy as np

from hilum.components import components_of
from hilum.files import plain, write_json, write_text
from hilum.labels import LabelScheme
from hilum.results.diameters import diameters
from hilum.results.sides import SIDES, body_mid_x_mm, is_two_sided, sides_of
from hilum.volume import INSIDE, Grid, Volume, require_same_grid

FORMAT = 1
SMALLEST_LESION_VOXELS = 3

SUMMARY_FIELDS = (
    "case",
    "lesions",
    "tumours",
    "cysts",
    "tumour_ml",
    "cyst_ml",
    "largest_lesion_mm",
    "largest_lesion_kind",
    "largest_lesion_organ",
    "largest_lesion_side",
    "organs",
    "warnings",
)


@dataclass(frozen=True)
class _Inside:
    """The part of a label map that holds labels, in SPL order, with all that the measurements need."""

    labels_DHW: np.ndarray
    grid: Grid
    full: Grid
    start: np.ndarray
    hu_DHW: np.ndarray | None
    scheme: LabelScheme
    side_DHW: dict[str, np.ndarray] = field(default_factory=dict)

    def side(self, organ: str) -> np.ndarray | None:
        return self.side_DHW.get(organ)


def measure(labels: Volume, scheme: LabelScheme, scan: Volume | None = None) -> dict[str, Any]:
    """All measurements of one label map, as JSON's own types.

    Args:
        labels: the label map, any axis order; checked against the scheme.
        scheme: what the labels mean.
        scan: HU on the same grid (its axes may be listed in another order); adds densities and finds the body's
        mid-plane.

    Returns: ``format``, ``scheme``, ``grid``, ``smallest_lesion_voxels``, ``organs`` (one entry for each organ and
        side that is there), ``lesions``, ``lesion_count``, ``volumes_ml`` by label name, ``volumes_by_side_ml`` for
        what comes in pairs, and ``warnings`` as sentences. Points are world mm (RAS+); slice indices count axial
        slices from the feet, from 0.

    Raises:
        LabelError: a value the scheme does not know.
        GeometryError: the scan lies on another grid.
    """
    array = scheme.check(labels.array, labels.source)
    full = labels.grid.oriented(INSIDE)
    if scan is not None:
        scan = scan.oriented()
        require_same_grid(labels.oriented(), scan)
    inside = _cut_out(labels.with_array(array), scheme, scan)
    warnings: list[str] = []
    volumes_ml = dict.fromkeys((label.name for label in scheme.labels), 0.0)
    organs: list[dict[str, Any]] = []
    lesions: list[dict[str, Any]] = []
    if inside is None:
        warnings.append("The label map is empty.")
    else:
        counts = np.bincount(inside.labels_DHW.ravel(), minlength=256)
        voxel_ml = full.voxel_volume_mm3 / 1000.0
        volumes_ml = {label.name: float(counts[label.value] * voxel_ml) for label in scheme.labels}
        warnings += _find_sides(inside, scan)
        lesions, specks = _lesions(inside)
        organs = _organs(inside, lesions)
        warnings += _warnings(organs, specks)
    result = {
        "format": FORMAT,
        "scheme": scheme.name,
        "grid": {"shape": full.shape, "spacing_mm": full.spacing_mm, "axes": full.codes},
        "smallest_lesion_voxels": SMALLEST_LESION_VOXELS,
        "organs": organs,
        "lesions": lesions,
        "lesion_count": len(lesions),
        "volumes_ml": volumes_ml,
        "volumes_by_side_ml": {} if inside is None else _volumes_by_side(inside),
        "warnings": warnings,
    }
    table: dict[str, Any] = _rounded(plain(result))
    return table


def write_measurements(path: str | Path, measurements: Mapping[str, Any]) -> None:
    """Write ``measurements.json`` whole or not at all."""
    write_json(path, plain(dict(measurements)))


def summary_row(case: str, measurements: Mapping[str, Any]) -> dict[str, Any]:
    """One case in one row: exactly the ``SUMMARY_FIELDS``."""
    lesions = measurements["lesions"]
    largest: Mapping[str, Any] = max(lesions, key=lambda lesion: lesion["long_axis_mm"], default={})
    kinds = ("tumour", "cyst")
    count = {kind: sum(lesion["kind"] == kind for lesion in lesions) for kind in kinds}
    volume = {kind: sum(lesion["volume_ml"] for lesion in lesions if lesion["kind"] == kind) for kind in kinds}
    organs = [f"{title(organ)} {organ['volume_ml']:.1f} mL" for organ in measurements["organs"]]
    row = (
        case,
        len(lesions),
        count["tumour"],
        count["cyst"],
        round(volume["tumour"], 3),
        round(volume["cyst"], 3),
        largest.get("long_axis_mm", ""),
        largest.get("kind", ""),
        largest.get("organ", ""),
        largest.get("side", ""),
        "; ".join(organs),
        " ".join(measurements["warnings"]),
    )
    return dict(zip(SUMMARY_FIELDS, row, strict=True))


def write_summary(path: str | Path, cases: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a CSV with one row a case: the ``SUMMARY_FIELDS``, then a column in mL for each organ and side there is."""
    columns = dict.fromkeys(_column(organ) for table in cases.values() for organ in table["organs"])
    text = io.StringIO()
    writer = csv.DictWriter(text, [*SUMMARY_FIELDS, *columns], restval="", lineterminator="\n")
    writer.writeheader()
    for case, table in cases.items():
        writer.writerow(summary_row(case, table) | {_column(organ): organ["volume_ml"] for organ in table["organs"]})
    write_text(path, text.getvalue())


def title(entry: Mapping[str, Any]) -> str:
    """``"right kidney"`` of an organ's entry, ``"liver"`` of one without sides."""
    return f"{entry['side']} {entry['name']}".strip()


def _column(organ: Mapping[str, Any]) -> str:
    return title(organ).replace(" ", "_") + "_ml"


def _cut_out(labels: Volume, scheme: LabelScheme, scan: Volume | None) -> _Inside | None:
    """The box around all labels and one voxel more (so that neighbours can be looked at), or None if there are none."""
    box = bounding_box(labels.array)
    if box is None:
        return None
    start = np.maximum([part.start - 1 for part in box], 0)
    stop = np.minimum([part.stop + 1 for part in box], labels.array.shape)
    cut = labels.cropped(start, stop).oriented()
    full = labels.grid.oriented(INSIDE)
    inside_start = np.round(full.index(cut.world([0, 0, 0]))).astype(int)
    hu = None
    if scan is not None:
        hu = scan.array[tuple(slice(a, a + n) for a, n in zip(inside_start, cut.shape, strict=True))]
    return _Inside(np.ascontiguousarray(cut.array), cut.grid, full, inside_start, hu, scheme)


def bounding_box(array: np.ndarray) -> tuple[slice, ...] | None:
    """The smallest box that holds all voxels that are not 0, or None if all are."""
    box: list[slice] = [slice(0, n) for n in array.shape]
    # the axis that is slowest in memory first: what it cuts away need not be read again
    for axis in sorted(range(array.ndim), key=lambda a: -abs(array.strides[a])):
        others = tuple(a for a in range(array.ndim) if a != axis)
        hit = np.flatnonzero(array[tuple(box)].any(axis=others))
        if len(hit) == 0:
            return None
        box[axis] = slice(int(hit[0]), int(hit[-1]) + 1)
    return tuple(box)


def _find_sides(inside: _Inside, scan: Volume | None) -> list[str]:
    """Fill the side maps of what comes in pairs; return warnings."""
    warnings: list[str] = []
    scheme = inside.scheme
    body_x_mm: float | None = None
    paired = [organ for organ in scheme.organs if is_two_sided(scheme, organ)]
    if paired and scan is not None:
        body_x_mm = body_mid_x_mm(scan, (int(inside.start[0]), int(inside.start[0]) + inside.grid.shape[0]))
    centre_x_mm = float(inside.full.world((np.array(inside.full.shape) - 1) / 2)[0])
    for organ in paired:
        inside.side_DHW[organ], said = sides_of(
            inside.labels_DHW, inside.grid, scheme, organ, body_x_mm=body_x_mm, centre_x_mm=centre_x_mm
        )
        warnings += said
    return warnings


def _lesions(inside: _Inside) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Every lesion's entry, numbered; and how many specks of each label were too small to list."""
    scheme = inside.scheme
    values = [label.value for label in scheme.labels if label.is_lesion]
    if not values:
        return [], {}
    keep = np.zeros(256, np.uint8)
    keep[values] = values
    components, _ = components_of(keep[inside.labels_DHW])
    facts = cc3d.statistics(components)
    found: list[dict[str, Any]] = []
    specks: dict[str, int] = {}
    for number, (voxels, box) in enumerate(zip(facts["voxel_counts"], facts["bounding_boxes"], strict=True)):
        if number == 0 or voxels == 0:
            continue
        mask = components[box] == number
        label = scheme.label(int(inside.labels_DHW[box][mask][0]))
        if voxels < SMALLEST_LESION_VOXELS:
            specks[label.name] = specks.get(label.name, 0) + 1
            continue
        found.append(_lesion(inside, label.value, box, mask))
    place = {organ: n for n, organ in enumerate(scheme.organs)}
    found.sort(
        key=lambda x: (
            place.get(x["organ"], len(place)),
            ("right", "left", "").index(x["side"]),
            -x["volume_ml"],
            [-c for c in x["centroid_mm"]],
        )
    )
    return [{"id": n, **entry} for n, entry in enumerate(found, start=1)], specks


def _lesion(inside: _Inside, value: int, box: tuple[slice, ...], mask: np.ndarray) -> dict[str, Any]:
    """One lesion's entry, without its number."""
    label = inside.scheme.label(value)
    start = np.array([part.start for part in box])
    size = diameters(mask, inside.grid.cropped(start, [part.stop for part in box]))
    volume_ml = float(mask.sum() * inside.grid.voxel_volume_mm3 / 1000.0)
    side = label.side
    map_DHW = inside.side(label.organ)
    if not side and map_DHW is not None:
        side = SIDES[int(np.bincount(map_DHW[box][mask], minlength=3).argmax())]  # type: ignore[assignment]
    hu = None if inside.hu_DHW is None else inside.hu_DHW[box][mask]
    return {
        "label": label.name,
        "value": value,
        "kind": label.kind,
        "organ": label.organ,
        "side": side,
        "volume_ml": volume_ml,
        "voxels": int(mask.sum()),
        "long_axis_mm": size.long_mm,
        "short_axis_mm": size.short_mm,
        "long_axis_points_mm": size.long_points_mm,
        "short_axis_points_mm": size.short_points_mm,
        "any_direction_mm": size.any_direction_mm,
        "equivalent_sphere_mm": float((6000.0 * volume_ml / np.pi) ** (1 / 3)),
        "slice_index": int(inside.start[0] + start[0] + size.slice_index),
        "centroid_mm": inside.grid.world(np.argwhere(mask).mean(axis=0) + start),
        "cut_by_field_of_view": _at_edge(inside, mask, start),
        **_density(hu),
    }


def _organs(inside: _Inside, lesions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each organ, and side of it, that has voxels."""
    scheme, entries = inside.scheme, []
    for organ in scheme.organs:
        own = scheme.of(organ, "organ")
        if not own:
            continue
        map_DHW = inside.side(organ)
        whole = np.isin(inside.labels_DHW, scheme.of(organ))
        for code in (0,) if map_DHW is None else (1, 2):
            mask = whole if map_DHW is None else whole & (map_DHW == code)
            box = bounding_box(mask)
            if box is None:
                continue
            mask = mask[box]
            parenchyma = mask & np.isin(inside.labels_DHW[box], own)
            voxel_ml = inside.grid.voxel_volume_mm3 / 1000.0
            start = np.array([part.start for part in box])
            mine = [x for x in lesions if x["organ"] == organ and x["side"] == SIDES[code]]
            entries.append(
                {
                    "name": organ,
                    "side": SIDES[code],
                    "volume_ml": float(mask.sum() * voxel_ml),
                    "parenchyma_ml": float(parenchyma.sum() * voxel_ml),
                    "lesions_ml": float((mask.sum() - parenchyma.sum()) * voxel_ml),
                    "lesion_ids": [x["id"] for x in mine],
                    "cut_by_field_of_view": _at_edge(inside, mask, start),
                    "centroid_mm": inside.grid.world(np.argwhere(mask).mean(axis=0) + start),
                    **_density(None if inside.hu_DHW is None else inside.hu_DHW[box][parenchyma]),
                }
            )
    return entries


def _density(hu: np.ndarray | None) -> dict[str, float | None]:
    """Mean and standard deviation in HU, null without a scan."""
    if hu is None or hu.size == 0:
        return {"hu_mean": None, "hu_sd": None}
    return {"hu_mean": float(hu.mean(dtype=np.float64)), "hu_sd": float(hu.std(dtype=np.float64))}


def _at_edge(inside: _Inside, mask: np.ndarray, start: np.ndarray) -> bool:
    """Whether a mask reaches the first or last slice, or the border of the image: then there is at least that much."""
    box = bounding_box(mask)
    assert box is not None
    first = inside.start + start + [part.start for part in box]
    last = inside.start + start + [part.stop for part in box]
    return bool((first <= 0).any() or (last >= np.array(inside.full.shape)).any())


def _volumes_by_side(inside: _Inside) -> dict[str, dict[str, float]]:
    """For every label of what comes in pairs: mL on the right and on the left."""
    voxel_ml = inside.grid.voxel_volume_mm3 / 1000.0
    table: dict[str, dict[str, float]] = {}
    for organ, side_DHW in inside.side_DHW.items():
        codes = inside.labels_DHW.astype(np.uint16) | side_DHW.astype(np.uint16) << 8
        counts = np.bincount(codes.ravel(), minlength=768)
        for value in inside.scheme.of(organ):
            by_side = {SIDES[code]: float(counts[value + 256 * code] * voxel_ml) for code in (1, 2)}
            table[inside.scheme.label(value).name] = by_side
    return table


def _warnings(organs: Sequence[Mapping[str, Any]], specks: Mapping[str, int]) -> list[str]:
    """What a reader must know before trusting a number."""
    said = []
    for organ in organs:
        name = title(organ)
        if organ["cut_by_field_of_view"]:
            said.append(f"The {name} reaches the edge of the scan: its volume is at least {organ['volume_ml']:.0f} mL.")
        if organ["parenchyma_ml"] == 0:
            said.append(f"Lesions were found on the {name}, but no {organ['name']} itself.")
    for label, count in specks.items():
        what = f"{count} speck{'s' if count > 1 else ''}"
        said.append(f"{what} of {label} below {SMALLEST_LESION_VOXELS} voxels not counted as lesions.")
    return said


def _rounded(value: Any) -> Any:
    """Numbers to 4 decimals: a tenth of a micrometre and of a microlitre."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value
