"""A DATA SET IN NUMBERS AND PICTURES: every case's grid, HU, labels and lesions, and a page to leaf through.

Comes in: a kind of data set and its path, perhaps an expression that chooses cases. Goes out: ``OUT/explore.csv`` (a
row a case), ``lesions.csv`` (a row a lesion), ``explore.json``, ``explore.html``. What was read is remembered in
``OUT/explored.jsonl``: a second call is quick, a run that was killed goes on. Cases that cannot be read are listed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hilum import __version__
from hilum.files import plain, write_json, write_text
from hilum.labels import LabelScheme
from hilum.pages.exploring import explore_page
from hilum.progress import SILENT, Progress
from hilum.survey import describing
from hilum.survey.describing import Asked, describe_case, table_facts
from hilum.survey.looking import look_at
from hilum.survey.selecting import checked_where, chosen_of
from hilum.survey.verify import beside, cases_of

FORMAT = 1
MEMORY = "explored.jsonl"
SHARES = (5, 50, 95)
_TOLD = ("slices", "rows", "columns", "hu_min", "hu_p50", "hu_max")
# cases up to which a strip has so many tiles of so many pixels: pages stay below some 25 MB
_STRIPS = ((40, 32, 256), (120, 24, 192), (400, 16, 128), (1200, 10, 96))


def explore(
    name: str,
    path: Path,
    out: Path,
    *,
    where: str = "",
    scheme: LabelScheme | None = None,
    labels_only: bool = False,
    slices: int | None = None,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Describe a data set.

    Args:
        name, path: as for ``datasets.open_dataset``; a folder of scans or of label maps will do.
        out: where tables and page go; not inside the data set.
        where: which cases to show (``survey.where``).
        scheme: what the labels mean, where the data do not say.
        labels_only: label maps were handed on alone: ask for no image.
        slices: a case in the page's browser; None: by the number of cases; 0: no pictures.
        workers: processes.
        progress: counts cases.

    Returns:
        What ``explore.json`` holds.

    Raises:
        DatasetError: no such data set there.
        UsageError: ``out`` lies in the data set, or an expression that cannot be asked.
    """
    beside(out, path)
    dataset = cases_of(name, path, labels_only)
    scheme = scheme or dataset.scheme
    asked = checked_where(where, dataset.cases, scheme, labels_only)[0] if where else None
    tiles, side = strip_size(len(dataset.cases), slices)
    orders = [Asked(case, scheme, (), labels_only, True, tiles, side) for case in dataset.cases]
    what = ["explore", describing.FORMAT, tiles, side]
    records = look_at(orders, out / MEMORY, workers, progress, f"Exploring {name}", describe_case, what)
    for record in records:  # the set's own table may have changed since
        record["facts"] |= table_facts(dataset.case(record["case"]))
    good = [record for record in records if not record["failed"]]
    chosen = chosen_of(asked, records) if asked is not None else None
    shown = [r for r in good if chosen is None or r["case"] in set(chosen.cases)]
    report: dict[str, Any] = {
        "format": FORMAT,
        "hilum": __version__,
        "dataset": name,
        "path": str(path),
        "labels_only": labels_only,
        "where": where,
        "scheme": scheme.to_json() if scheme is not None else None,
        "summary": {
            "cases": len(records),
            "shown": len(shown),
            "not_chosen": len(chosen.others) if chosen is not None else 0,
            "not_known": list(chosen.unknown) if chosen is not None else [],
            "failed": {r["case"]: r["failed"] for r in records if r["failed"]},
        },
        "facts": spreads([record["facts"] for record in shown]),
        "cases": [{key: record[key] for key in ("case", "files", "facts", "lesions")} for record in shown],
    }
    report = plain(report)
    write_text(out / "explore.csv", _case_table(shown))
    write_text(out / "lesions.csv", _lesion_table(shown))
    write_json(out / "explore.json", report)
    explore_page(report, [record["strip"] for record in shown], scheme, out / "explore.html")
    return report


def strip_size(cases: int, slices: int | None) -> tuple[int, int]:
    """Tiles of a strip and their side in pixels: the more cases, the fewer and smaller."""
    tiles, side = next(((tiles, side) for most, tiles, side in _STRIPS if cases <= most), (6, 96))
    return (tiles if slices is None else max(0, slices)), side


def spreads(facts: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """For each fact that is a number: how many cases have it, smallest, 5th, 50th, 95th percentile, largest."""
    names = dict.fromkeys(name for table in facts for name in table)
    found: dict[str, dict[str, float]] = {}
    for name in names:
        values = [table[name] for table in facts if name in table]
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if numbers and len(numbers) == len(values):
            low, middle, high = (float(p) for p in np.percentile(numbers, SHARES))
            ends = {"n": len(numbers), "min": min(numbers), "max": max(numbers)}
            found[name] = {**ends, "p5": low, "p50": middle, "p95": high}
    return found


def as_text(report: Mapping[str, Any]) -> str:
    """What the terminal says."""
    total = report["summary"]
    lines = [f"{report['dataset']} at {report['path']}: {total['shown']} of {total['cases']} cases"]
    if report["where"]:
        lines[0] += f" where {report['where']}"
    for name, row in report["facts"].items():
        if name in _TOLD or name.endswith(("_ml", "_count", "_mm")):
            lines.append(f"  {name:28} 5 % {row['p5']:10.4g}   median {row['p50']:10.4g}   95 % {row['p95']:10.4g}")
    if total["not_known"]:
        lines.append(f"not known whether: {', '.join(total['not_known'])}")
    lines += [f"failed: {case}: {why}" for case, why in total["failed"].items()]
    return "\n".join(lines)


def _case_table(records: Sequence[Mapping[str, Any]]) -> str:
    names = dict.fromkeys(["case", "patient", *(name for record in records for name in record["facts"])])
    rows = [
        [record["facts"].get(name, "") for name in names]
        + [record["files"][file] or "" for file in ("image", "labels")]
        for record in records
    ]
    return _csv([*names, "image", "labels"], rows)


def _lesion_table(records: Sequence[Mapping[str, Any]]) -> str:
    rows = [[r["case"], item["label"], item["ml"], item["diameter_mm"]] for r in records for item in r["lesions"]]
    return _csv(["case", "label", "ml", "ball_diameter_mm"], rows)


def _csv(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()
