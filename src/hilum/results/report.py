"""Pages for people: one HTML file each, complete in itself, readable on a phone and on paper.

Comes in: measurements, scores, a training run's folder, and the Volumes to draw. Goes out: ``report.html`` with
pictures and charts inside (data: URIs and inline SVG), no script or font from elsewhere; it opens without a network.
All text that comes from files is escaped by the templates. It computes no number of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hilum import __version__
from hilum.errors import InputError
from hilum.files import read_json, write_text
from hilum.labels import SCHEMES, LabelScheme
from hilum.results import strings, tables
from hilum.results.charts import bar_chart, curve_chart
from hilum.results.figures import AGREED, INVENTED, MISSED, SWAPPED, case_rows, lesion_picture
from hilum.results.measure import title
from hilum.volume import Volume

Pictures = Callable[[str], tuple[Volume | None, Volume, Volume]]

MOST_LESION_PICTURES = 12
_AGREEMENT = (
    (AGREED, "agreement"),
    (MISSED, "missed"),
    (INVENTED, "invented"),
    (SWAPPED, "found with another label"),
    ("#ffffff", "outline of the truth"),
)

# heading, label of the axis, keys in log.jsonl, span of the axis
_Curve = tuple[str, str, tuple[str, ...], tuple[float, float] | None]
_LEARNING: tuple[_Curve, ...] = (
    ("Loss", "loss", ("loss", "validation_loss"), None),
    ("Patch Dice", "Dice on patches", ("patch_dice",), (0.0, 1.0)),
)
_MACHINE: tuple[_Curve, ...] = (
    ("Learning rate", "learning rate", ("lr", "learning_rate"), None),
    ("Waiting for data", "share of time", ("data_wait", "data_wait_share"), (0.0, 1.0)),
)


def case_report(
    out_html: Path,
    scan: Volume | None,
    labels: Volume,
    measurements: Mapping[str, Any],
    scheme: LabelScheme,
    *,
    model_card: Mapping[str, Any] | None = None,
    truth: Volume | None = None,
    scores: Mapping[str, Mapping[str, Any]] | None = None,
    run: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Path:
    """Write the page of one case: a sentence, the measurements, pictures in three planes, every lesion, its making.

    Args:
        out_html: where to write.
        scan: HU, drawn under the labels; None draws the labels alone.
        labels: the segmentation that ``measurements`` come from.
        measurements: from ``measure``.
        scheme: what the labels mean.
        model_card: facts about the model (nested tables are listed line by line).
        truth: adds the columns truth and overlay.
        scores: region -> metric -> value of this case.
        run: facts about the run (versions, options, seconds, memory).
        name: heading; by default the name of the folder that the page is written to.

    Returns:
        ``out_html``.

    Raises:
        GeometryError: scan, labels and truth do not lie on one grid.
        OutputError: the page cannot be written.
    """
    lesions = measurements["lesions"]
    largest = sorted(lesions, key=lambda x: -x["long_axis_mm"])[:MOST_LESION_PICTURES]
    drawn = [x for x in lesions if x in largest]
    context = {
        "kind": "CT segmentation report",
        "heading": name or Path(out_html).resolve().parent.name,
        "lead": strings.summary(measurements),
        "header_facts": _header_facts(scan, labels, model_card),
        "warnings": [*measurements["warnings"], *_card_warnings(model_card)],
        "organs": [_organ(x, scheme) for x in measurements["organs"]],
        "lesions": [_lesion(x, scheme) for x in lesions],
        "has_hu": scan is not None,
        "lesion_pictures": [(lesion_picture(scan, labels, scheme, x), _caption(x)) for x in drawn],
        "lesions_left": len(lesions) - len(drawn),
        "rows": case_rows(scan, labels, scheme, truth),
        "legend": _legend(scheme, [x for x in (labels, truth) if x is not None]),
        "agreement": _AGREEMENT if truth is not None else (),
        "score_table": tables.value_table(scores) if scores else None,
        "smallest": measurements["smallest_lesion_voxels"],
        "scan_facts": _scan_facts(scan if scan is not None else labels),
        "model_facts": strings.facts(model_card or {}),
        "run_facts": strings.facts(run or {}),
    }
    return _write(out_html, "case.html", context)


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
    scores = _read_scores(folder)
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
        **_score_parts(scores),
        "audit": [entry["text"] for entry in (scores.get("audit") or {}).get("findings", ())],
        "empty_policy": scores.get("empty_policy", ""),
        "pooled_table": pooled,
        "pooled_more": pooled_more,
        "curves": _curves(_read_log(log), _LEARNING) if log is not None else [],
        "picture_blocks": blocks,
        "legend": [] if scheme is None else [(x.colour, x.name) for x in scheme.labels],
        "agreement": _AGREEMENT,
        "cases": tables.case_table(scores) if scores["cases"] else None,
        "failures": sorted((scores.get("failures") or {}).items()),
    }
    return _write(folder / "report.html", "evaluation.html", context)


def run_report(run_folder: Path) -> Path:
    """Write ``report.html`` into a training run's folder from what is there: log, plan, recipe, held-out scores.

    Raises:
        InputError: neither a log nor a model is in the folder.
    """
    folder = Path(run_folder)
    lines = _read_log(folder / "log.jsonl")
    model = _optional_json(folder / "model" / "model.json") or {}
    if not lines and not model:
        raise InputError(
            "no training run", where=folder, wanted="log.jsonl or model/model.json", fix="give a RUN folder"
        )
    plan = model.get("plan") or _optional_json(folder / "plan.json") or {}
    recipe = folder / "recipe.toml"
    validation = folder / "validation"
    scores = _read_scores(validation) if (validation / "scores.json").is_file() else None
    context = {
        "kind": "Training run",
        "heading": folder.resolve().name,
        "lead": _run_lead(lines, scores),
        "header_facts": [],
        "warnings": [*(scores.get("warnings", ()) if scores else ())],
        **(
            _score_parts(scores)
            if scores
            else {"mean_table": None, "more_table": None, "bar_svg": "", "interval_note": ""}
        ),
        "curves": _curves(lines, _LEARNING + _MACHINE),
        "has_validation_page": (validation / "report.html").is_file(),
        "plan_facts": strings.facts(plan),
        "model_facts": strings.facts(model.get("card") or {}),
        "run_facts": strings.facts(next((x["facts"] for x in lines if isinstance(x.get("facts"), dict)), {})),
        "recipe": recipe.read_text(encoding="utf-8", errors="replace") if recipe.is_file() else "",
    }
    return _write(folder / "report.html", "run.html", context)


@cache
def _environment() -> Environment:
    """Templates beside this file; everything is escaped, and a name that was not given is an error, not a blank."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _write(path: Path, template: str, context: Mapping[str, Any]) -> Path:
    shared = {"version": __version__, "not_a_device": strings.NOT_A_DEVICE, "made": ""}
    write_text(path, _environment().get_template(template).render({**shared, **context}))
    return Path(path)


