"""Scores as the tables and bars of a page.

Comes in: ``scores.json`` as read (see ``evaluate``) or parts of it. Goes out: headings, cells as text, bars. It knows
no HTML.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from hilum.pages.charts import Bar
from hilum.pages.strings import TEXT, metric_name, region_name, score
from hilum.pages.units import DASH, span

Scores = Mapping[str, Mapping[str, Any]]

# what tells most, first: for the chart, for choosing cases, and above the fold of a long table
_SHARES = (
    "dice",
    "composite",
    "tk_dice",
    "tu_dice",
    "surface_dice",
    "nsd_2mm",
    "iou",
    "jaccard",
    "sensitivity",
    "precision",
    "recall",
    "lesion_f1",
    "lesion_sensitivity",
    "lesion_precision",
)
_DISTANCES = ("robust_hd95_mm", "assd", "volume_error_ml")
_MOST_BARS = 6
_MOST_BOXES = 3
_MOST_COLUMNS = 24
_LONG = 14


def estimate_tables(estimates: Scores) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Metrics down, regions across; cells with value, interval and number of cases. What is long becomes two tables.

    Returns:
        The metrics that tell most, and the others, or None if one table holds all.
    """
    metrics = _ordered(_metrics(estimates))
    first = [m for m in metrics if m.lower() in _SHARES + _DISTANCES] if len(metrics) > _LONG else metrics
    rest = [m for m in metrics if m not in first]
    if not first or not rest:
        return _estimate_table(estimates, metrics), None
    return _estimate_table(estimates, first), _estimate_table(estimates, rest)


def _estimate_table(estimates: Scores, metrics: Sequence[str]) -> dict[str, Any]:
    cases = max((cell.get("n", 0) or 0 for values in estimates.values() for cell in values.values()), default=0)
    regions = [region for region, values in estimates.items() if any(m in values for m in metrics)]
    lines = [
        {"name": metric_name(m), "cells": [_estimate(m, estimates[region].get(m), cases) for region in regions]}
        for m in metrics
    ]
    return {"regions": [region_name(region) for region in regions], "lines": lines}


def value_table(values: Scores) -> dict[str, Any]:
    """Metrics down, regions across, for one case."""
    lines = [
        {
            "name": metric_name(metric),
            "cells": [{"text": score(metric, v.get(metric)), "small": ""} for v in values.values()],
        }
        for metric in _ordered(_metrics(values))
    ]
    return {"regions": [region_name(region) for region in values], "lines": lines}


