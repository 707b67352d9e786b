"""The page of one case: a sentence, the measurements, pictures in three planes, every lesion, its making.

Comes in: measurements and the Volumes to draw. Goes out: ``report.html``. It computes no number of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hilum.labels import LabelScheme
from hilum.pages import strings, tables
from hilum.pages.figures import case_rows, lesion_picture
from hilum.pages.writing import AGREEMENT, write_page
from hilum.results.measure import title
from hilum.volume import Volume

MOST_LESION_PICTURES = 12


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
        "agreement": AGREEMENT if truth is not None else (),
        "score_table": tables.value_table(scores) if scores else None,
        "smallest": measurements["smallest_lesion_voxels"],
        "scan_facts": _scan_facts(scan if scan is not None else labels),
        "model_facts": strings.facts(model_card or {}),
        "run_facts": strings.facts(run or {}),
    }
    return write_page(out_html, "case.html", context)


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