def _header_facts(scan: Volume | None, labels: Volume, card: Mapping[str, Any] | None) -> list[str]:
    volume = scan if scan is not None else labels
    lines = [Path(volume.source).name, re.sub(r"(?<=\d)x(?=\d)", "×", volume.grid.describe())]
    model = (card or {}).get("name") or (card or {}).get("model")
    return [line for line in (*lines, f"Model {model}" if model else "") if line]


def _card_warnings(card: Mapping[str, Any] | None) -> list[str]:
    """What a model's makers say against it belongs at the top of every page that it fills."""
    said = (card or {}).get("warning")
    return [f"Model: {said}."] if said else []


def _scan_facts(volume: Volume) -> list[tuple[str, str]]:
    """Geometry and what the file told; who the patient is stays out of a page that gets passed on."""
    header = {key: value for key, value in volume.header.items() if not key.lower().startswith("patient")}
    grid = {
        "file": Path(volume.source).name,
        "shape": volume.shape,
        "spacing mm": volume.spacing_mm,
        "axes": volume.codes,
    }
    return strings.facts({**grid, **header})


def _legend(scheme: LabelScheme, volumes: Sequence[Volume]) -> list[tuple[str, str]]:
    return [(x.colour, x.name) for x in scheme.labels if any((volume.array == x.value).any() for volume in volumes)]


