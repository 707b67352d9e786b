"""From measurements to rows: one case in one line of a CSV.

Comes in: what ``measure`` returned. Goes out: ``measurements.json`` and ``summary.csv``. It computes no measurement.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hilum.files import plain, write_json, write_text

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
