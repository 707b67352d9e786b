"""ONE CASE IN NUMBERS: its grid, its HU, what is labelled and how large, as a flat table that people can select by.

Comes in: a case, its scheme, which parts are asked for. Goes out: a plain record: ``facts`` (name -> number or text),
``lesions`` one by one, and a strip of slices for the page. A damaged file becomes ``failed``, a sentence. Slices, rows
and columns are the patient's (feet to head, front to back, right to left), whatever the order of the file's axes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hilum.components import box_of, component_sizes, components_of, nonzero_box
from hilum.datasets import CaseRef
from hilum.errors import DatasetError, HilumError
from hilum.labels import LabelScheme, count_labels
from hilum.pages.strips import strip_of
from hilum.results.lesions import SMALLEST_LESION_VOXELS
from hilum.scans import read_labels, read_scan, read_volume
from hilum.scans.peek import peek
from hilum.survey.inspecting import Order, as_labels
from hilum.volume import Grid, Volume, require_same_grid

FORMAT = 1
PERCENTILES = (0.5, 1, 5, 25, 50, 75, 95, 99, 99.5)
_OFFSET = 32768
_CHUNK = 1 << 20

TABLE = ("case", "patient")
GRID = (
    *("slices", "rows", "columns", "slice_mm", "row_mm", "column_mm", "depth_mm", "height_mm", "width_mm"),
    *("axes", "oblique_degrees"),
)
HU = ("hu_min", *(f"hu_p{str(p).replace('.', '_')}" for p in PERCENTILES), "hu_max", "hu_mean", "hu_sd")
LABELLED_HU = tuple(f"labelled_{name}" for name in HU)
LABELLED = ("labelled_ml", "labelled_slices", "lesion_count", "lesion_ml", "lesion_largest_ml")


@dataclass(frozen=True)
class Asked(Order):
    """What one process is asked to describe.

    Attributes:
        voxels: read voxels; else the header alone.
        tiles: slices in the strip for the page; 0 means none.
        side: of a tile in pixels.
    """

    voxels: bool = True
    tiles: int = 0
    side: int = 160


def keys_of(scheme: LabelScheme) -> dict[int, str]:
    """Label value -> the beginning of its facts' names: ``{1: "kidney", 2: "tumour"}``; a name used twice is numbered.

    >>> from hilum.labels import SCHEMES
    >>> keys_of(SCHEMES["abdomen"])[1]
    'right_kidney'
    """
    names = {label.value: "".join(c if c.isalnum() else "_" for c in label.name.lower()) for label in scheme.labels}
    often = Counter(names.values())
    return {value: name if often[name] == 1 else f"{name}_{value}" for value, name in names.items()}


def fact_names(cases: Iterable[CaseRef], scheme: LabelScheme | None, labels_only: bool = False) -> dict[str, str]:
    """Every fact that may be asked for, with what it takes to know it: "table", "grid" or "voxels"."""
    known = dict.fromkeys(TABLE, "table") | dict.fromkeys(GRID, "grid") | dict.fromkeys(LABELLED, "voxels")
    if not labels_only:
        known |= dict.fromkeys((*HU, *LABELLED_HU), "voxels")
    for value, key in keys_of(scheme).items() if scheme is not None else []:
        parts = ("ml", "count", "largest_ml") if scheme is not None and scheme.label(value).is_lesion else ("ml",)
        known |= {f"{key}_{part}": "voxels" for part in parts}
    if scheme is None:
        known |= {f"label_{value}_ml": "voxels" for value in range(1, 10)}
    clinical = {name for case in cases for name in clinical_facts(case.facts)}
    return {**dict.fromkeys(sorted(clinical), "table"), **known}


def clinical_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The set's own table as facts: numbers, texts and yes or no; what lies deeper is called ``outer_inner``."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        key = "".join(c if c.isalnum() else "_" for c in str(name))
        if isinstance(value, Mapping):
            flat |= {f"{key}_{inner}": item for inner, item in clinical_facts(value).items()}
        elif isinstance(value, str | int | float | bool) and key.isidentifier():
            flat[key] = value
    return flat


def table_facts(case: CaseRef) -> dict[str, Any]:
    """What is known of a case without opening its files."""
    return {**clinical_facts(case.facts), "case": case.name, "patient": case.patient}


def describe_case(order: Asked) -> dict[str, Any]:
    """Read a case and put it into numbers; never raises for a file that is damaged, but says why in "failed"."""
    case = order.case
    record: dict[str, Any] = {
        "case": case.name,
        "files": {"image": None if order.labels_only else str(case.image), "labels": _text(case.labels)},
        "facts": table_facts(case),
        "lesions": [],
        "strip": None,
        "failed": None,
    }
    try:
        if order.voxels:
            _describe(order, record)
        else:
            record["facts"] |= grid_facts(_grid(order))
    except HilumError as error:
        record["failed"] = error.sentence()
    except MemoryError:
        record["failed"] = "it does not fit into memory; fewer processes at a time (--workers 1) may do"
    return record


def _describe(order: Asked, record: dict[str, Any]) -> None:
    case, facts = order.case, record["facts"]
    scan = None if order.labels_only else read_scan(case.image)
    labels = None if case.labels is None else read_any_labels(case, order.scheme)
    whole = scan if scan is not None else labels
    if whole is None:
        raise DatasetError("there is neither an image nor a label map", where=case.name)
    if scan is not None and labels is not None:
        scan, labels = scan.oriented(), labels.oriented()
        require_same_grid(scan, labels)
    facts |= grid_facts(whole.grid)
    if scan is not None:
        facts |= hu_facts(scan.array, "")
    if labels is not None:
        inside = labels.oriented()
        found, record["lesions"] = label_facts(inside, order.scheme)
        facts |= found
        box = nonzero_box(inside.array)
        if scan is not None and box is not None:
            facts |= hu_facts(scan.array[box][inside.array[box] > 0], "labelled_")
    if order.tiles:
        strip = strip_of(scan, labels, order.scheme, order.tiles, order.side)
        record["strip"] = strip


def read_any_labels(case: CaseRef, scheme: LabelScheme | None) -> Volume:
    """A case's label map, checked against its scheme where there is one.

    Raises:
        LabelError, ScanError, GeometryError: see ``scans.read_labels``.
    """
    assert case.labels is not None
    if scheme is not None:
        return read_labels(case.labels, scheme)
    volume = read_volume(case.labels)
    return volume.with_array(as_labels(volume))


def _grid(order: Asked) -> Grid:
    path = order.case.labels if order.labels_only else order.case.image
    if path is None:
        raise DatasetError("there is no file to look at", where=order.case.name)
    seen = peek(path)
    if seen is not None:
        return seen.grid
    if order.labels_only:
        return read_any_labels(order.case, order.scheme).grid
    return read_scan(path).grid


def grid_facts(grid: Grid) -> dict[str, Any]:
    """Counts, spacing and extent along the patient's axes."""
    inside = grid.oriented("SPL")
    spacing = [round(value, 5) for value in inside.spacing_mm]
    extent = [round(n * s, 2) for n, s in zip(inside.shape, inside.spacing_mm, strict=True)]
    values = (*inside.shape, *spacing, *extent, grid.codes, round(grid.obliqueness_degrees, 2))
    return dict(zip(GRID, values, strict=True))


