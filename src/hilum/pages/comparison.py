"""The page of a comparison: differences with intervals, ranks, subgroups, agreement of volumes, the methods sentence.

Comes in: ``comparison.json``. Goes out: ``report.html`` beside it, and ``figures/`` with its charts for a paper. No
number is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hilum.errors import InputError
from hilum.files import read_json
from hilum.pages import strings, units
from hilum.pages.charts import Chart
from hilum.pages.plots import Agreement, Change, bland_altman_chart, boxes, forest
from hilum.pages.writing import write_page

FIGURES = "figures"
_FIRST = ("dice", "Dice", "surface_dice", "nsd_2mm", "iou", "dice_per_case", "composite", "lesion_f1")
_SORTED = ("first_mean", "difference", "p_holm", "rank_biserial", "n", "patients_needed", "claim_patients_needed")


def comparison_report(folder: Path, figures: bool = False) -> Path:
    """Write ``report.html`` beside ``comparison.json``.

    Args:
        folder: as ``compare`` writes it.
        figures: also write the charts to ``figures/``, as SVG and as PNG at 300 dpi.

    Returns:
        The page's path.

    Raises:
        InputError: no ``comparison.json``, or one that cannot be read.
    """
    folder = Path(folder)
    found = read_json(folder / "comparison.json")
    if not isinstance(found, dict) or not {"comparisons", "evaluations", "cases"} <= found.keys():
        raise InputError("no comparison in it", where=folder / "comparison.json", fix="run hilum compare again")
    charts = charts_of(found)
    if figures:
        for name, chart in charts.items():
            chart.write(folder / FIGURES, name)
    names = [entry["name"] for entry in found["evaluations"]]
    first = [row for row in found["comparisons"] if row["metric"] in _FIRST or "margin" in row or "claim" in row]
    rest = [row for row in found["comparisons"] if row not in first]
    context = {
        "kind": "Comparison",
        "heading": " · ".join(names),
        "lead": lead(found),
        "header_facts": [f"Protocol {found['protocol']}", f"{len(found['cases'])} cases, {found['patients']} patients"],
        "warnings": found["warnings"],
        "charts": [(chart.title, Markup(chart.svg())) for chart in charts.values()],
        "blocks": _by_pair(first),
        "rest": _by_pair(rest),
        "more": len({(row["region"], row["metric"]) for row in rest}),
        "asked": [difference_line(row) for row in first if "margin" in row or "claim" in row],
        "ranking": found.get("ranking", []),
        "standings": [_standing(table) for table in found.get("standings", [])],
        "subgroups": _by_pair([row for row in found.get("subgroups", []) if row["metric"] in _FIRST[:3]]),
        "agreement": [_limits(row) for row in found.get("volume_agreement", [])],
        "empty_policy": found.get("empty_policy", ""),
        "methods": found.get("methods", ""),
    }
    return write_page(folder / "report.html", "comparison.html", context)


def lead(found: Mapping[str, Any]) -> str:
    """One sentence: what was shown to be better, or that nothing was."""
    sure = [row for row in found["comparisons"] if row["metric"] in _FIRST and row["better"]]
    if not sure:
        tried = len([row for row in found["comparisons"] if row["metric"] in _FIRST])
        return f"No difference shown in {strings.counted(tried, 'comparison')} of the main metrics."
    won: dict[str, list[str]] = {}
    for row in sure:
        other = row["first"] if row["better"] == row["second"] else row["second"]
        told = f"{strings.metric_name(row['metric'])} of {strings.region_name(row['region']).lower()}"
        won.setdefault(f"{row['better']} is better than {other}", []).append(told)
    parts = [
        f"{who} in {strings.listed([*what[:2], f'{len(what) - 2} more'] if len(what) > 3 else what)}"
        for who, what in won.items()
    ]
    return f"{'; '.join(parts)}."


def charts_of(found: Mapping[str, Any]) -> dict[str, Chart]:
    """The charts of a comparison by name."""
    charts: dict[str, Chart] = {}
    for pair in dict.fromkeys((row["first"], row["second"]) for row in found["comparisons"]):
        rows = [row for row in found["comparisons"] if (row["first"], row["second"]) == pair]
        groups, margin = _changes(
            [row for row in rows if _is_share(row)], lambda row: strings.region_name(row["region"]), "metric"
        )
        if groups:
            number = "" if len(charts) == 0 else f"_{len(charts) + 1}"
            title = f"{pair[1]} less {pair[0]}"
            charts[f"differences{number}"] = forest(groups, title, f"difference (right: {pair[1]} has more)", margin)
    spread = {}
    for table in found.get("values", []):
        values = {name: [x for x in column if x is not None] for name, column in table["evaluations"].items()}
        if any(values.values()) and table["metric"] in _FIRST[:3]:
            title = f"{strings.metric_name(table['metric'])}, {strings.region_name(table['region']).lower()}"
            spread[title] = {name: column for name, column in values.items() if column}
    if spread and len(found["cases"]) > 2:
        charts["spread"] = boxes(spread, "Spread over cases")
    rows = [row for row in found.get("subgroups", []) if row["metric"] in _FIRST[:2] and row["difference"] is not None]
    for column in dict.fromkeys(row["column"] for row in rows):
        mine = [row for row in rows if row["column"] == column]
        groups, _ = _changes(
            mine, lambda row: f"{strings.region_name(row['region'])}: {row['first']} → {row['second']}", "group"
        )
        if groups:
            title = f"Within {column}"
            charts[f"subgroups_{_plain(column)}"] = forest(groups, title, "difference in Dice (second less first)")
    for region in dict.fromkeys(row["region"] for row in found.get("volume_agreement", [])):
        methods = {
            row["evaluation"]: Agreement(row["truth_and_prediction_ml"], row["bias"], row["low"], row["high"])
            for row in found["volume_agreement"]
            if row["region"] == region
        }
        points = [pair for method in methods.values() for pair in method.pairs]
        if len(points) > 2 * len(methods) and any(any(pair) for pair in points):
            title = f"Volume of {strings.region_name(region).lower()}"
            charts[f"bland_altman_{_plain(region)}"] = bland_altman_chart(methods, title)
    return charts


def difference_line(row: Mapping[str, Any]) -> dict[str, Any]:
    """One row of ``comparison.json`` as cells of a table."""
    metric = row["metric"]
    interval = ""
    if row["low"] is not None and row["high"] is not None:
        interval = f"{_signed(metric, row['low'])} to {_signed(metric, row['high'])}"
    if row.get("non_inferior") is None:
        not_worse = units.DASH
    else:
        not_worse = f"{'yes' if row['non_inferior'] else 'not shown'} ({row['margin']:g})"
    return {
        "region": strings.region_name(row["region"]),
        "metric": strings.metric_name(metric),
        "first": row["first"],
        "second": row["second"],
        "means": f"{strings.score(metric, row['first_mean'])} → {strings.score(metric, row['second_mean'])}",
        "difference": _signed(metric, row["difference"]),
        "interval": interval,
        "p": _p(row["p"]),
        "p_holm": _p(row["p_holm"]),
        "effect": strings.number(row["rank_biserial"], 2),
        "n": row["n"],
        "raw": {key: "" if row.get(key) is None else row[key] for key in _SORTED},
        "better": row["better"] or units.DASH,
        "more": _patients(row.get("patients_needed"), row.get("more_patients")),
        "not_worse": not_worse,
        "claim": f"{row['claim']:g}: {_patients(row['claim_patients_needed'], row['claim_more_patients'])}"
        if "claim" in row
        else units.DASH,
    }


def _by_pair(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows as one table for every two methods."""
    blocks: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        group = {"column": row.get("column", ""), "group": row.get("group", "")}
        blocks.setdefault(f"{row['first']} → {row['second']}", []).append({**group, **difference_line(row)})
    return [{"title": title, "lines": lines} for title, lines in blocks.items()]


