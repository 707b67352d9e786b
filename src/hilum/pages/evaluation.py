"""The page of an evaluation: means with intervals, charts, the best, median and worst case, each lesion missed.

Comes in: ``scores.json`` (and ``suspects.json``, if it is there) and the Volumes to draw. Goes out: ``report.html``
beside it, and ``figures/`` with its charts and panels for a paper. No number is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hilum.errors import DatasetError, InputError
from hilum.files import read_json
from hilum.labels import SCHEMES, LabelScheme
from hilum.pages import strings, tables
from hilum.pages.charts import Chart, bar_chart, bars
from hilum.pages.curves import LEARNING, curves_of, read_log
from hilum.pages.figures import case_rows
from hilum.pages.loading import Pictures
from hilum.pages.paper import write_panels
from hilum.pages.places import place_blocks, suspect_lines
from hilum.pages.plots import Agreement, bland_altman_chart, boxes, froc_chart, reliability_chart
from hilum.pages.writing import AGREEMENT, write_page

FIGURES = "figures"


def evaluation_report(
    folder: Path,
    *,
    pictures: Pictures | None = None,
    scheme: LabelScheme | None = None,
    log: Path | None = None,
    figures: bool = False,
) -> Path:
    """Write ``report.html`` beside ``scores.json``.

    Args:
        folder: an evaluation, as ``evaluate`` writes it.
        pictures: gives (scan or None, truth, prediction) of a case; adds pictures of the best, the median and the
            worst one, and of lesions that were missed or invented.
        scheme: what the labels of the pictures mean; by default the one that ``scores.json`` names.
        log: ``log.jsonl`` of the training run, for its loss curve.
        figures: also write charts and panels to ``figures/``, as SVG and as PNG at 300 dpi.

    Returns:
        The page's path.

    Raises:
        InputError: no ``scores.json``, or one that cannot be read.
    """
    folder = Path(folder)
    scores = read_scores(folder)
    metric, ranked = tables.ranking(scores)
    scheme = scheme or SCHEMES.get(str(scores.get("scheme")))
    blocks = []
    if pictures is not None and scheme is not None:
        for heading, case, mark in tables.shown_cases(ranked):
            try:
                scan, truth, prediction = pictures(case)
            except DatasetError:  # label maps that are gone: the numbers stand without pictures
                continue
            rows = case_rows(scan, prediction, scheme, truth, width=460)
            note = f"{case}, mean {strings.metric_name(metric)} {mark:.3f}"
            blocks.append({"title": heading, "note": note, "rows": rows})
            if figures:
                large = case_rows(scan, prediction, scheme, truth, width=640)
                write_panels(large, folder / FIGURES, heading.lower().replace(" ", "_"))
    suspects = read_json(folder / "suspects.json") if (folder / "suspects.json").is_file() else None
    places = place_blocks(scores, pictures, scheme, everything=suspects is not None)
    charts = charts_of(scores)
    if figures:
        for name, chart in charts.items():
            chart.write(folder / FIGURES, name)
    pooled, pooled_more = tables.estimate_tables(scores["pooled"]) if scores.get("pooled") else (None, None)
    about = [f"Protocol {scores['protocol']}", *([scores["about"]] if scores.get("about") else [])]
    context = {
        "kind": "Evaluation",
        "heading": folder.resolve().name,
        "lead": tables.lead(scores),
        "header_facts": about,
        "warnings": [*scores.get("warnings", ())],
        **score_parts(scores),
        "audit": [entry["text"] for entry in (scores.get("audit") or {}).get("findings", ())],
        "empty_policy": scores.get("empty_policy", ""),
        "pooled_table": pooled,
        "pooled_more": pooled_more,
        "curves": [
            *((chart.title, Markup(chart.svg())) for name, chart in charts.items() if name != "scores"),
            *(curves_of(read_log(log), LEARNING) if log is not None else []),
        ],
        "notes": _chart_notes(scores),
        "places": places,
        "suspects": suspect_lines(suspects, places) if suspects else [],
        "caveat": suspects["caveat"] if suspects else "",
        "picture_blocks": blocks,
        "legend": [] if scheme is None else [(x.colour, x.name) for x in scheme.labels],
        "agreement": AGREEMENT,
        "cases": tables.case_table(scores) if scores["cases"] else None,
        "failures": sorted((scores.get("failures") or {}).items()),
    }
    return write_page(folder / "report.html", "evaluation.html", context)


def charts_of(scores: Mapping[str, Any]) -> dict[str, Chart]:
    """The charts of an evaluation by name; what the scores do not hold is not there."""
    mean, cases = scores.get("mean") or {}, scores["cases"]
    charts: dict[str, Chart] = {}
    groups = tables.bars(mean, cases)
    if groups:
        charts["scores"] = bars(groups, "Mean scores by region")
    spread = tables.spreads(cases)
    if spread and len(cases) > 2:
        charts["spread"] = boxes(spread, "Spread over cases")
    found = scores.get("confidence") or {}
    lesions = {strings.region_name(region): x["froc"] for region, x in found.items() if "froc" in x}
    if lesions:
        charts["froc"] = froc_chart(lesions, "FROC")
    calibrated = {strings.region_name(region): x["calibration"] for region, x in found.items()}
    if calibrated:
        charts["reliability"] = reliability_chart(calibrated, "Reliability")
    for region, limits in (scores.get("volume_agreement") or {}).items():
        pairs = [volumes[region] for volumes in scores.get("volumes_ml", {}).values() if region in volumes]
        if len(pairs) > 2 and any(any(pair) for pair in pairs):
            agreement = Agreement(pairs, limits["bias"], limits["low"], limits["high"])
            title = f"Volume of {strings.region_name(region).lower()}"
            charts[f"bland_altman_{region}"] = bland_altman_chart({region: agreement}, title)
    return charts


def _chart_notes(scores: Mapping[str, Any]) -> list[str]:
    notes = []
    if len(scores["cases"]) > 2:
        notes.append("Boxes: quartiles and median; whiskers: to 1.5 box lengths; dots: cases.")
    for region, limits in (scores.get("volume_agreement") or {}).items():
        if limits.get("low") is not None:
            span = f"{limits['low']:+.1f} to {limits['high']:+.1f} mL (n {limits['n']})"
            name = strings.region_name(region).lower()
            notes.append(
                f"Volume of {name}, prediction less truth: bias {limits['bias']:+.1f} mL, limits of agreement {span}."
            )
    froc = next((found["froc"] for found in (scores.get("confidence") or {}).values() if "froc" in found), None)
    if froc is not None:
        notes.append(f"FROC: candidates are {froc['candidates']}.")
    first = next(iter((scores.get("confidence") or {}).values()), None)
    if first is not None:
        notes.append(f"Reliability: {first['calibration']['field']}.")
    return notes


def score_parts(scores: Mapping[str, Any]) -> dict[str, Any]:
    """What the pages of an evaluation and of a run share."""
    mean = scores.get("mean") or {}
    first, rest = tables.estimate_tables(mean) if mean else (None, None)
    groups = tables.bars(mean, scores["cases"])
    return {
        "mean_table": first,
        "more_table": rest,
        "bar_svg": Markup(bar_chart(groups, "Mean scores by region")) if groups else "",
        "interval_note": tables.interval_note(scores),
    }


def read_scores(folder: Path) -> dict[str, Any]:
    """``scores.json`` of an evaluation, checked to hold scores."""
    path = folder / "scores.json"
    scores = read_json(path)
    if not isinstance(scores, dict) or not {"protocol", "cases", "mean"} <= scores.keys():
        raise InputError(
            "no scores in it", where=path, wanted="protocol, cases and mean", fix="run hilum evaluate again"
        )
    return scores
