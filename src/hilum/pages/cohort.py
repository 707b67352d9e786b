"""The page and the table of many cases.

Comes in: the measurements of every case, by name, with ``thumbnail.jpg`` and ``report.html`` in a folder of that name
beside the page. Goes out: ``summary.html``, a sortable table with thumbnails, outliers first, and ``summary.csv``.

What comes first. Cases that the quality gate wants looked at come before the others; within both, the oddest first. How
odd a case is, is the largest distance of its organ volumes, lesion volume and number of lesions from the median of all
cases, in robust standard deviations (1.4826 times the median absolute deviation; Leys et al., J Exp Soc Psychol 49,
2013, 764-766). Below five cases nothing is odd.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from hilum.files import write_text
from hilum.pages import strings, units
from hilum.pages.writing import write_page
from hilum.results.summary import SUMMARY_FIELDS, summary_row, title

Tables = Mapping[str, Mapping[str, Any]]
FEWEST = 5  # cases, before one of them can be odd
FEW = 12  # rows, up to which nobody needs to search


def cohort_report(out_html: Path, tables: Tables, failed: Mapping[str, str] | None = None) -> Path:
    """Write the page of many cases.

    Args:
        out_html: where to write, in the folder that holds the cases' folders.
        tables: case -> its ``measurements.json``.
        failed: case -> why it could not be measured.

    Raises:
        OutputError: the page cannot be written.
    """
    odd = oddness(tables)
    columns = list(dict.fromkeys(title(organ) for table in tables.values() for organ in table["organs"]))
    rows = [_row(name, tables[name], odd[name], columns, Path(out_html).parent) for name in in_order(tables)]
    look = sum(row["look"] for row in rows)
    context = {
        "t": strings.TEXT,
        "kind": strings.TEXT["cohort"],
        "heading": Path(out_html).resolve().parent.name,
        "lead": strings.cohort_lead(len(rows), look, len(failed or {})),
        "header_facts": [strings.TEXT["sorted"]] if rows else [],
        "warnings": [],
        "columns": [f"{name[:1].upper()}{name[1:]}" for name in columns],
        "rows": rows,
        "look": look,
        "few": FEW,
        "failed": dict(failed or {}),
    }
    return write_page(out_html, "cohort.html", context)


def write_cohort_csv(path: Path, tables: Tables) -> None:
    """One row a case in the order of the page: ``look``, ``why``, ``oddness``, the summary's fields, organs in mL."""
    odd = oddness(tables)
    organs = dict.fromkeys(_column(organ) for table in tables.values() for organ in table["organs"])
    first = ("case", "look", "why", "oddness")
    fields = [*first, *(field for field in SUMMARY_FIELDS if field != "case"), *organs]
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, restval="", lineterminator="\n")
    writer.writeheader()
    for name in in_order(tables):
        table = tables[name]
        gate = table.get("quality") or {}
        said = {"look": int(bool(gate.get("look"))), "why": " ".join(gate.get("why", [])), "oddness": odd[name]}
        volumes = {_column(organ): organ["volume_ml"] for organ in table["organs"]}
        writer.writerow(summary_row(name, table) | said | volumes)
    write_text(path, text.getvalue())


def in_order(tables: Tables) -> list[str]:
    """Cases to look at first, the oddest at the top; else the order that was given."""
    odd = oddness(tables)
    return sorted(tables, key=lambda name: (not (tables[name].get("quality") or {}).get("look"), -odd[name]))


def oddness(tables: Tables) -> dict[str, float]:
    """How far each case lies from the others, in robust standard deviations; 0 among fewer than five."""
    facts = {name: _facts(table) for name, table in tables.items()}
    worst = dict.fromkeys(tables, 0.0)
    for key in {key for table in facts.values() for key in table}:
        values = {name: table[key] for name, table in facts.items() if key in table}
        if len(values) < FEWEST:
            continue
        numbers = np.array(list(values.values()))
        middle = float(np.median(numbers))
        spread = 1.4826 * float(np.median(np.abs(numbers - middle)))
        if spread <= 0:
            continue
        for name, value in values.items():
            worst[name] = max(worst[name], round(abs(value - middle) / spread, 2))
    return worst


def _facts(table: Mapping[str, Any]) -> dict[str, float]:
    """The numbers by which cases are compared; volumes by their logarithm."""
    facts = {title(organ): float(np.log(organ["volume_ml"])) for organ in table["organs"] if organ["volume_ml"] > 0}
    facts["number of organs"] = float(len(table["organs"]))
    facts["lesions"] = float(np.log1p(len(table["lesions"])))
    facts["lesion volume"] = float(np.log1p(sum(x["volume_ml"] for x in table["lesions"])))
    return facts


def _row(name: str, table: Mapping[str, Any], odd: float, columns: list[str], folder: Path) -> dict[str, Any]:
    gate = table.get("quality") or {}
    lesions = table["lesions"]
    largest = max(lesions, key=lambda x: x["long_axis_mm"], default=None)
    volumes = {title(organ): organ for organ in table["organs"]}
    tumour_ml = sum(x["volume_ml"] for x in lesions if x["kind"] == "tumour")
    return {
        "name": name,
        "link": f"{quote(name)}/report.html" if (folder / name / "report.html").is_file() else "",
        "picture": _thumbnail(folder / name / "thumbnail.jpg"),
        "alt": strings.summary(table),
        "look": bool(gate.get("look")),
        "why": list(gate.get("why", [])),
        "odd": odd,
        "tumours": sum(x["kind"] == "tumour" for x in lesions),
        "cysts": sum(x["kind"] == "cyst" for x in lesions),
        "largest": largest["long_axis_mm"] if largest else "",
        "largest_text": units.millimetres(largest["long_axis_mm"]) if largest else units.DASH,
        "tumour_ml": tumour_ml if tumour_ml else "",
        "tumour_text": units.millilitres(tumour_ml) if tumour_ml else units.DASH,
        "organs": [_organ_cell(volumes.get(column)) for column in columns],
    }


def _organ_cell(organ: Mapping[str, Any] | None) -> dict[str, Any]:
    if organ is None:
        return {"value": "", "text": units.DASH}
    least = "≥ " if organ["cut_by_field_of_view"] else ""
    return {"value": organ["volume_ml"], "text": f"{least}{organ['volume_ml']:.0f} mL"}


def _thumbnail(path: Path) -> str:
    """A data: URI, empty if the picture is not there."""
    try:
        return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
    except OSError:
        return ""


def _column(organ: Mapping[str, Any]) -> str:
    return title(organ).replace(" ", "_") + "_ml"