def hu_facts(array: np.ndarray, prefix: str) -> dict[str, Any]:
    """Smallest, largest, mean, SD and percentiles of HU; a percentile is the smallest whole HU with that share at or
    below it. The counts are exact; fractions of HU are rounded for them.
    """
    if array.size == 0:
        return {}
    counts = np.zeros(2 * _OFFSET, np.int64)
    flat = array.ravel(order="K")
    for start in range(0, flat.size, _CHUNK):
        piece = flat[start : start + _CHUNK]
        whole = piece if piece.dtype == np.int16 else np.clip(np.rint(piece), -_OFFSET, _OFFSET - 1)
        counts += np.bincount(whole.astype(np.int32) + _OFFSET, minlength=2 * _OFFSET)
    levels = np.arange(2 * _OFFSET, dtype=np.float64) - _OFFSET
    mean = float(counts @ levels) / flat.size
    spread = math.sqrt(max(0.0, float(counts @ (levels - mean) ** 2) / flat.size))
    below = np.cumsum(counts)
    places = [int(np.searchsorted(below, math.ceil(p / 100 * flat.size))) - _OFFSET for p in PERCENTILES]
    low, high = float(array.min()), float(array.max())
    ends = [int(value) if value.is_integer() else value for value in (low, high)]
    values = (ends[0], *places, ends[1], round(mean, 2), round(spread, 2))
    return {f"{prefix}{name}": value for name, value in zip(HU, values, strict=True)}


def label_facts(inside: Volume, scheme: LabelScheme | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Volumes of labels and the lesions one by one (26 neighbours, at least ``SMALLEST_LESION_VOXELS``).

    Args:
        inside: a label map, uint8, in SPL order.
        scheme: what the labels mean; None gives volumes of bare values.

    Returns:
        The facts; and for each lesion its label, mL and the diameter in mm of a ball of that volume, largest first.
    """
    counts = count_labels(inside.array)
    ml = {value: float(counts[value]) * inside.voxel_ml for value in range(1, 256)}
    facts: dict[str, Any] = {
        "labelled_ml": round(sum(ml.values()), 4),
        "labelled_slices": int(np.count_nonzero(inside.array.any(axis=(1, 2)))),
    }
    if scheme is None:
        return facts | {f"label_{v}_ml": round(ml[v], 4) for v in ml if counts[v]}, []
    lesions: list[dict[str, Any]] = []
    for value, key in keys_of(scheme).items():
        facts[f"{key}_ml"] = round(ml[value], 4)
        if scheme.label(value).is_lesion:
            sizes = [voxels * inside.voxel_ml for voxels in _pieces(inside.array, value)]
            facts |= {f"{key}_count": len(sizes), f"{key}_largest_ml": round(max(sizes, default=0.0), 4)}
            lesions += [
                {"label": scheme.label(value).name, "ml": round(size, 4), "diameter_mm": round(ball_mm(size), 2)}
                for size in sizes
            ]
    lesions.sort(key=lambda lesion: -lesion["ml"])
    facts |= {
        "lesion_count": len(lesions),
        "lesion_ml": round(sum(ml[label.value] for label in scheme.labels if label.is_lesion), 4),
        "lesion_largest_ml": lesions[0]["ml"] if lesions else 0.0,
    }
    return facts, lesions


def ball_mm(ml: float) -> float:
    """Diameter in mm of a ball of so many mL: (6 V / pi) ** (1/3)."""
    return float((6000.0 * ml / math.pi) ** (1 / 3))


def _pieces(array: np.ndarray, value: int) -> list[int]:
    """Voxels of each component of a label that is large enough to be one."""
    box = box_of(array, [value])
    if box is None:
        return []
    found, count = components_of(np.ascontiguousarray(array[box] == value))
    return [int(n) for n in component_sizes(found, count)[1:] if n >= SMALLEST_LESION_VOXELS]


def _text(path: Any) -> str | None:
    return None if path is None else str(path)
