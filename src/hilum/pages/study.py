"""The page of a study: arms with what they reach and what it costs, their differences, the search, the conditions.

Comes in: ``study.json`` as ``hilum study`` writes it. Goes out: ``report.html`` beside it and ``figures/`` (each chart
as SVG and PNG for a paper). No number is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hilum.errors import InputError
from hilum.files import read_json
from hilum.judge.contrasts import better
from hilum.pages import strings, units
from hilum.pages.charts import Chart
from hilum.pages.tradeoffs import Point, cost_chart, learning_chart, search_chart, share_chart, style
from hilum.pages.writing import write_page
from hilum.progress import clock

_MOST_REGIONS = 4
# what stands below a chart, its key in a row, what its numbers are multiplied by
_COSTS = (
    ("training time of a run (s)", "train_seconds", 1.0),
    ("peak memory in training (GiB)", "memory_gb", 1.0),
    ("parameters (millions)", "parameters", 1e-6),
)
_MARKS = {
    "o": '<circle cx="7" cy="7" r="5"/>',
    "s": '<rect x="2.5" y="2.5" width="9" height="9"/>',
    "^": '<path d="M7 1.5 12.5 12h-11z"/>',
    "D": '<path d="M7 1 13 7 7 13 1 7z"/>',
    "v": '<path d="M7 12.5 1.5 2h11z"/>',
    "P": '<path d="M5 1h4v4h4v4H9v4H5V9H1V5h4z"/>',
}


def study_report(folder: Path) -> Path:
    """Write ``report.html`` and ``figures/`` into a study's folder from its ``study.json``.

    Raises:
        InputError: no study is there.
    """
    folder = Path(folder)
    study = read_json(folder / "study.json")
    if not isinstance(study, dict) or not {"arms", "metric", "conditions"} <= study.keys():
        raise InputError("is no study", where=folder / "study.json", wanted="study.json as hilum study writes it")
    blocks = [_block(study, data, folder) for data in study["data"] if any(r["data"] == data for r in study["arms"])]
    file = folder / "study.toml"
    context = {
        "kind": "Study",
        "heading": study["name"],
        "lead": _lead(study),
        "header_facts": _header(study),
        "warnings": _warnings(study),
        "description": study["description"],
        "blocks": blocks,
        "several": len(study["data"]) > 1,
        "metric": strings.metric_name(study["metric"]),
        "search": _search(study, folder),
        "changes": [(row["arm"], strings.facts(row["changes"])) for row in _arms(study)],
        "toml": file.read_text(encoding="utf-8", errors="replace") if file.is_file() else "",
        "failed": _failed(study),
        "folds": len(study["folds"]),
        "good": {1: "up and to the left is better", -1: "down and to the left is better"}.get(
            better(study["metric"]), ""
        ),
        "bold": {1: "the highest mean", -1: "the lowest mean"}.get(better(study["metric"]), ""),
        "protocol": study["protocol"],
    }
    return write_page(folder / "report.html", "study.html", context)


def _arms(study: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list({row["arm"]: row for row in study["arms"]}.values())


def _places(study: Mapping[str, Any]) -> dict[str, int]:
    return {row["arm"]: place for place, row in enumerate(_arms(study))}


def _lead(study: Mapping[str, Any]) -> str:
    arms, folds = len(_arms(study)), len(study["folds"])
    parts = []
    if arms:
        cases = max((row["cases"] for row in study["arms"]), default=0)
        many = f"{folds} folds" if folds > 1 else f"fold {study['folds'][0]}"
        parts.append(
            f"{strings.counted(arms, 'arm')} on {many}, scored on {strings.counted(cases, 'case')}".capitalize()
        )
        shown = [name for found in study["comparisons"].values() if found for name in _shown(found, study["metric"])]
        if any(study["comparisons"].values()):
            parts.append(_differing(shown) if shown else "no difference between them shown")
    tuned = study["tune"]
    if tuned and tuned["best"]:
        of = f" of {strings.region_name(tuned['region']).lower()}" if tuned["region"] else ""
        score = f"{strings.metric_name(tuned['metric'])}{of} {tuned['best']['value']:.3f}"
        parts.append(f"{strings.counted(len(tuned['trials']), 'trial')}, the best with {score}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _differing(shown: Sequence[str]) -> str:
    """``shown to differ: a above b (tumor) and c above d (tumor)``, at most three of them."""
    if len(shown) <= 3:
        return f"shown to differ: {strings.listed(shown)}"
    return f"{len(shown)} differences shown, the first of them {strings.listed(shown[:3])}"


def _shown(found: Mapping[str, Any], metric: str) -> list[str]:
    """``vnet below unet (tumour)`` for differences that were shown."""
    told = []
    for row in found["comparisons"]:
        if row["metric"] == metric and row.get("better"):
            worse = row["first"] if row["better"] == row["second"] else row["second"]
            told.append(f"{row['better']} above {worse} ({strings.region_name(row['region']).lower()})")
    return told


def _header(study: Mapping[str, Any]) -> list[str]:
    limits = [study["budget"], f"{study['steps']} steps" if study["steps"] else ""]
    budget = " or ".join(text for text in limits if text)
    data = ", ".join(f"{name} ({study['cases'][name]} cases)" for name in study["data"])
    facts = [f"recipe {study['recipe']}", f"{budget} a run" if budget else "", data, f"protocol {study['protocol']}"]
    return [fact for fact in facts if fact]


def _warnings(study: Mapping[str, Any]) -> list[str]:
    told = [f"{len(_failed(study))} runs or cases failed; see below"] if _failed(study) else []
    for data, found in study["conditions"].items():
        where = f"{data}: " if len(study["conditions"]) > 1 else ""
        told += [f"{where}Not equal: {one['what'].lower()}; {one['text']}" for one in found if not one["equal"]]
    for found in study["comparisons"].values():
        told += found["warnings"] if found else []
    tuned = study["tune"]
    if tuned and tuned["best"]:
        told.append(
            "The best of many trials was chosen by the very cases that it is scored on: its score is a little too kind"
        )
    return list(dict.fromkeys(told))


def _failed(study: Mapping[str, Any]) -> list[tuple[str, str]]:
    told = []
    for row in study["arms"]:
        told += [(f"{row['arm']} on {row['data']}, fold {fold}", why) for fold, why in row["failed"].items()]
        told += [(f"{row['arm']} on {row['data']}, {case}", why) for case, why in row["failed_cases"].items()]
    tuned = study["tune"]
    return told + [(name, why) for name, why in (tuned["failed"] if tuned else {}).items()]


def _block(study: Mapping[str, Any], data: str, folder: Path) -> dict[str, Any]:
    """Everything about one data set."""
    rows = [row for row in study["arms"] if row["data"] == data]
    metric, places = study["metric"], _places(study)
    regions = _regions(rows, metric)
    groups = []
    for region in regions[:_MOST_REGIONS]:
        title = strings.region_name(region)
        charts = [_cost(rows, places, region, metric, cost) for cost in _COSTS]
        shown = [(_kept(chart, folder, f"{data}_{region}_{cost[1]}"), cost[0]) for chart, cost in charts if chart]
        if shown:
            groups.append({"title": title, "charts": shown})
    found = study["comparisons"].get(data)
    return {
        "data": data,
        "table": _arm_table(rows, regions, metric, places),
        "groups": groups,
        "legend": [(_mark(places[row["arm"]]), row["arm"]) for row in rows],
        "pairs": _pair_table(found, regions, metric) if found else None,
        "methods": found["methods"] if found else "",
        "has_comparison_page": (folder / "comparison" / data / "report.html").is_file(),
        "conditions": study["conditions"].get(data, []),
        "curves": _curves(study, data, places, folder),
    }


def _regions(rows: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    return list(dict.fromkeys(r for row in rows for r, metrics in row["mean"].items() if metric in metrics))


def _arm_table(
    rows: Sequence[Mapping[str, Any]], regions: Sequence[str], metric: str, places: Mapping[str, int]
) -> dict[str, Any]:
    choose: Any = {1: max, -1: min}.get(better(metric), lambda values, default: default)
    best = {
        region: choose((v for row in rows if (v := _value(row, region, metric)) is not None), default=None)
        for region in regions
    }
    fair = len(rows) > 1 and len({row["cases"] for row in rows}) == 1  # on other cases, the highest says nothing
    lines = []
    for row in rows:
        cells = []
        for region in regions:
            cell = row["mean"].get(region, {}).get(metric, {})
            value = cell.get("value")
            span = ""
            if cell.get("low") is not None:
                span = units.span(strings.score(metric, cell["low"]), strings.score(metric, cell["high"]))
            text = strings.score(metric, value)
            cells.append({"value": "" if value is None else value, "text": text, "small": span,
                          "best": value is not None and value == best[region] and fair})  # fmt: skip
        seconds = row["train_seconds"]
        spread = ""
        if seconds is not None and len(row["folds"]) > 1:
            spread = f"{row['train_seconds_least']:.0f}–{row['train_seconds_most']:.0f}"
        costs = [
            (row["parameters"], _millions(row["parameters"]), ""),
            (seconds, strings.number(seconds, 0) if seconds is not None else units.DASH, spread),
            (row["memory_gb"], strings.number(row["memory_gb"], 2), ""),
            (row["segment_seconds"], strings.number(row["segment_seconds"], 2), ""),
        ]
        for value, text, small in costs:
            cells.append({"value": "" if value is None else value, "text": text, "small": small, "best": False})
        link = f"evaluations/{row['data']}/{row['arm']}/report.html" if row["cases"] else ""
        lines.append({"name": row["arm"], "network": row["network"], "link": link, "cells": cells,
                      "mark": _mark(places[row["arm"]])})  # fmt: skip
    columns = [strings.region_name(region) for region in regions]
    return {"columns": [*columns, "Parameters (M)", "Training (s)", "Memory (GiB)", "Segmenting (s)"], "lines": lines}


def _value(row: Mapping[str, Any], region: str, metric: str) -> float | None:
    found: float | None = row["mean"].get(region, {}).get(metric, {}).get("value")
    return found


def _millions(count: int | None) -> str:
    return units.DASH if count is None else f"{count / 1e6:.2f}"


def _cost(
    rows: Sequence[Mapping[str, Any]],
    places: Mapping[str, int],
    region: str,
    metric: str,
    cost: tuple[str, str, float],
) -> tuple[Chart | None, tuple[str, str, float]]:
    across, key, times = cost
    points = []
    for row in rows:
        cell = row["mean"].get(region, {}).get(metric, {})
        if cell.get("value") is not None and row[key] is not None:
            name = row["arm"]
            spot = Point(name, places[name], row[key] * times, cell["value"], cell.get("low"), cell.get("high"))
            points.append(spot)
    title = f"{strings.region_name(region)}: {strings.metric_name(metric)} against {across}"
    return (cost_chart(points, title, across, strings.metric_name(metric)) if points else None), cost


def _pair_table(found: Mapping[str, Any], regions: Sequence[str], metric: str) -> dict[str, Any]:
    """Two arms down, regions across: the second less the first."""
    rows = [row for row in found["comparisons"] if row["metric"] == metric]
    pairs = list(dict.fromkeys((row["first"], row["second"]) for row in rows))
    lines = []
    for first, second in pairs:
        cells = []
        for region in regions:
            row = next((r for r in rows if (r["first"], r["second"], r["region"]) == (first, second, region)), None)
            if row is None or row["difference"] is None:
                cells.append({"text": units.DASH, "small": "", "sure": False})
                continue
            span = f"{_signed(row['low'])} to {_signed(row['high'])}" if row["low"] is not None else ""
            p = f"p {row['p_holm']:.2g}" if row["p_holm"] is not None else ""
            small = ", ".join(text for text in (span, p) if text)
            cells.append({"text": _signed(row["difference"]), "small": small, "sure": bool(row.get("better"))})
        lines.append({"first": first, "second": second, "cells": cells})
    return {"columns": [strings.region_name(region) for region in regions], "lines": lines}


def _signed(value: float) -> str:
    return f"{value:+.{4 if abs(value) < 0.01 else 3}f}".replace("-", "−")


def _curves(study: Mapping[str, Any], data: str, places: Mapping[str, int], folder: Path) -> list[tuple[Markup, str]]:
    """Loss and Dice of patches while the first fold of each arm learnt."""
    first = study["folds"][0]
    mine = [one for one in study["curves"] if one["data"] == data and one["fold"] == first and one["epochs"]]
    wanted = (
        ("loss", lambda line: line.get("loss")),
        ("Dice on held-out patches", lambda line: _mean(line.get("patch_dice"))),
    )
    charts = []
    for up, look in wanted:
        curves = {
            one["arm"]: (
                places[one["arm"]],
                [line["seconds"] for line in one["epochs"]],
                [look(line) for line in one["epochs"]],
            )
            for one in mine
        }
        if any(value is not None for _, _, values in curves.values() for value in values):
            chart = learning_chart(curves, f"{up} over training time, fold {first}", "training time (s)", up)
            charts.append((_kept(chart, folder, f"{data}_{'loss' if up == 'loss' else 'patch_dice'}"), up))
    return charts


def _mean(scores: Any) -> float | None:
    known = [value for value in scores.values() if value is not None] if isinstance(scores, Mapping) else []
    return sum(known) / len(known) if known else None


def _search(study: Mapping[str, Any], folder: Path) -> dict[str, Any] | None:
    """What Optuna tried and found."""
    tuned = study["tune"]
    if not tuned:
        return None
    keys = list(tuned["space"])
    lines = []
    for one in tuned["trials"]:
        seen = one["value"] if one["value"] is not None else (one["fold_scores"] or [None])[-1]
        values = [_said(one["values"].get(key)) for key in keys]
        lines.append({"number": one["number"], "state": one["state"], "cells": values, "score": seen,
                      "text": strings.number(seen, 4), "folds": len(one["fold_scores"]),
                      "time": clock(one["seconds"]) if one["seconds"] is not None else units.DASH})  # fmt: skip
    points = [(x["number"], x["score"], x["state"]) for x in lines if x["score"] is not None]
    of = f" of {strings.region_name(tuned['region']).lower()}" if tuned["region"] else ""
    up = f"{strings.metric_name(tuned['metric'])}{of}"
    charts = []
    if any(state == "complete" for _, _, state in points):
        upwards = tuned["direction"] == "maximize"
        chart = search_chart(points, f"{up} of every trial", up, upwards)
        charts.append((_kept(chart, folder, "search"), "Dots: trials that ran on all folds. Crosses: pruned."))
    if tuned["importance"]:
        chart = share_chart(tuned["importance"], "How much each setting matters", "share of importance")
        charts.append((_kept(chart, folder, "importance"), "By PED-ANOVA, on these few trials: a hint, no proof."))
    best = tuned["best"]
    facts = {
        "sampler": tuned["sampler"],
        "pruner, after each fold": tuned["pruner"],
        "folds": tuned["folds"],
        "seed": tuned["seed"],
        "storage": tuned["storage"],
        "Optuna": tuned["optuna"],
    }
    return {
        "best": best,
        "best_lines": "\n".join(f"{_quoted(k)} = {_said(v)}" for k, v in best["values"].items()) if best else "",
        "up": up,
        "columns": keys,
        "lines": lines,
        "charts": charts,
        "facts": strings.facts(facts),
        "repeatable": tuned["repeatable"],
        "space": [(key, _said_space(space)) for key, space in tuned["space"].items()],
    }


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    return units.DASH if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _said_space(space: Mapping[str, Any]) -> str:
    if "choices" in space:
        return ", ".join(_said(choice) for choice in space["choices"])
    step = f", in steps of {space['step']:g}" if space["step"] else ""
    return f"{space['low']:g} to {space['high']:g}{', logarithmic' if space['log'] else ''}{step}"


def _quoted(key: str) -> str:
    return f'"{key}"'


def _kept(chart: Chart, folder: Path, name: str) -> Markup:
    """The chart for the page; its files for a paper are written on the way."""
    chart.write(folder / "figures", name.replace(" ", "_").replace("/", "_"))
    return Markup(chart.svg())  # drawn here; the SVG writer escaped the names


def _mark(place: int) -> Markup:
    """An arm's mark in its colour, as in the charts."""
    colour, mark = style(place)
    return Markup(
        f'<svg class="mark" viewBox="0 0 14 14" width="14" height="14" aria-hidden="true" fill="{colour}">'
        f"{_MARKS[mark]}</svg>"
    )