def _changes(rows: Sequence[Mapping[str, Any]], group_of: Any, name: str) -> tuple[dict[str, list[Change]], Any]:
    groups: dict[str, list[Change]] = {}
    margins = {row["margin"] for row in rows if "margin" in row}
    for row in rows:
        if row["difference"] is None:
            continue
        label = strings.metric_name(row["metric"]) if name == "metric" else str(row[name])
        note = f"{row['difference']:+.3f}".replace("-", "−")
        sure = bool(row["better"])
        change = Change(f"{label} ({row['n']})", row["difference"], row["low"], row["high"], sure, note)
        groups.setdefault(group_of(row), []).append(change)
    return groups, margins.pop() if len(margins) == 1 else None


def _is_share(row: Mapping[str, Any]) -> bool:
    means = row["first_mean"], row["second_mean"]
    return row["metric"] in _FIRST and all(mean is not None and 0 <= mean <= 1 for mean in means)


def _standing(table: Mapping[str, Any]) -> dict[str, Any]:
    tau = table["kendall_tau"]
    return {
        "title": f"{strings.region_name(table['region'])}, {strings.metric_name(table['metric'])}",
        "tau": strings.number(tau, 2),
        "n": table["n"],
        "lines": [
            {
                "rank": method["rank_of_ranks"],
                "name": method["name"],
                "mean_rank": strings.number(method["mean_rank"], 2),
                "mean": strings.score(table["metric"], method["mean"]),
                "rank_of_means": method["rank"],
                "first": f"{100 * method['first']:.0f} %",
                "span": _span(method["rank_low"], method["rank_high"]),
            }
            for method in table["methods"]
        ],
    }


def _limits(row: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: strings.number(row[key], 1) for key in ("bias", "bias_low", "bias_high", "low", "high")}
    return {"name": row["evaluation"], "region": strings.region_name(row["region"]), "n": row["n"], **told}


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def _signed(metric: str, value: float | None) -> str:
    if value is None:
        return units.DASH
    text = strings.score(metric, abs(value))
    return f"{'−' if value < 0 else '+'}{text}" if value else text


def _p(value: float | None) -> str:
    if value is None:
        return units.DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _patients(needed: int | None, more: int | None) -> str:
    if needed is None:
        return units.DASH
    return f"{needed} ({more} more)" if more else f"{needed} (enough)"


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in text)