def case_table(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Cases down; region and metric across, the telling metrics first and no more columns than a reader can follow."""
    cases: Mapping[str, Scores] = scores["cases"]
    reasons = scores.get("reasons", {})
    pairs = list(dict.fromkeys((r, m) for case in cases.values() for r, metrics in case.items() for m in metrics))
    order = _ordered(list(dict.fromkeys(metric for _, metric in pairs)))
    pairs.sort(key=lambda pair: order.index(pair[1]))
    shown = pairs[:_MOST_COLUMNS]
    lines = []
    for name, case in cases.items():
        cells = []
        for region, metric in shown:
            value = case.get(region, {}).get(metric)
            why = reasons.get(f"{name}/{region}/{metric}", "")
            cells.append({"value": "" if value is None else value, "text": score(metric, value), "why": why})
        lines.append({"name": name, "cells": cells})
    columns = [f"{region_name(region)}: {metric_name(metric)}" for region, metric in shown]
    return {"columns": columns, "lines": lines, "cut": len(pairs) > len(shown)}


def bars(estimates: Scores, cases: Mapping[str, Scores]) -> dict[str, list[Bar]]:
    """The shares (0 to 1) of every region, with their intervals and cases."""
    groups: dict[str, list[Bar]] = {}
    for region, metrics in estimates.items():
        row = []
        for metric in _chosen(metrics):
            cell = metrics[metric]
            dots = [case[region][metric] for case in cases.values() if case.get(region, {}).get(metric) is not None]
            row.append(Bar(metric_name(metric), cell["value"], cell.get("low"), cell.get("high"), dots))
        if row:
            groups[region_name(region)] = row
    return groups


def spreads(cases: Mapping[str, Scores]) -> dict[str, dict[str, list[float]]]:
    """Every case's values of the first shares of every region: region -> metric -> values."""
    regions = dict.fromkeys(region for case in cases.values() for region in case)
    groups = {}
    for region in regions:
        known: dict[str, list[float]] = {}
        for case in cases.values():
            for metric, value in case.get(region, {}).items():
                if metric.lower() in _SHARES and value is not None:
                    known.setdefault(metric, []).append(float(value))
        kept = [metric for metric in _ordered(list(known)) if all(0 <= value <= 1 for value in known[metric])]
        if kept:
            groups[region_name(region)] = {metric_name(metric): known[metric] for metric in kept[:_MOST_BOXES]}
    return groups


def ranking(scores: Mapping[str, Any]) -> tuple[str, list[tuple[str, float]]]:
    """The metric that cases are ranked by, and the cases with their mean of it over regions, best first."""
    cases: Mapping[str, Scores] = scores["cases"]
    names = {metric for case in cases.values() for metrics in case.values() for metric in metrics}
    metric = next((m for m in _ordered(sorted(names)) if m.lower() in _SHARES), "")
    marks = []
    for name, case in cases.items():
        values = [metrics[metric] for metrics in case.values() if metrics.get(metric) is not None]
        if values:
            marks.append((name, statistics.fmean(values)))
    return metric, sorted(marks, key=lambda mark: (-mark[1], mark[0]))


def lead(scores: Mapping[str, Any]) -> str:
    """One sentence about an evaluation: how many cases, and the first metric of every region."""
    count = len(scores["cases"])
    metric, _ = ranking(scores)
    parts = []
    for region, metrics in scores.get("mean", {}).items():
        if metric and metrics.get(metric, {}).get("value") is not None:
            parts.append(f"{region_name(region).lower()} {metrics[metric]['value']:.3f}")
    text = f"{count} case{'' if count == 1 else 's'}"
    return f"{text}; mean {metric_name(metric)}: {', '.join(parts)}." if parts else f"{text}."


def interval_note(scores: Mapping[str, Any]) -> str:
    """What the intervals are."""
    how = scores.get("intervals") or {}
    level = round(100 * how.get("level", 0.95))
    method = how.get("method", "bootstrap over cases")
    return f"In brackets: {level} % intervals ({method})."


def _metrics(table: Scores) -> list[str]:
    return list(dict.fromkeys(metric for metrics in table.values() for metric in metrics))


def _ordered(metrics: Sequence[str]) -> list[str]:
    """The telling ones first, the others as they come."""
    place = {name: n for n, name in enumerate(_SHARES + _DISTANCES)}
    return sorted(metrics, key=lambda metric: place.get(metric.lower(), len(place)))


def _chosen(metrics: Mapping[str, Any]) -> list[str]:
    """The known metrics that are shares from 0 to 1."""
    known = [metric for metric in _ordered(list(metrics)) if metric.lower() in _SHARES]
    return [metric for metric in known if _is_share(metrics[metric].get("value"))][:_MOST_BARS]


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _estimate(metric: str, cell: Mapping[str, Any] | None, cases: int) -> dict[str, str]:
    if cell is None or cell.get("value") is None:
        return {"text": DASH, "small": ""}
    small = ""
    if cell.get("low") is not None and cell.get("high") is not None:
        small = f"({span(score(metric, cell['low']), score(metric, cell['high']))})"
    if cell.get("n") is not None and cell["n"] != cases:
        small = f"{small} n={cell['n']}".strip()
    return {"text": score(metric, cell["value"]), "small": small}


def shown_cases(ranked: Sequence[tuple[str, float]]) -> list[tuple[str, str, float]]:
    """Best, median and worst case, each once: (title, case, mark)."""
    if not ranked:
        return []
    places = {TEXT["best_case"]: 0, TEXT["median_case"]: len(ranked) // 2, TEXT["worst_case"]: len(ranked) - 1}
    chosen: dict[str, tuple[str, str, float]] = {}
    for title, place in places.items():
        name, mark = ranked[place]
        chosen.setdefault(name, (title if len(ranked) > 1 else TEXT["only_case"], name, mark))
    return list(chosen.values())
