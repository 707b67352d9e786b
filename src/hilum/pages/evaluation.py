"""The page of an evaluation: means with intervals, charts, the best, the median and the worst case.

Comes in: ``scores.json`` and the Volumes to draw. Goes out: ``report.html`` beside it. No number is computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hilum.errors import InputError
from hilum.files import read_json
from hilum.labels import SCHEMES, LabelScheme
from hilum.pages import strings, tables
from hilum.pages.charts import bar_chart
from hilum.pages.curves import LEARNING, curves_of, read_log
from hilum.pages.figures import case_rows
from hilum.pages.writing import AGREEMENT, write_page
from hilum.volume import Volume

Pictures = Callable[[str], tuple[Volume | None, Volume, Volume]]


def evaluation_report(
    folder: Path,
    *,
    pictures: Pictures | None = None,
    scheme: LabelScheme | None = None,
    log: Path | None = None,
) -> Path:
    """Write ``report.html`` beside ``scores.json``.

    Args:
        folder: an evaluation, as ``evaluate`` writes it.
        pictures: gives (scan or None, truth, prediction) of a case; adds pictures of the best, the median and the
        worst one.
        scheme: what the labels of the pictures mean; by default the one that ``scores.json`` names.
        log: ``log.jsonl`` of the training run, for its loss curve.

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
            scan, truth, prediction = pictures(case)
            rows = case_rows(scan, prediction, scheme, truth, width=460)
            note = f"{case}, mean {strings.metric_name(metric)} {mark:.3f}"
            blocks.append({"title": heading, "note": note, "rows": rows})
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
        "curves": curves_of(read_log(log), LEARNING) if log is not None else [],
        "picture_blocks": blocks,
        "legend": [] if scheme is None else [(x.colour, x.name) for x in scheme.labels],
        "agreement": AGREEMENT,
        "cases": tables.case_table(scores) if scores["cases"] else None,
        "failures": sorted((scores.get("failures") or {}).items()),
    }
    return write_page(folder / "report.html", "evaluation.html", context)


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
