"""The page of ``hilum data explore``: what the cases hold, as histograms, small pictures and slices to leaf through.

Comes in: the report as ``survey.explore`` made it, and each case's strip of slices. Goes out: one HTML file that needs
no network: pictures lie inside, and are unpacked when they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hilum.labels import LabelScheme
from hilum.pages.charts import COLOURS, Chart, Ink, name_axes
from hilum.pages.strings import counted
from hilum.pages.units import DASH
from hilum.pages.writing import write_page

_HEADS = {
    "slices": "Slices",
    "rows": "Rows",
    "columns": "Columns",
    "slice_mm": "Slice spacing (mm)",
    "row_mm": "In-plane spacing (mm)",
    "depth_mm": "Length scanned (mm)",
    "width_mm": "Field of view (mm)",
    "hu_min": "Lowest HU",
    "hu_p5": "5th percentile of HU",
    "hu_p50": "Median HU",
    "hu_p95": "95th percentile of HU",
    "hu_max": "Highest HU",
    "labelled_hu_p1": "1st percentile of labelled HU",
    "labelled_hu_p50": "Median of labelled HU",
    "labelled_hu_p99": "99th percentile of labelled HU",
    "labelled_slices": "Slices with labels",
    "labelled_ml": "Labelled volume (mL)",
    "lesion_count": "Lesions",
    "lesion_largest_ml": "Largest lesion (mL)",
}
_CHARTS = ("slices", "slice_mm", "row_mm", "depth_mm", "hu_min", "hu_max", "labelled_hu_p50", "labelled_slices")
_TABLE = ("slices", "rows", "columns", "slice_mm", "row_mm", "hu_min", "hu_p50", "hu_max")
_BINS = 24
_LOG = 30.0  # a spread of this factor between the 5th and 95th percentile asks for an axis of powers


def explore_page(
    report: Mapping[str, Any], strips: Sequence[Mapping[str, Any] | None], scheme: LabelScheme | None, path: Path
) -> Path:
    """Write the page; its path.

    Args:
        report: what ``explore.json`` holds.
        strips: of each case shown, as ``pages.strips.strip_of`` made them, or None.
        scheme: what the labels mean, for the legend.
        path: of the page.
    """
    total, cases = report["summary"], report["cases"]
    lead = f"{counted(total['shown'], 'case').capitalize()}"
    if report["where"]:
        lead += f" of {total['cases']} where {report['where']}"
    lesions = sum(len(case["lesions"]) for case in cases)
    lead += f"; {counted(lesions, 'lesion')} in {_share(cases)}." if lesions else "."
    heads = _heads(report)
    shown = [(case, strip) for case, strip in zip(cases, strips, strict=True) if strip is not None]
    context = {
        "kind": "Data set, explored",
        "heading": report["dataset"],
        "lead": lead,
        "header_facts": [report["path"], *(["label maps alone"] if report["labels_only"] else [])],
        "warnings": [f"{case} could not be read: {why}" for case, why in total["failed"].items()]
        + [f"Left out, because a fact that decides is not known: {name}" for name in total["not_known"]],
        "scans": not report["labels_only"],
        "spread_heads": ["", "Cases", "Lowest", "5 %", "Median", "95 %", "Highest"],
        "spreads": [_spread(heads[name], row) for name, row in report["facts"].items() if name in heads],
        "charts": _charts(report, heads),
        "legend": [(label.colour, label.name) for label in scheme.labels] if scheme is not None else [],
        "thumbs": [
            {"place": i, "case": case["case"], "uri": strip["thumb"], "alt": _alt(case, strip)}
            for i, (case, strip) in enumerate(shown)
        ],
        "strips": [{"case": case["case"], "text": _line(case), **_without_thumb(strip)} for case, strip in shown],
        "case_heads": ["Case", *(heads[name] for name in _columns(report, heads))],
        "rows": [[case["case"], *(_cell(case, name) for name in _columns(report, heads))] for case in cases],
    }
    return write_page(path, "explore.html", context)


def _heads(report: Mapping[str, Any]) -> dict[str, str]:
    """Names of the facts that are shown: the fixed ones that differ or matter, and those of each label."""
    known = {name: head for name, head in _HEADS.items() if name in report["facts"]}
    for label in report["scheme"]["labels"] if report["scheme"] else []:
        for ending, word in (("ml", "(mL)"), ("count", "(pieces)"), ("largest_ml", "largest (mL)")):
            key = "".join(c if c.isalnum() else "_" for c in label["name"].lower())
            for name in (f"{key}_{ending}", f"{key}_{label['value']}_{ending}"):
                if name in report["facts"]:
                    known[name] = f"{label['name'].capitalize()} {word}"
    return known | {name: name.replace("_", " ") for name in report["facts"] if name.startswith("label_")}


def _columns(report: Mapping[str, Any], heads: Mapping[str, str]) -> list[str]:
    fixed = [name for name in _TABLE if name in heads]
    return fixed + [name for name in heads if name not in _HEADS]


def _spread(head: str, row: Mapping[str, float]) -> list[str]:
    return [head, str(row["n"]), *(_short(row[key]) for key in ("min", "p5", "p50", "p95", "max"))]


def _cell(case: Mapping[str, Any], name: str) -> tuple[str, str]:
    """What is shown, and what is sorted by."""
    value = case["facts"].get(name)
    return (DASH, "") if value is None else (_short(value), str(value))


def _short(value: float) -> str:
    """Three or four figures: 0.782, 34.1, 512, 1059."""
    if float(value).is_integer():
        text = f"{value:.0f}"
    else:
        text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
    return text.replace("-", "−")


def _share(cases: Sequence[Mapping[str, Any]]) -> str:
    return counted(sum(1 for case in cases if case["lesions"]), "case")


def _line(case: Mapping[str, Any]) -> str:
    facts = case["facts"]
    text = f"{facts['columns']}×{facts['rows']}×{facts['slices']} voxels of {facts['column_mm']:.3g}×"
    text += f"{facts['row_mm']:.3g}×{facts['slice_mm']:.3g} mm"
    if "hu_min" in facts:
        text += f"; {_short(facts['hu_min'])} to {_short(facts['hu_max'])} HU"
    for label in dict.fromkeys(lesion["label"] for lesion in case["lesions"]):
        sizes = [lesion["ml"] for lesion in case["lesions"] if lesion["label"] == label]
        text += f"; {counted(len(sizes), label)}, {', '.join(_short(size) for size in sizes[:5])} mL"
        text += " and smaller" if len(sizes) > 5 else ""
    return text


def _alt(case: Mapping[str, Any], strip: Mapping[str, Any]) -> str:
    return f"Axial slice {strip['slices'][strip['start']] + 1} of {strip['of']} of {case['case']}"


def _without_thumb(strip: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in strip.items() if key != "thumb"}


def _charts(report: Mapping[str, Any], heads: Mapping[str, str]) -> list[str]:
    """Histograms of what varies, and of the sizes of all lesions."""
    charts = []
    names = [*(name for name in _CHARTS if name in heads), *(name for name in heads if name not in _HEADS)]
    for name in names:
        values = [case["facts"][name] for case in report["cases"] if case["facts"].get(name) is not None]
        present = [value for value in values if value > 0] if name.endswith("_ml") else values
        if len(set(present)) > 1:
            without = len(values) - len(present)
            note = f" ({without} without)" if without else ""
            charts.append(histogram(present, f"{heads[name]}{note}", "cases").svg())
    sizes = [lesion["diameter_mm"] for case in report["cases"] for lesion in case["lesions"]]
    if len(set(sizes)) > 1:
        charts.append(histogram(sizes, "Each lesion: diameter of a ball of its volume (mm)", "lesions").svg())
    return charts


def histogram(values: Sequence[float], across: str, up: str) -> Chart:
    """Counts in equal bins, the median as a line; in powers where the values spread over a factor of 30 and more."""
    low, high = (float(v) for v in np.percentile(values, (5, 95)))
    powers = min(values) > 0 and low > 0 and high / low >= _LOG
    whole = all(float(value).is_integer() for value in values)
    if powers:
        edges = np.geomspace(min(values), max(values), _BINS + 1)
    elif whole and max(values) - min(values) < _BINS:
        edges = np.arange(min(values) - 0.5, max(values) + 1)
    else:
        edges = np.linspace(min(values), max(values), _BINS + 1)
    edges[0], edges[-1] = min(edges[0], min(values)), max(edges[-1], max(values))

    def draw(axes: Any, ink: Ink) -> None:
        counts, _ = np.histogram(values, edges)
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=COLOURS[0], alpha=0.8, linewidth=0)
        axes.axvline(float(np.median(values)), color=COLOURS[1], linewidth=1.6)
        if powers:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.minorticks_off()
        else:
            axes.xaxis.get_major_locator().set_params(nbins=6)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y", color=ink.grid, linewidth=0.8)
        name_axes(axes, ink, across, up)

    return Chart(f"Histogram: {across}", 2.1, draw, 4.6)