def _organ(entry: Mapping[str, Any], scheme: LabelScheme) -> dict[str, str]:
    name = title(entry)
    labels = [x for x in scheme.labels if x.organ == entry["name"] and x.kind == "organ"]
    label = next((x for x in labels if x.side == entry["side"]), labels[0])
    least = "at least " if entry["cut_by_field_of_view"] else ""
    lesions = entry["lesions_ml"]
    return {
        "title": f"{name[:1].upper()}{name[1:]}",
        "colour": label.colour,
        "volume": f"{least}{entry['volume_ml']:.1f} mL",
        "parenchyma": f"{entry['parenchyma_ml']:.1f} mL",
        "lesions": f"{lesions:.1f} mL" if lesions else strings.DASH,
        "hu": _hu(entry),
    }


def _lesion(entry: Mapping[str, Any], scheme: LabelScheme) -> dict[str, Any]:
    least = "at least " if entry["cut_by_field_of_view"] else ""
    volume = entry["volume_ml"]
    return {
        "id": entry["id"],
        "label": entry["label"],
        "colour": scheme.label(entry["value"]).colour,
        "where": _where(entry),
        "axes": f"{entry['long_axis_mm']:.0f} × {entry['short_axis_mm']:.0f} mm",
        "volume": f"{least}{volume:.1f} mL" if volume >= 1 else f"{least}{volume:.2f} mL",
        "hu": _hu(entry),
        "slice": entry["slice_index"] + 1,
    }


def _caption(entry: Mapping[str, Any]) -> str:
    size = f"{entry['long_axis_mm']:.0f} × {entry['short_axis_mm']:.0f} mm"
    return f"{entry['id']}. {entry['label'].capitalize()}, {_where(entry)}, {size}, slice {entry['slice_index'] + 1}"


def _where(entry: Mapping[str, Any]) -> str:
    return f"{entry['side']} {entry['organ']}".strip() or strings.DASH


def _hu(entry: Mapping[str, Any]) -> str:
    if entry["hu_mean"] is None:
        return strings.DASH
    return f"{strings.number(float(entry['hu_mean']), 0)} ± {entry['hu_sd']:.0f} HU"


def _score_parts(scores: Mapping[str, Any]) -> dict[str, Any]:
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


def _curves(lines: Sequence[Mapping[str, Any]], wanted: Sequence[_Curve]) -> list[tuple[str, Markup]]:
    """Charts of a training log, one for each thing that was wanted and logged."""
    rows = [line for line in lines if "step" in line and "loss" in line]
    steps = [row["step"] for row in rows]
    charts = []
    for heading, up, keys, span in wanted:
        curves = {}
        for key in keys:
            for name, values in _series(rows, key).items():
                curves[name] = (steps, values)
        if curves:
            svg = curve_chart(curves, f"{heading} over steps", across="step", up=up, span=span)
            charts.append((heading, Markup(svg)))  # drawn here; the SVG writer escaped the names
    return charts


def _series(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[Any]]:
    """One logged quantity as lines: itself, or one line a class where it is a table or a list."""
    values = [row.get(key) for row in rows]
    sample = next((value for value in values if value is not None), None)
    if sample is None:
        return {}
    if isinstance(sample, Mapping):
        return {str(part): [(v or {}).get(part) for v in values] for part in sample}
    if isinstance(sample, list):
        return {f"class {n + 1}": [v[n] if v else None for v in values] for n in range(len(sample))}
    return {key.replace("_", " "): values}


def _run_lead(lines: Sequence[Mapping[str, Any]], scores: Mapping[str, Any] | None) -> str:
    parts = []
    last = next((line for line in reversed(lines) if "step" in line and "loss" in line), None)
    if last is not None:
        parts.append(f"{last['step']} steps, last loss {strings.number(last['loss'])}")
    if scores is not None:
        parts.append(f"held out: {tables.lead(scores).rstrip('.')}")
    return f"{'. '.join(part[:1].upper() + part[1:] for part in parts)}." if parts else ""


def _read_scores(folder: Path) -> dict[str, Any]:
    path = folder / "scores.json"
    scores = read_json(path)
    if not isinstance(scores, dict) or not {"protocol", "cases", "mean"} <= scores.keys():
        raise InputError(
            "no scores in it", where=path, wanted="protocol, cases and mean", fix="run hilum evaluate again"
        )
    return scores


def _read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log that can be read; the last one may be cut off while a run goes on."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def _optional_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    value = read_json(path)
    return value if isinstance(value, dict) else None
