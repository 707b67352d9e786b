"""Scores as the tables and bars of a page.

Comes in: ``scores.json`` as read (see ``evaluate``) or parts of it. Goes out: headings, cells as text, bars. It knows
no HTML.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from hilum.results.charts import Bar
from hilum.results.strings import DASH, metric_digits, metric_name, number, region_name

Scores = Mapping[str, Mapping[str, Any]]

# for the chart and for choosing cases: overlap first; shares that are always near 1 tell nothing
_SHARES = ("dice", "surface_dice", "nsd", "iou", "jaccard", "sensitivity", "recall", "precision", "lesion_f1", "f1")
_MOST_BARS = 5
_MOST_COLUMNS = 24


def estimate_table(estimates: Scores) -> dict[str, Any]:
    """Metrics down, regions across; cells with value, interval and number of cases."""
    lines = []
    cases = max((cell.get("n", 0) or 0 for metrics in estimates.values() for cell in metrics.values()), default=0)
    for metric in _metrics(estimates):
        digits = metric_digits(metric)
        cells = [_estimate(metrics.get(metric), digits, cases) for metrics in estimates.values()]
        lines.append({"name": metric_name(metric), "cells": cells})
    return {"regions": [region_name(region) for region in estimates], "lines": lines}


def value_table(values: Scores) -> dict[str, Any]:
    """Metrics down, regions across, for one case."""
    lines = [
        {
            "name": metric_name(metric),
            "cells": [
                {"text": number(v.get(metric), _digits(metric, v.get(metric))), "small": ""} for v in values.values()
            ],
        }
        for metric in _metrics(values)
    ]
    return {"regions": [region_name(region) for region in values], "lines": lines}


def case_table(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Cases down; region and metric across, the telling metrics first and no more columns than a reader can follow."""
    cases: Mapping[str, Scores] = scores["cases"]
    reasons = scores.get("reasons", {})
    pairs = list(dict.fromkeys((r, m) for case in cases.values() for r, metrics in case.items() for m in metrics))
    metrics = [metric for _, metric in pairs]
    first = [metric for metric in _SHARES if metric in metrics]
    order = [*first, *dict.fromkeys(metric for metric in metrics if metric not in first)]
    pairs.sort(key=lambda pair: order.index(pair[1]))
    shown = pairs[:_MOST_COLUMNS]
    lines = []
    for name, case in cases.items():
        cells = []
        for region, metric in shown:
            value = case.get(region, {}).get(metric)
            why = reasons.get(f"{name}/{region}/{metric}", "")
            cells.append(
                {"value": "" if value is None else value, "text": number(value, _digits(metric, value)), "why": why}
            )
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


def ranking(scores: Mapping[str, Any]) -> tuple[str, list[tuple[str, float]]]:
    """The metric that cases are ranked by, and the cases with their mean of it over regions, best first."""
    cases: Mapping[str, Scores] = scores["cases"]
    names = {metric for case in cases.values() for metrics in case.values() for metric in metrics}
    metric = next((m for m in _SHARES if m in names), "")
    marks = []
    for name, case in cases.items():
        values = [metrics[metric] for metrics in case.values() if metrics.get(metric) is not None]
        if values:
            marks.append((name, statistics.fmean(values)))
    return metric, sorted(marks, key=lambda mark: (-mark[1], mark[0]))


def lead(scores: Mapping[str, Any]) -> str:
    """One sentence about an evaluation: how many cases, and the first metric of every region."""
    count = len(scores["cases"])
    parts = []
    for region, metrics in scores.get("mean", {}).items():
        metric = next((m for m in _SHARES if m in metrics), "")
        if metric and metrics[metric].get("value") is not None:
            parts.append(f"{region_name(region).lower()} {metrics[metric]['value']:.3f}")
            name = metric_name(metric)
    text = f"{count} case{'' if count == 1 else 's'}"
    return f"{text}; mean {name}: {', '.join(parts)}." if parts else f"{text}."


def interval_note(scores: Mapping[str, Any]) -> str:
    """What the intervals are."""
    how = scores.get("intervals") or {}
    level = round(100 * how.get("level", 0.95))
    method = how.get("method", "bootstrap over cases")
    return f"In brackets: {level} % intervals ({method})."


def _metrics(table: Scores) -> list[str]:
    return list(dict.fromkeys(metric for metrics in table.values() for metric in metrics))


def _chosen(metrics: Mapping[str, Any]) -> list[str]:
    """Metrics that are shares: the known ones first, then others whose values lie in 0..1 and that carry no unit."""
    known = [m for m in _SHARES if m in metrics]
    others = [m for m in metrics if m not in known and m.startswith(("nsd", "surface_dice", "lesion_"))]
    good = [m for m in known + others if _is_share(metrics[m].get("value"))]
    return good[:_MOST_BARS]


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _estimate(cell: Mapping[str, Any] | None, digits: int, cases: int) -> dict[str, str]:
    if cell is None or cell.get("value") is None:
        return {"text": DASH, "small": ""}
    small = ""
    if cell.get("low") is not None and cell.get("high") is not None:
        small = f"({number(float(cell['low']), digits)}–{number(float(cell['high']), digits)})"
    if cell.get("n") is not None and cell["n"] != cases:
        small = f"{small} n={cell['n']}".strip()
    return {"text": number(float(cell["value"]), digits), "small": small}


def _digits(metric: str, value: Any) -> int:
    whole = isinstance(value, float) and value.is_integer() and abs(value) > 1
    return 0 if whole else metric_digits(metric)


def shown_cases(ranked: Sequence[tuple[str, float]]) -> list[tuple[str, str, float]]:
    """Best, median and worst case, each once: (title, case, mark)."""
    if not ranked:
        return []
    places = {"Best case": 0, "Median case": len(ranked) // 2, "Worst case": len(ranked) - 1}
    chosen: dict[str, tuple[str, str, float]] = {}
    for title, place in places.items():
        name, mark = ranked[place]
        chosen.setdefault(name, (title if len(ranked) > 1 else "The case", name, mark))
    return list(chosen.values())
